import * as fc from 'fast-check'

import { ApiKeysError } from '../../lib'
import { createSecretFormat, type Digest } from '../../lib/keys/secret'
import { createKeyCache, type KeyRow } from '../../lib/verification/cache'
import { createChangeFeed } from '../../lib/verification/change-feed'
import type { LogReading, Position } from '../../lib/verification/change-log'
import { momentOf, type Clock, type Moment } from '../../lib/verification/clock'
import { createFills } from '../../lib/verification/fills'
import type { KeyReading } from '../../lib/verification/lookup'
import { createVerifier, type Verdict } from '../../lib/verification/verifier'

/*
 * The rules of freshness against everything that can come between them: a process whose polls and look-ups are answered
 * late, in any order, never, by a standby or by a server that has lost its last changes; whose clocks stop or are set;
 * and a database whose log is cut off or no longer written. Time is the spec's own.
 */

const runs = Number(process.env.FRESHNESS_RUNS ?? 10_000)

const maxStalenessMs = 1_000

const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })

/** The keys that there are to talk of. The last does not exist at first. */
const minted = Array.from({ length: 3 }, () => format.mint())
const digests = minted.map(({ plainTextKey }) => format.parse(plainTextKey) ?? '')
const ids = minted.map((_, number) => `key-${number}`)

type Status = KeyRow['status'] | 'MISSING'

type Action =
  | { do: 'verify'; key: number }
  | { do: 'change'; key: number; to: KeyRow['status'] }
  | { do: 'answer'; read: number; fails: boolean; standby: boolean }
  | { do: 'look'; read: number }
  | { do: 'ring' }
  | { do: 'poll' }
  | { do: 'wait'; ms: number }
  | { do: 'sleep'; ms: number }
  | { do: 'set the clock'; ms: number }
  | { do: 'lose changes'; count: number }
  | { do: 'cut the log off' }
  | { do: 'switch triggers' }

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
      to: fc.constantFrom('ACTIVE', 'REVOKED', 'SUSPENDED'),
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
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('lose changes'),
      count: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cut the log off') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('switch triggers') }) },
)

interface Entry extends Position {
  changed: number
  isNew: boolean
}

/** All that a server holds. Never changed in place, so that a look at it is a reference. */
interface Content {
  log: readonly Entry[]
  statuses: readonly Status[]
  triggers: string | null
}

/** A statement that is under way. */
interface Read {
  /** What it saw, once it did. */
  saw?: Content
  answer(content: Content, isStandby: boolean): void
  fail(error: Error): void
}

