import type { Sequelize, Transaction } from 'sequelize'

import { ApiKeysError } from '../errors'
import { clearTimeout, setTimeout } from './background'
import { poolOf } from './open-client'

/** The owner for whom a call is made. Turns go round between owners. */
export interface Caller {
  owner?: { readonly type: string; readonly id: string | number } | undefined
  /** The actor. The app itself has no id. */
  actor?: { readonly type: string; readonly id?: string | number | bigint } | undefined
  /** A transaction of the caller's, which has its connection already. */
  transaction?: Transaction | undefined
}

/** Returns how many connections of the app's pool calls have at a time: half of it, and at most four. */
export function mostAtOnceOf(sequelize: Sequelize): number {
  return Math.max(1, Math.min(maxAtOnce, Math.floor(poolOf(sequelize).max / 2)))
}

/** Gives calls their turns. */
export type InTurn = ReturnType<typeof createInTurn>

/** The most connections of the app's pool that calls have at a time. */
const maxAtOnce = 4

/**
 * Makes the function that lets few calls at a time have a connection of the app's pool. The next
 * turn is another user's, if another user waits. Otherwise one user who sends many requests would keep the pool from the app and
 * from all other users. A call waits as long as it would for a connection.
 */
export function createInTurn(sequelize: Sequelize) {
  const { acquire: acquireMs } = poolOf(sequelize)
  const most = mostAtOnceOf(sequelize)
  /** The calls that wait, by their users. The user at the front is next, and goes to the back. */
  const queues = new Map<string, Set<() => void>>()
  let running = 0

  async function wait(who: string) {
    const queue = queues.get(who) ?? new Set()
    queues.set(who, queue)
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(giveUp, acquireMs)
      queue.add(start)

      function start() {
        clearTimeout(timer)
        resolve()
      }

      function giveUp() {
        queue.delete(start)
        if (queue.size === 0 && queues.get(who) === queue) queues.delete(who)
        const cause = new Error(`express-api-keys: no turn in ${acquireMs} ms`)
        reject(new ApiKeysError('database_unavailable', { cause }))
      }
    })
  }

  /** Hands the turn on, or ends it. */
  function end() {
    for (const [who, queue] of queues) {
      queues.delete(who)
      const [start] = queue
      if (!start) continue

      queue.delete(start)
      if (queue.size > 0) queues.set(who, queue)
      return start()
    }
    running--
  }

  return async function inTurn<Result>(
    caller: Caller,
    work: () => Promise<Result>,
  ): Promise<Result> {
    if (caller.transaction) return work()
    if (running >= most) await wait(nameOf(caller))
    else running++
    try {
      return await work()
    } finally {
      end()
    }
  }
}

/** Returns the name under which a call waits: its actor's, else its owner's. */
export function nameOf({ owner, actor }: Pick<Caller, 'owner' | 'actor'>): string {
  if (actor?.id !== undefined) return `${actor.type} ${actor.id}`
  return owner === undefined ? '' : `${owner.type} ${owner.id}`
}
