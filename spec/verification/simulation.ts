import * as fc from 'fast-check'

import { ApiKeysError } from '../../lib'
import { createBackground } from '../../lib/database/background'
import { momentOf, type Clock } from '../../lib/database/clock'
import type { LogReading, Position } from '../../lib/freshness/change-log'
import { createEmitter } from '../../lib/keys/emitter'
import { asSent, createSecretFormat, type Digest } from '../../lib/keys/secret'
import type { KeyRow } from '../../lib/verification/cache'
import type { KeyReading } from '../../lib/verification/lookup'
import { createMemory } from '../../lib/verification/memory'
import { createVerifier, type Verdict } from '../../lib/verification/verify'

/*
 * A process as it is shipped, in a world of the spec's own: polls, look-ups and questions to the app are answered late, in any
 * order, never, by a standby or by a server that has lost its last changes; clocks stop or are set; the log is cut off or no longer
 * written. Time passes when the spec says so.
 */

/** How often chance plays: a thousand times, or as often as it takes to find what is rare. */
export function runsOf(all: number): number {
  return process.env.RUNS === 'all' ? all : 1_000
}

export const maxStalenessMs = 1_000

export const background = createBackground()

/** All permissions that there are, in the one list that keys with all of them share. */
export const permissions: readonly string[] = Object.freeze(['READ', 'WRITE'])

export const users = ['alice', 'bob', 'carol']

const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })

/** One key for each user. The last key does not exist at first. */
const minted = users.map(() => format.mint())
const digests = minted.map(({ plainTextKey }) => format.parse(asSent(plainTextKey)) ?? '')
const ids = users.map((_, number) => `key-${number}`)

export type Status = KeyRow['status'] | 'MISSING'

export type Action =
  | { do: 'verify'; key: number }
  | { do: 'change'; key: number; to: Status }
  | { do: 'change all'; to: KeyRow['status'] }
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

/** Among the statements under way; mostly the oldest. */
const read = fc.constantFrom(0, 0, 0, 1, 2, 3)

/** Happens once in ten times. */
export const seldom = fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true))

const ms = fc.constantFrom(1, 100, 299, 333, 400, 600, 999, 1_000, 1_001)

/** An answer to one of the statements under way, by the primary or by a standby. */
export function answers(standby: fc.Arbitrary<boolean>): fc.Arbitrary<Action> {
  return fc.record({ do: fc.constant('answer'), read, fails: seldom, standby })
}

/** What happens in every simulation. */
export const commonActions = {
  look: fc.record({ do: fc.constant('look'), read }),
  ring: fc.constant({ do: 'ring' }),
  poll: fc.constant({ do: 'poll' }),
  wait: fc.record({ do: fc.constant('wait'), ms }),
  cutOff: fc.constant({ do: 'cut the log off' }),
  switchTriggers: fc.constant({ do: 'switch triggers' }),
} satisfies Record<string, fc.Arbitrary<Action>>

/** Draws a number of actions, each kind as often as its weight says. */
export function actionsOf(...kinds: [weight: number, arbitrary: fc.Arbitrary<Action>][]) {
  const action = fc.oneof(...kinds.map(([weight, arbitrary]) => ({ weight, arbitrary })))
  return fc.array(action, { minLength: 20, maxLength: 80, size: 'max' })
}

interface Entry extends Position {
  /** The number of a key, or all. */
  key?: number | 'all'
  isNew?: boolean
  user?: number
}

/** All that a server holds. Never changed in place, so that a look at it is a reference. */
interface Content {
  log: readonly Entry[]
  statuses: readonly Status[]
  /** What each user may do. */
  roles: readonly (readonly string[])[]
  triggers: string | null
}

/** What a statement sees of a server. */
interface Sight {
  at: number
  content: Content
  isStandby: boolean
}

/** A statement, or a question to the app, that is under way. */
interface Read {
  /** What it saw, if it was sent and not answered. */
  saw?: Sight
  answer(sight: Sight): void
  fail(error: Error): void
}

export interface Rules {
  outageGraceMs: number
  /** With it, keys are read at once, and questions of what users may do take their time. */
  grantable?: {
    maxAgeMs: number
    /** True if the app reports which users it changes. */
    isReported: boolean
  }
}

export type World = ReturnType<typeof createWorld>

