import * as fc from 'fast-check'

import { ApiKeysError } from '../../lib'
import { createBackground } from '../../lib/database/background'
import { createServerClock, momentOf } from '../../lib/database/clock'
import { createOwnChanges } from '../../lib/database/own-changes'
import { createEmitter } from '../../lib/keys/emitter'
import { asSent, toStoredHash } from '../../lib/keys/secret'
import type { KeyRow } from '../../lib/verification/cache'
import { createObserved } from '../../lib/database/observed'
import { createMemory, createRefresh } from '../../lib/verification/memory'
import { createVerifier, type Verdict } from '../../lib/verification/verify'
import {
  createWorld,
  digests,
  format,
  minted,
  permissions,
  type Rules,
  type Status,
  type World,
} from './simulated-world'

/*
 * The shipped parts of a process in a simulated world. Polls, look-ups and questions to the app are answered late, in
 * any order, or never. A standby may answer, or a server that has lost its last changes. Clocks stop or are set. The
 * log is cut off, or is no longer written. Time passes when the spec says so.
 */

export const maxStalenessMs = 1_000

export const background = createBackground()

export type Action =
  | { do: 'verify'; key: number }
  | { do: 'change'; key: number; to: Status }
  | { do: 'create'; key: number; by: 'this process' | 'another' }
  | { do: 'change all'; to: KeyRow['status'] }
  | { do: 'suspend'; user: number; to: boolean }
  | { do: 'transfer'; key: number; user: number }
  | { do: 'unrevoke'; key: number }
  | { do: 'change user'; user: number; to: readonly string[] }
  | { do: 'answer'; read: number; fails: boolean; standby: boolean }
  | { do: 'look'; read: number }
  | { do: 'ring' }
  | { do: 'poll' }
  | { do: 'wait'; ms: number }
  | { do: 'sleep'; ms: number }
  | { do: 'set the clock'; ms: number }
  | { do: 'lose the time' }
  | { do: 'lose changes'; count: number }
  | { do: 'cut the log off' }
  | { do: 'switch triggers' }
  | { do: 'go idle' }

/** The number of a statement under way, mostly the oldest. */
const read = fc.constantFrom(0, 0, 0, 1, 2, 3)

/** Happens once in ten times. */
export const seldom = fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true))

const ms = fc.constantFrom(1, 100, 299, 333, 400, 600, 999, 1_000, 1_001)

/** An answer to one of the statements under way, by the primary or by a standby. */
export function answers(standby: fc.Arbitrary<boolean>): fc.Arbitrary<Action> {
  return fc.record({ do: fc.constant('answer'), read, fails: seldom, standby })
}

/** The events of every simulation. */
export const commonActions = {
  look: fc.record({ do: fc.constant('look'), read }),
  ring: fc.constant({ do: 'ring' }),
  poll: fc.constant({ do: 'poll' }),
  wait: fc.record({ do: fc.constant('wait'), ms }),
  cutOff: fc.constant({ do: 'cut the log off' }),
  switchTriggers: fc.constant({ do: 'switch triggers' }),
} satisfies Record<string, fc.Arbitrary<Action>>

/** Draws actions, each kind as often as its weight says. */
export function actionsOf(...kinds: [weight: number, arbitrary: fc.Arbitrary<Action>][]) {
  const action = fc.oneof(...kinds.map(([weight, arbitrary]) => ({ weight, arbitrary })))
  return fc.array(action, { minLength: 20, maxLength: 80, size: 'max' })
}

/** The shipped parts of one process, without its connections, its signals and its counts. */
function createProcess(world: World, { outageGraceMs, grantable }: Rules) {
  const observed = createObserved()
  const memory = createMemory({
    importing: undefined,
    background,
    observed,
    clock: world.clock,
    log: { read: world.readLog, register: async () => {}, prune: async () => {} },
    lookUp: (wanted) => world.readKeys(wanted),
    owners: world.owners,
    cacheSize: 100,
    idleMs: Infinity,
    maxStalenessMs,
    outageGraceMs,
    firstAnswerLimitMs: maxStalenessMs,
    grantable: grantable && world.grantable,
    grantableMaxAgeMs: grantable?.maxAgeMs ?? 0,
    permissions,
    emitter: { emit() {} },
    onStandby: () => {},
  })
  const verifier = createVerifier({
    format,
    memory,
    observed,
    usage: {
      noteUse: () => {},
      countUse: () => {},
      noteDenied: () => {},
      lastUseOf: () => undefined,
    },
    retiredUses: { note: () => {} },
    attempts: { note: () => 0, mayLookUp: () => true },
    emitter: createEmitter(),
    makeSignal: () => new AbortController().signal,
    secretCheck: { isDone: true, run: () => {} },
    imports: undefined,
  })
  const { added } = createRefresh({
    memory,
    changeLog: {
      find: async () => new Map(),
      remove: async () => {},
      reportOwnerChange: async () => {},
    },
    ownChanges: createOwnChanges(world.clock),
    serverClock: createServerClock(),
  })
  return { feed: memory.feed, verifier, added }
}