/** The database, and time. */
function createWorld() {
  let now = 0
  let asleep = 0
  let clockIsSetBy: number | null = null
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

  function start<Reading>(
    read: (content: Content, isStandby: boolean) => Reading,
  ): Promise<Reading> {
    return new Promise((resolve, reject) => {
      reads.push({
        answer: (content, isStandby) => resolve(read(content, isStandby)),
        fail: reject,
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

    get content() {
      return content
    },

    /** What a standby has that lags behind. */
    get contentOfStandby() {
      return before.at(-3) ?? before[0] ?? content
    },

    change(changed: number, to: KeyRow['status']) {
      const last = content.log.at(-1)
      const isNew = content.statuses[changed] === 'MISSING'
      const entry = { revision: (last?.revision ?? 0) + 1, mark: `mark-${++marks}`, changed, isNew }
      commit({
        ...content,
        log: content.triggers === null ? content.log : [...content.log, entry],
        statuses: content.statuses.with(changed, to),
      })
    },

    /** Fails over to a standby that missed the last changes. Their numbers are given out once more. */
    loseChanges(count: number) {
      const survivor = before.at(-count)
      if (!survivor) return
      before = before.slice(0, -count)
      become(survivor)
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
      return start(({ log, triggers }, isStandby) =>
        readingOfLog(log, from, { sentAt, triggers, isStandby }),
      )
    },

    readKeys(wanted: readonly Digest[]): Promise<KeyReading | null> {
      const sentAt = momentOf(clock)
      return start(({ log, statuses, triggers }, isStandby) => ({
        sentAt,
        triggers,
        newest: log.at(-1) ?? { revision: 0, mark: '' },
        rows: new Map(wanted.flatMap((digest) => rowOf(digest, statuses))),
        isStandby,
        isRegistered: true,
      }))
    },

    /** Whether a key was like this at any time from `ms` ago until now. */
    wasWithin(ms: number, number: number, isLikeThis: (status: Status) => boolean): boolean {
      const spans = history[number] ?? []
      return spans.some(({ status }, at) => {
        const until = spans[at + 1]?.from ?? Infinity
        return status !== undefined && isLikeThis(status) && until >= now - ms
      })
    },
  }
}

function readingOfLog(
  log: readonly Entry[],
  from: Position | null,
  rest: { sentAt: Moment; triggers: string | null; isStandby: boolean },
): LogReading {
  const since = from ? log.filter(({ revision }) => revision > from.revision) : []
  return {
    ...rest,
    newest: log.at(-1) ?? null,
    continues: log.some(({ revision, mark }) => revision === from?.revision && mark === from.mark),
    changedIds: since.map(({ changed }) => ids[changed] ?? ''),
    hasNew: since.some(({ isNew }) => isNew),
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
    policy: { allowedIps: null, metadata: '{}' },
  }
  return [[digest, row]]
}

/** One process, with everything but its connections. */
function createProcess(world: ReturnType<typeof createWorld>, outageGraceMs: number) {
  const { clock } = world
  const cache = createKeyCache(100)
  const feed = createChangeFeed({
    log: { read: world.readLog, register: async () => {}, prune: async () => {} },
    clock,
    maxStalenessMs,
    outageGraceMs,
    listener: {
      onChanges: (changed) => changed.forEach((id) => cache.forget(id)),
      onNew: () => cache.forgetUnknown(),
      onGap: () => cache.forgetAll(),
      onDoubt: () => {},
    },
    isNeeded: () => false,
    onStart: () => {},
    onStop: () => {},
    onOutage: () => {},
  })
  const fills = createFills({
    lookUp: world.readKeys,
    feed,
    cache,
    clock,
    maxStalenessMs,
    onStandby: () => {},
  })
  const verifier = createVerifier({
    format,
    cache,
    feed,
    fills,
    usage: {
      noteUse: () => Infinity,
      noteRetiredUse: () => {},
      countUse: () => {},
      noteDenied: () => {},
    },
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

/** Plays what happens, and returns everything that was decided wrongly. */
async function play(actions: readonly Action[], outageGraceMs: number): Promise<string[]> {
  const world = createWorld()
  const { feed, verifier } = createProcess(world, outageGraceMs)
  const faults: string[] = []
  const deciding: Promise<void>[] = []

  function judge(number: number, verdict: Verdict) {
    const said = verdict.valid ? 'ACTIVE' : verdict.code
    const boundMs = maxStalenessMs + outageGraceMs
    const isTrue = world.wasWithin(boundMs, number, (status) =>
      said === 'unknown' ? status === 'MISSING' : status === said.toUpperCase(),
    )
    if (!isTrue) faults.push(`at ${world.now}: key ${number} was called ${said}`)
  }

  async function verify(number: number) {
    const { plainTextKey } = minted[number] ?? { plainTextKey: '' }
    try {
      judge(number, await verifier.verify(plainTextKey, anybody))
    } catch (error) {
      if (!(error instanceof ApiKeysError)) faults.push(String(error))
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
      case 'look': {
        const read = world.reads[action.read % (world.reads.length || 1)]
        if (read) read.saw ??= world.content
        return
      }
      case 'answer': {
        const [read] = world.reads.splice(action.read % (world.reads.length || 1), 1)
        if (!read) return
        if (action.fails) read.fail(new ApiKeysError('database_unavailable'))
        else if (action.standby) read.answer(world.contentOfStandby, true)
        else read.answer(read.saw ?? world.content, false)
        return
      }
      case 'ring':
        feed.pollAnew().catch(() => {})
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
      case 'lose changes':
        world.loseChanges(action.count)
        return
      case 'cut the log off':
        world.cutOff()
        return
      case 'switch triggers':
        world.switchTriggers()
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
  return faults
}

describe('a verdict', () => {
  it.each([0, 500])(
    'never rests on what was longer ago than the bound, with a grace of %i ms',
    async (outageGraceMs) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(action, { minLength: 20, maxLength: 80, size: 'max' }),
          async (actions) => {
            expect(await play(actions, outageGraceMs)).toEqual([])
          },
        ),
        { numRuns: runs / 2 },
      )
    },
    120_000,
  )
})
