import * as fc from 'fast-check'

import { ApiKeysError } from '../../lib'
import { createBackground } from '../../lib/database/background'
import { createEmitter } from '../../lib/keys/emitter'
import { asSent, createSecretFormat, type Digest } from '../../lib/keys/secret'
import type { KeyRow } from '../../lib/verification/cache'
import type { LogReading, Position } from '../../lib/freshness/change-log'
import { momentOf, type Clock } from '../../lib/database/clock'
import type { KeyReading } from '../../lib/verification/lookup'
import { createMemory } from '../../lib/verification/memory'
import { createVerifier, type Verdict } from '../../lib/verification/verify'

/*
 * The rules of freshness against everything that can come between them: a process whose polls and look-ups are answered
 * late, in any order, never, by a standby or by a server that has lost its last changes; whose clocks stop or are set;
 * and a database whose log is cut off or no longer written. Time is the spec's own.
 *
 * Chance finds the rules that are broken often. Those that only a rare order of things breaks have a scenario each.
 */

const runs = Number(process.env.FRESHNESS_RUNS ?? 10_000)

const maxStalenessMs = 1_000
const background = createBackground()

const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })

/** The keys that there are to talk of. The last does not exist at first. */
const minted = Array.from({ length: 3 }, () => format.mint())
const digests = minted.map(({ plainTextKey }) => format.parse(asSent(plainTextKey)) ?? '')
const ids = minted.map((_, number) => `key-${number}`)

type Status = KeyRow['status'] | 'MISSING'

type Action =
  | { do: 'verify'; key: number }
  | { do: 'change'; key: number; to: Status }
  | { do: 'change all'; to: KeyRow['status'] }
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

const key = fc.constantFrom(0, 0, 0, 1, 2, 2)
/** Among those under way; mostly the oldest. */
const read = fc.constantFrom(0, 0, 0, 1, 2, 3)
const ms = fc.constantFrom(1, 100, 333, 400, 600, 999, 1_000, 1_001)

