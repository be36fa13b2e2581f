/*
 * One process of an app. It verifies keys all the time and records each verdict with its time. The specs command it
 * over IPC (see `fleet.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { Sequelize, type Transaction } from 'sequelize'

import { ApiKeysError } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { monotonicMs } from './waiting'

export interface WorkerSettings {
  url: string
  /** The options of `createApiKeys` that can be sent. */
  options?: Record<string, unknown>
  /** Connections of the app's own pool. */
  pool?: number
}

export interface Load {
  loops: number
  /** Verifications of a loop between two pauses. */
  batch: number
  pauseMs: number
}

/** The events that a process saw of one key. Times are those of `monotonicMs`. */
export interface Sighting {
  accepted: number
  firstAcceptedAt: number
  lastAcceptedAt: number
  refused: number
  firstRefusedAt: number
  lastRefusedAt: number
  /** Every code that it was refused with. */
  codes: string[]
}

/** A stretch of time without an answer, by code. */
export interface Rejections {
  code: string
  from: number
  to: number
  count: number
}

export interface WorkerReport {
  /** In the order of the watched keys. */
  sightings: Sighting[]
  rejections: Rejections[]
}

/** Rejections at shorter distances than this count as one stretch. */
const stretchMs = 20
/** The maximum number of continuations of an answer without input or output. */
const immediateTicks = 16

let sequelize: Sequelize
let apiKeys: TestApiKeys
let poolSize = 5
let heldTransactions: Transaction[] = []
let watch = { isOver: true, keys: [] as readonly string[], sightings: [] as Sighting[] }
let running: Promise<unknown> = Promise.resolve()
let rejections: Rejections[] = []

const commands = {
  async open({ url, options = {}, pool = 5 }: WorkerSettings) {
    poolSize = pool
    sequelize = new Sequelize(url, { logging: false, pool: { max: pool, acquire: 10_000 } })
    apiKeys = createTestApiKeys({ connect: () => sequelize }, options)
  },

  /** Verifies the keys over and over, beginning a new report. */
  async watch(keys: readonly string[], { loops, batch, pauseMs }: Load) {
    watch.isOver = true
    await running
    const current = { isOver: false, keys, sightings: keys.map(noSighting) }
    watch = current
    rejections = []

    async function loop(first: number) {
      for (let at = first; !current.isOver;) {
        for (let left = batch; left > 0 && !current.isOver; left--, at++) {
          const index = at % keys.length
          const [key, sighting] = [keys[index], current.sightings[index]]
          if (key !== undefined && sighting) await verifyOnce(key, sighting)
        }
        await sleep(pauseMs)
      }
    }
    const step = Math.ceil(keys.length / loops)
    running = Promise.all(Array.from({ length: loops }, (_, number) => loop(number * step)))
  },

  async rest() {
    watch.isOver = true
    await running
  },

  async report(): Promise<WorkerReport> {
    return { sightings: watch.sightings, rejections }
  },

  async verify(key: string) {
    const verdict = await apiKeys.verify(key)
    return { valid: verdict.valid, at: monotonicMs() }
  },

  /** Notes a use of every key. */
  async verifyAll(keys: readonly string[]) {
    let accepted = 0
    for (const key of keys) if ((await apiKeys.verify(key)).valid) accepted += 1
    return accepted
  },

  async block(ms: number) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
  },

  async exhaustPool() {
    while (heldTransactions.length < poolSize) {
      heldTransactions.push(await sequelize.transaction())
    }
  },

  async releasePool() {
    const held = heldTransactions
    heldTransactions = []
    for (const transaction of held) await transaction.rollback()
  },

  async flush(times: number) {
    await Promise.all(Array.from({ length: times }, () => apiKeys.flush()))
  },

  async health(): Promise<unknown> {
    return apiKeys.health()
  },

  async close() {
    watch.isOver = true
    await running
    await apiKeys.close()
    await sequelize.close()
  },
}

export type Commands = typeof commands

function noSighting(): Sighting {
  return {
    accepted: 0,
    firstAcceptedAt: 0,
    lastAcceptedAt: 0,
    refused: 0,
    firstRefusedAt: 0,
    lastRefusedAt: 0,
    codes: [],
  }
}

async function verifyOnce(key: string, sighting: Sighting) {
  let isImmediate = true
  void passTicks(immediateTicks).then(() => (isImmediate = false))
  const calledAt = monotonicMs()
  try {
    const verdict = await apiKeys.verify(key)
    // If the call waited for nothing, the time of the call counts, because the process may have stopped after it.
    note(sighting, verdict, isImmediate ? calledAt : monotonicMs())
  } catch (error) {
    noteRejection(error instanceof ApiKeysError ? error.code : String(error), monotonicMs())
  }
}

async function passTicks(count: number) {
  for (let left = count; left > 0; left--) await Promise.resolve()
}

function note(sighting: Sighting, verdict: Awaited<ReturnType<TestApiKeys['verify']>>, at: number) {
  if (verdict.valid) {
    sighting.accepted += 1
    sighting.firstAcceptedAt ||= at
    sighting.lastAcceptedAt = at
    return
  }

  sighting.refused += 1
  sighting.firstRefusedAt ||= at
  sighting.lastRefusedAt = at
  if (!sighting.codes.includes(verdict.code)) sighting.codes.push(verdict.code)
}

function noteRejection(code: string, at: number) {
  const last = rejections.findLast((stretch) => stretch.code === code)
  if (!last || at - last.to > stretchMs) rejections.push({ code, from: at, to: at, count: 1 })
  else {
    last.to = at
    last.count += 1
  }
}

interface Call {
  number: number
  name: keyof Commands
  args: unknown[]
}

process.on('message', ({ number, name, args }: Call) => {
  // The sender checks the types of the arguments.
  const command = commands[name] as (...args: unknown[]) => Promise<unknown>
  command(...args).then(
    (result) => process.send?.({ number, result }),
    (error: unknown) =>
      process.send?.({ number, error: error instanceof Error ? error.stack : String(error) }),
  )
})
process.on('disconnect', () => process.exit())