/** The database, the app, and time. */
function createWorld({ grantable }: Rules) {
  let now = 0
  let asleep = 0
  let clockIsSetBy: number | null = null
  let lostAt = -Infinity
  let knownFrom = -Infinity
  let pollHasFailed = false
  let versions = 0
  let content: Content = {
    log: [{ revision: 1, mark: 'mark-0' }],
    statuses: ['ACTIVE', 'ACTIVE', 'MISSING'],
    roles: users.map(() => permissions),
    triggers: 'triggers-0',
  }
  let before: Content[] = []
  /** What the database was like from when on. */
  const history = [{ from: -Infinity, content }]
  const reads: Read[] = []

  const clock: Clock = {
    monotonic: () => 50_000 + now - asleep,
    wall: () => 1_700_000_000_000 + now + (clockIsSetBy ?? 0),
  }

  function become(next: Content) {
    content = next
    history.push({ from: now, content })
  }

  function commit(changes: Partial<Content>, entry?: Omit<Entry, keyof Position>) {
    before = [...before, content]
    const { log, triggers } = content
    const newest = { revision: (log.at(-1)?.revision ?? 0) + 1, mark: `mark-${++versions}` }
    const isLogged = entry !== undefined && triggers !== null
    become({ ...content, log: isLogged ? [...log, { ...newest, ...entry }] : log, ...changes })
  }

  function start<Reading>(read: (sight: Sight) => Reading, onFailure = () => {}) {
    return new Promise<Reading>((resolve, reject) => {
      reads.push({
        answer: (sight) => resolve(read(sight)),
        fail(error) {
          onFailure()
          reject(error)
        },
      })
    })
  }

  return {
    clock,
    reads,

    get now() {
      return now
    },

    pass(ms: number) {
      now += ms
    },

    // On a machine that sleeps and whose clock is set as well, no clock tells the truth, and nothing can be promised.

    sleep(ms: number) {
      if (clockIsSetBy === null) asleep += ms
      now += ms
    },

    setClock(ms: number) {
      if (asleep === 0) clockIsSetBy = ms
    },

    /** Lets the wall clock begin anew, years ago. That is noticed after a sleep, too. */
    loseTime() {
      clockIsSetBy ??= -1_000_000_000_000
    },

    /** What the primary has. */
    get sight(): Sight {
      return { at: now, content, isStandby: false }
    },

    /** What a standby has that lags behind. */
    get sightOfStandby(): Sight {
      return { at: now, content: before.at(-3) ?? before[0] ?? content, isStandby: true }
    },

    change(key: number, to: Status) {
      const { statuses } = content
      const from = statuses[key]
      if (from === 'MISSING' && to === 'MISSING') return
      commit({ statuses: statuses.with(key, to) }, { key, isNew: from === 'MISSING' })
    },

    changeAll(to: KeyRow['status']) {
      const statuses = content.statuses.map((from) => (from === 'MISSING' ? from : to))
      commit({ statuses }, { key: 'all' })
    },

    changeUser(user: number, to: readonly string[]) {
      const roles = content.roles.with(user, to)
      commit({ roles }, grantable?.isReported === true ? { user } : undefined)
    },

    /** Fails over to a standby that missed the last changes. Their numbers are given out once more. */
    loseChanges(count: number) {
      const survivor = before.at(-count)
      if (!survivor) return
      before = before.slice(0, -count)
      become(survivor)
      lostAt = now
    },

    cutOff() {
      commit({ log: content.log.slice(-1) })
    },

    switchTriggers() {
      commit({ triggers: content.triggers === null ? `triggers-${++versions}` : null })
    },

    readLog(from: Position | null): Promise<LogReading> {
      const sentAt = momentOf(clock)
      return start(
        (sight) => {
          pollHasFailed = false
          if (!sight.isStandby && sight.content.triggers !== null) knownFrom = sight.at
          return readingOfLog(sight, from, sentAt)
        },
        () => {
          pollHasFailed = true
        },
      )
    },

    async readKeys(wanted: readonly Digest[]): Promise<KeyReading | null> {
      const sentAt = momentOf(clock)
      const readingOf = ({ content, isStandby }: Sight): KeyReading => ({
        sentAt,
        triggers: content.triggers,
        newest: content.log.at(-1) ?? { revision: 0, mark: '' },
        rows: new Map(wanted.flatMap((digest) => rowOf(digest, content.statuses))),
        isStandby,
        isSubscriber: false,
        isRegistered: true,
      })
      return grantable ? readingOf(this.sight) : start(readingOf)
    },

    grantable(userId: string | number): Promise<readonly string[]> {
      return start(({ content }) => content.roles[users.indexOf(String(userId))] ?? [])
    },

    /** Whether the last poll that ended went unanswered. */
    get pollHasFailed() {
      return pollHasFailed
    },

    /** Up to when the process has been told of all changes. */
    get knownFrom() {
      return knownFrom
    },

    /** True if changes were lost that were never reported. */
    hasLostWithin(ms: number): boolean {
      return now - lostAt < ms
    },

    /** True if something was so at any time from then until now. */
    wasSince(then: number, isSo: (content: Content) => boolean): boolean {
      return history.some(
        ({ content }, at) => isSo(content) && (history[at + 1]?.from ?? Infinity) >= then,
      )
    },
  }
}