const anyone = { refusalOf: () => null }

/** Lets the process go on until it needs another answer. */
export async function settle() {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
}

/** A verdict, and the state of the process when the verdict was asked for. */
export interface Decided {
  key: number
  verdict: Verdict
  askedAt: number
  /** The time up to which all changes had been reported to the process. */
  knownFrom: number
}

/** Plays the actions. Returns the verdicts, and the faults that `faultsOf` finds in them. */
export async function play(
  actions: readonly Action[],
  rules: Rules,
  faultsOf: (decided: Decided, world: World) => readonly string[],
) {
  const world = createWorld(rules)
  const { feed, verifier, added } = createProcess(world, rules)
  const verdicts: string[] = []
  const faults: string[] = []
  const deciding: Promise<void>[] = []

  async function verify(key: number) {
    const sent = asSent(minted[key]?.plainTextKey ?? '')
    const asked = { key, askedAt: world.now, knownFrom: world.knownFrom }
    try {
      const verdict = await verifier.verify(sent, { ...anyone })
      verdicts.push(verdict.valid ? 'active' : verdict.code)
      const found = faultsOf({ ...asked, verdict }, world)
      faults.push(...found.map((fault) => `at ${world.now}: key ${key} ${fault}`))
    } catch (error) {
      verdicts.push('unavailable')
      if (!(error instanceof ApiKeysError)) faults.push(String(error))
    }
  }

  async function ring() {
    const rungAt = world.now
    await feed.pollAnew()
    if (feed.health(momentOf(world.clock)).feed === 'following' && world.knownFrom < rungAt) {
      faults.push(`at ${world.now}: a bell of ${rungAt} was answered from ${world.knownFrom}`)
    }
  }

  function act(action: Action) {
    const { reads } = world
    switch (action.do) {
      case 'verify':
        return void deciding.push(verify(action.key))
      case 'change':
        return world.change(action.key, action.to)
      case 'create': {
        const isOwn = action.by === 'this process'
        const isCreated = world.create(action.key, isOwn)
        if (isCreated && isOwn) added(toStoredHash(digests[action.key] ?? ''), undefined)
        return
      }
      case 'change all':
        return world.changeAll(action.to)
      case 'suspend':
        return world.suspend(action.user, action.to)
      case 'unrevoke':
        return world.unrevoke(action.key)
      case 'transfer':
        return world.transfer(action.key, action.user)
      case 'change user':
        return world.changeUser(action.user, action.to)
      case 'look': {
        const read = reads[action.read % (reads.length || 1)]
        if (read) read.saw ??= world.sight
        return
      }
      case 'answer': {
        const [read] = reads.splice(action.read % (reads.length || 1), 1)
        if (action.fails) read?.fail(new ApiKeysError('database_unavailable'))
        else read?.answer(action.standby ? world.sightOfStandby : (read.saw ?? world.sight))
        return
      }
      case 'ring':
        return void ring().catch(() => {})
      case 'poll':
        return void feed.poll().catch(() => {})
      case 'wait':
        return world.pass(action.ms)
      case 'sleep':
        return world.sleep(action.ms)
      case 'set the clock':
        return world.setClock(action.ms)
      case 'lose the time':
        return world.loseTime()
      case 'lose changes':
        return world.loseChanges(action.count)
      case 'cut the log off':
        return world.cutOff()
      case 'switch triggers':
        return world.switchTriggers()
      case 'go idle':
        return feed.stop()
    }
  }

  for (const action of actions) {
    act(action)
    await settle()
  }
  while (world.reads.length > 0) {
    world.reads.shift()?.fail(new ApiKeysError('database_unavailable'))
    await settle()
  }
  await Promise.all(deciding)
  feed.stop()
  return { verdicts, faults }
}