const action = fc.oneof<fc.MaybeWeightedArbitrary<Action>[]>(
  { weight: 14, arbitrary: fc.record({ do: fc.constant('verify'), key }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('change'),
      key,
      to: fc.constantFrom('ACTIVE', 'ACTIVE', 'REVOKED', 'SUSPENDED', 'MISSING'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('change all'),
      to: fc.constantFrom('ACTIVE', 'SUSPENDED'),
    }),
  },
  {
    weight: 24,
    arbitrary: fc.record({
      do: fc.constant('answer'),
      read,
      fails: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true)),
      standby: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('look'), read }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('ring') }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('poll') }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('wait'), ms }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('sleep'), ms }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('set the clock'),
      ms: fc.integer({ min: -2_000, max: 2_000 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose the time') }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('lose changes'),
      count: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cut the log off') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('switch triggers') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('go idle') }) },
)

interface Entry extends Position {
  changed: number | 'all'
  isNew: boolean
}

/** All that a server holds. Never changed in place, so that a look at it is a reference. */
interface Content {
  log: readonly Entry[]
  statuses: readonly Status[]
  triggers: string | null
}

/** What a statement sees of a server. */
interface Sight {
  at: number
  content: Content
  isStandby: boolean
}

/** A statement that is under way. */
interface Read {
  /** What it saw, once it did. */
  saw?: Sight
  answer(sight: Sight): void
  fail(error: Error): void
}

/** The database, and time. */
function createWorld() {
  let now = 0
  let asleep = 0
  let clockIsSetBy: number | null = null
  let lostAt = -Infinity
  let knownFrom = -Infinity
  let pollHasFailed = false
  let marks = 0
  let triggerVersions = 0
  let content: Content = {
    log: [{ revision: 1, mark: 'mark-0', changed: -1, isNew: false }],
    statuses: ['ACTIVE', 'ACTIVE', 'MISSING'],
    triggers: 'triggers-0',
  }
  let before: Content[] = []
  /** What every key was like from when on. */
  const history = digests.map((_, number) => [
    { from: -Infinity, status: content.statuses[number] },
  ])
  const reads: Read[] = []

  const clock: Clock = {
    monotonic: () => 50_000 + now - asleep,
    wall: () => 1_700_000_000_000 + now + (clockIsSetBy ?? 0),
  }

  function become(next: Content) {
    for (const [number, status] of next.statuses.entries()) {
      if (status !== content.statuses[number]) history[number]?.push({ from: now, status })
    }
    content = next
  }

  function commit(next: Content) {
    before = [...before, content]
    become(next)
  }

  function logged(changed: Entry['changed'], isNew: boolean): readonly Entry[] {
    const { log, triggers } = content
    if (triggers === null) return log
    return [
      ...log,
      { revision: (log.at(-1)?.revision ?? 0) + 1, mark: `mark-${++marks}`, changed, isNew },
    ]
  }

  function start<Reading>({ read, fail }: { read(sight: Sight): Reading; fail?(): void }) {
    return new Promise<Reading>((resolve, reject) => {
      reads.push({
        answer: (sight) => resolve(read(sight)),
        fail(error) {
          fail?.()
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

    /** Has the wall clock begin anew, years ago. That is noticed after a sleep, too. */
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

    change(changed: number, to: Status) {
      const from = content.statuses[changed]
      if (from === 'MISSING' && to === 'MISSING') return
      commit({
        ...content,
        log: logged(changed, from === 'MISSING'),
        statuses: content.statuses.with(changed, to),
      })
    },

    changeAll(to: KeyRow['status']) {
      commit({
        ...content,
        log: logged('all', false),
        statuses: content.statuses.map((from) => (from === 'MISSING' ? from : to)),
      })
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
      commit({ ...content, log: content.log.slice(-1) })
    },

    switchTriggers() {
      triggerVersions++
      commit({
        ...content,
        triggers: content.triggers === null ? `triggers-${triggerVersions}` : null,
      })
    },

    readLog(from: Position | null): Promise<LogReading> {
      const sentAt = momentOf(clock)
      return start({
        read({ at, content: { log, triggers }, isStandby }) {
          pollHasFailed = false
          if (!isStandby && triggers !== null) knownFrom = at
          return readingOfLog(log, from, { sentAt, triggers, isStandby })
        },
        fail() {
          pollHasFailed = true
        },
      })
    },

    /** Whether the last poll that ended went unanswered. */
    get pollHasFailed() {
      return pollHasFailed
    },

    /** Up to when the process has been told of all changes. */
    get knownFrom() {
      return knownFrom
    },

    readKeys(wanted: readonly Digest[]): Promise<KeyReading | null> {
      const sentAt = momentOf(clock)
      return start({
        read: ({ content: { log, statuses, triggers }, isStandby }) => ({
          sentAt,
          triggers,
          newest: log.at(-1) ?? { revision: 0, mark: '' },
          rows: new Map(wanted.flatMap((digest) => rowOf(digest, statuses))),
          isStandby,
          isSubscriber: false,
          isRegistered: true,
        }),
      })
    },

    /** Whether changes were lost so that nobody was ever told of them. */
    hasLostWithin(ms: number): boolean {
      return now - lostAt < ms
    },

    /** Whether a key was like this at any time from then until now. */
    wasSince(then: number, number: number, wanted: string): boolean {
      const spans = history[number] ?? []
      return spans.some(({ status }, at) => {
        const until = spans[at + 1]?.from ?? Infinity
        return status === wanted && until >= then
      })
    },
  }
}

function readingOfLog(
  log: readonly Entry[],
  from: Position | null,
  rest: Pick<LogReading, 'sentAt' | 'triggers' | 'isStandby'>,
): LogReading {
  const since = from ? log.filter(({ revision }) => revision > from.revision) : []
  const changed = since.map(({ changed }) => changed)
  return {
    ...rest,
    newest: log.at(-1) ?? null,
    continues: log.some(({ revision, mark }) => revision === from?.revision && mark === from.mark),
    changedIds: changed.includes('all') ? null : changed.map((number) => ids[Number(number)] ?? ''),
    changedUserIds: [],
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
    userId: 'alice',
    name: 'Deployment',
    permissions: ['READ_GRAPH'],
    status,
    expiresAtMs: null,
    lastUsedAtMs: null,
    worksUntilMs: null,
    policy: { allowedIps: null, metadata: '{}', limits: [] },
  }
  return [[digest, row]]
}

/** One process, with everything but its connections. */
function createProcess(world: ReturnType<typeof createWorld>, outageGraceMs: number) {
  const { clock } = world
  const memory = createMemory({
    background,
    clock,
    log: { read: world.readLog, register: async () => {}, prune: async () => {} },
    lookUp: world.readKeys,
    cacheSize: 100,
    maxStalenessMs,
    outageGraceMs,
    firstAnswerLimitMs: maxStalenessMs,
    grantable: undefined,
    grantableMaxAgeMs: 0,
    permissions: [],
    onGrantableFailure: () => {},
    onStandby: () => {},
  })
  const { cache, feed, loader } = memory
  const verifier = createVerifier({
    onUnknownSecret: () => {},
    attempts: { note: () => 0, mayLookUp: () => true },
    emitter: createEmitter(),
    format,
    cache,
    feed,
    fills: loader,
    usage: {
      noteUse: () => {},
      countUse: () => {},
      noteDenied: () => {},
    },
    retiredUses: { note: () => {} },
    makeSignal: () => new AbortController().signal,
    clock,
    maxStalenessMs,
  })
  return { feed, verifier }
}

const anybody = { refusalOf: () => null }

/** Lets the process do all that it can do without another answer. */
async function settle() {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
}

/** Plays what happens, and returns what was said of the keys, and everything that was wrong with it. */
async function play(actions: readonly Action[], outageGraceMs: number) {
  const world = createWorld()
  const { feed, verifier } = createProcess(world, outageGraceMs)
  const verdicts: string[] = []
  const faults: string[] = []
  const deciding: Promise<void>[] = []

  /** From when on a verdict that is given now has to be true. */
  function oldestAt(knownFrom: number): number {
    const boundMs = maxStalenessMs + (world.pollHasFailed ? outageGraceMs : 0)
    const oldest = world.now - boundMs
    // What was read and then lost is not told of. It may be used for as long as the bound.
    return world.hasLostWithin(maxStalenessMs) ? oldest : Math.max(oldest, knownFrom)
  }

  function judge(number: number, verdict: Verdict, knownFrom: number) {
    const said = verdict.valid ? 'active' : verdict.code
    const status = said === 'unknown' ? 'MISSING' : said.toUpperCase()
    verdicts.push(said)
    if (!world.wasSince(oldestAt(knownFrom), number, status)) {
      faults.push(`at ${world.now}: key ${number} was called ${said}`)
    }
  }

  async function verify(number: number) {
    const { plainTextKey } = minted[number] ?? { plainTextKey: '' }
    // What the process has been told of before it is asked, it has to honour at once.
    const { knownFrom } = world
    try {
      judge(number, await verifier.verify(asSent(plainTextKey), anybody), knownFrom)
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
    switch (action.do) {
      case 'verify':
        deciding.push(verify(action.key))
        return
      case 'change':
        world.change(action.key, action.to)
        return
      case 'change all':
        world.changeAll(action.to)
        return
      case 'look': {
        const read = world.reads[action.read % (world.reads.length || 1)]
        if (read) read.saw ??= world.sight
        return
      }
      case 'answer': {
        const [read] = world.reads.splice(action.read % (world.reads.length || 1), 1)
        if (!read) return
        if (action.fails) read.fail(new ApiKeysError('database_unavailable'))
        else read.answer(action.standby ? world.sightOfStandby : (read.saw ?? world.sight))
        return
      }
      case 'ring':
        ring().catch(() => {})
        return
      case 'poll':
        feed.poll().catch(() => {})
        return
      case 'wait':
        world.pass(action.ms)
        return
      case 'sleep':
        world.sleep(action.ms)
        return
      case 'set the clock':
        world.setClock(action.ms)
        return
      case 'lose the time':
        world.loseTime()
        return
      case 'lose changes':
        world.loseChanges(action.count)
        return
      case 'cut the log off':
        world.cutOff()
        return
      case 'switch triggers':
        world.switchTriggers()
        return
      case 'go idle':
        feed.stop()
        return
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

const verify = (key: number): Action => ({ do: 'verify', key })
const change = (key: number, to: Status): Action => ({ do: 'change', key, to })
const loseChanges = (count: number): Action => ({ do: 'lose changes', count })
const look = (read: number): Action => ({ do: 'look', read })
const answer = (read: number): Action => ({ do: 'answer', read, fails: false, standby: false })
const fail = (read: number): Action => ({ do: 'answer', read, fails: true, standby: false })
const wait = (ms: number): Action => ({ do: 'wait', ms })
const sleep = (ms: number): Action => ({ do: 'sleep', ms })
const poll: Action = { do: 'poll' }
const switchTriggers: Action = { do: 'switch triggers' }
const loseTheTime: Action = { do: 'lose the time' }

/** The log is read, then a key. There is a lease. */
const start = [verify(1), answer(0), answer(0)]
/** There is a lease all the time, and what was read before is older than the bound. */
const outlastTheBound = [wait(600), poll, answer(0), wait(600)]
/** The log is read again, then the key. */
const askAgain = [answer(0), answer(0)]

/** What only a rare order of things breaks, and the verdicts that are right. */
const scenarios: [name: string, steps: Action[][], verdicts: string[]][] = [
  [
    'does not rest on a look-up that was under way when a change became known',
    [
      start,
      [verify(0), look(0), wait(1), change(0, 'REVOKED'), poll, answer(1), wait(1)],
      [verify(0), answer(0)],
      askAgain,
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest on one that was under way when nobody knew what had changed',
    [
      start,
      [verify(0), look(0), wait(1)],
      [switchTriggers, change(0, 'REVOKED'), switchTriggers, poll, answer(1), wait(1)],
      [verify(0), answer(0)],
      askAgain,
      outlastTheBound,
      [verify(0)],
    ],
    ['active', 'revoked', 'revoked', 'revoked'],
  ],
  [
    'does not rest on one that was known to be old before it was asked for',
    [
      [...start, wait(600), poll, wait(100), verify(0), look(1)],
      [change(0, 'REVOKED'), wait(100), answer(0), wait(850)],
      [verify(0), fail(1), answer(1), answer(0)],
      askAgain,
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest on a change that was lost and whose number was given out once more',
    [
      start,
      [verify(0), change(1, 'SUSPENDED'), look(0), loseChanges(1)],
      [change(0, 'REVOKED'), poll, answer(1), answer(0)],
      askAgain,
      outlastTheBound,
      [verify(0)],
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest for long on a change that was lost and never logged',
    [
      [change(0, 'SUSPENDED'), ...start],
      [switchTriggers, change(0, 'ACTIVE'), verify(0), look(0), loseChanges(2), answer(0)],
      [answer(0), ...outlastTheBound],
      [verify(0), answer(0)],
    ],
    ['active', 'active', 'suspended'],
  ],
  [
    'does not take a key for unknown for long whose removal was lost',
    [
      [change(2, 'ACTIVE'), ...start],
      [change(2, 'MISSING'), verify(2), look(0), loseChanges(1), answer(0)],
      [answer(0), ...outlastTheBound],
      [verify(2), answer(0)],
    ],
    ['active', 'unknown', 'active'],
  ],
  [
    'does not rest on what was before a sleep, though the clock has begun anew',
    [start, [sleep(1_001), loseTheTime, change(1, 'REVOKED'), wait(1), verify(1)], askAgain],
    ['active', 'revoked'],
  ],
  [
    'does not rest on an outage that is over',
    [
      start,
      [poll, fail(0), poll, answer(0), change(1, 'REVOKED'), wait(1_001)],
      [verify(1)],
      askAgain,
    ],
    ['active', 'revoked'],
  ],
  [
    'rests on all that is remembered again after one poll',
    [start, [verify(0), answer(0), wait(1_001)], [verify(1), answer(0), verify(0)]],
    ['active', 'active', 'active', 'active'],
  ],
  [
    'does not wait for an answer that comes too late to be used',
    [
      start,
      [verify(0), look(0), change(1, 'SUSPENDED'), poll, answer(1)],
      [wait(600), poll, answer(1), wait(600)],
      [verify(0), answer(0), answer(1)],
    ],
    ['active', 'active', 'active'],
  ],
]

describe('a verdict', () => {
  it.each([0, 500])(
    'never rests on what was longer ago than the bound, nor on what is known to be over, with a grace of %i ms',
    async (outageGraceMs) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(action, { minLength: 20, maxLength: 80, size: 'max' }),
          async (actions) => {
            expect((await play(actions, outageGraceMs)).faults).toEqual([])
          },
        ),
        { numRuns: runs / 2 },
      )
    },
    Math.max(120_000, 20 * runs),
  )

  describe.each([0, 500])('with a grace of %i ms', (outageGraceMs) => {
    it.each(scenarios)('%s', async (_, steps, verdicts) => {
      expect(await play(steps.flat(), outageGraceMs)).toEqual({ verdicts, faults: [] })
    })
  })
})