function readingOfLog(
  { content: { log, triggers }, isStandby }: Sight,
  from: Position | null,
  sentAt: LogReading['sentAt'],
): LogReading {
  const since = from ? log.filter(({ revision }) => revision > from.revision) : []
  const keys = since.flatMap(({ key }) => key ?? [])
  return {
    sentAt,
    triggers,
    isStandby,
    newest: log.at(-1) ?? null,
    continues: log.some(({ revision, mark }) => revision === from?.revision && mark === from.mark),
    changedIds: keys.includes('all') ? null : keys.map((key) => ids[Number(key)] ?? ''),
    changedUserIds: since.flatMap(({ user }) => (user === undefined ? [] : (users[user] ?? []))),
    hasNew: since.some(({ isNew }) => isNew),
    isSubscriber: false,
    xids: [],
    isRegistered: true,
    serverMs: 0,
  }
}

function rowOf(digest: Digest, statuses: readonly Status[]): [Digest, KeyRow][] {
  const number = digests.indexOf(digest)
  const status = statuses[number]
  if (status === undefined || status === 'MISSING') return []

  const row: KeyRow = {
    digest,
    id: ids[number] ?? '',
    userId: users[number] ?? '',
    name: 'Deployment',
    permissions,
    status,
    expiresAtMs: null,
    lastUsedAtMs: null,
    worksUntilMs: null,
    policy: { allowedIps: null, metadata: '{}', limits: [] },
  }
  return [[digest, row]]
}

/** One process as it is shipped, but for its connections, its signals and its counts. */
function createProcess(world: World, { outageGraceMs, grantable }: Rules) {
  const memory = createMemory({
    background,
    clock: world.clock,
    log: { read: world.readLog, register: async () => {}, prune: async () => {} },
    lookUp: (wanted) => world.readKeys(wanted),
    cacheSize: 100,
    maxStalenessMs,
    outageGraceMs,
    firstAnswerLimitMs: maxStalenessMs,
    grantable: grantable && world.grantable,
    grantableMaxAgeMs: grantable?.maxAgeMs ?? 0,
    permissions,
    onGrantableFailure: () => {},
    onStandby: () => {},
  })
  const verifier = createVerifier({
    format,
    memory,
    usage: { noteUse: () => {}, countUse: () => {}, noteDenied: () => {} },
    retiredUses: { note: () => {} },
    attempts: { note: () => 0, mayLookUp: () => true },
    emitter: createEmitter(),
    makeSignal: () => new AbortController().signal,
    secretCheck: { isDone: true, run: () => {} },
  })
  return { feed: memory.feed, verifier }
}

const anyone = { refusalOf: () => null }

/** Lets the process do all that it can do without another answer. */
export async function settle() {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
}

/** A verdict, and what was known when it was asked for. */
export interface Decided {
  key: number
  verdict: Verdict
  askedAt: number
  /** Up to when the process had been told of all changes. */
  knownFrom: number
}

/** Plays what happens. Returns the verdicts, and all that was wrong: `faultsOf` says what is wrong with a verdict. */
export async function play(
  actions: readonly Action[],
  rules: Rules,
  faultsOf: (decided: Decided, world: World) => readonly string[],
) {
  const world = createWorld(rules)
  const { feed, verifier } = createProcess(world, rules)
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
      case 'change all':
        return world.changeAll(action.to)
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
