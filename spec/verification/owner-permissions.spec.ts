import * as fc from 'fast-check'

import { ApiKeysError } from '../../lib'
import { createBackground } from '../../lib/database/background'
import { createEmitter } from '../../lib/keys/emitter'
import { asSent, createSecretFormat, type Digest } from '../../lib/keys/secret'
import type { KeyRow } from '../../lib/verification/cache'
import type { LogReading, Position } from '../../lib/freshness/change-log'
import { createLease } from '../../lib/freshness/lease'
import { momentOf, type Clock } from '../../lib/database/clock'
import { createGrants } from '../../lib/verification/owner-permissions'
import type { KeyReading } from '../../lib/verification/lookup'
import { createMemory } from '../../lib/verification/memory'
import { createNarrowing } from '../../lib/verification/narrow-permissions'
import { createVerifier, type Verdict } from '../../lib/verification/verify'

/*
 * What users may do, against everything that can come between: an app that answers late, in any order or never; polls that
 * do the same; a log that is cut off or no longer written; changes that nobody tells of. Time is the spec's own.
 */

const runs = Number(process.env.GRANT_RUNS ?? 4_000)

const maxStalenessMs = 1_000
const background = createBackground()

const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })
const permissions: readonly string[] = Object.freeze(['READ', 'WRITE'])
const users = ['alice', 'bob']
/** A key with all permissions for each. */
const minted = users.map(() => format.mint())
const digests = minted.map(({ plainTextKey }) => format.parse(asSent(plainTextKey)) ?? '')

type Action =
  | { do: 'verify'; user: number }
  | { do: 'change'; user: number; to: readonly string[] }
  | { do: 'answer'; read: number; fails: boolean }
  | { do: 'look'; read: number }
  | { do: 'poll' }
  | { do: 'ring' }
  | { do: 'wait'; ms: number }
  | { do: 'cut the log off' }
  | { do: 'switch triggers' }

const user = fc.constantFrom(0, 0, 0, 1)
/** Among those under way; mostly the oldest. */
const read = fc.constantFrom(0, 0, 0, 1, 2, 3)

const action = fc.oneof<fc.MaybeWeightedArbitrary<Action>[]>(
  { weight: 12, arbitrary: fc.record({ do: fc.constant('verify'), user }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('change'),
      user,
      to: fc.constantFrom([], ['READ'], ['WRITE'], ['READ', 'WRITE']),
    }),
  },
  {
    weight: 24,
    arbitrary: fc.record({
      do: fc.constant('answer'),
      read,
      fails: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
  },
  { weight: 12, arbitrary: fc.record({ do: fc.constant('look'), read }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('poll') }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('ring') }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('wait'),
      ms: fc.constantFrom(1, 299, 333, 400, 600, 999, 1_000, 1_001),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('cut the log off') }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('switch triggers') }) },
)

interface Entry extends Position {
  changed: string
}

/** All that a server holds. Never changed in place, so that a look at it is a reference. */
interface Content {
  log: readonly Entry[]
  roles: readonly (readonly string[])[]
  triggers: string | null
}

/** A statement of ours, or a question of the app's, that is under way. */
interface Read {
  /** What it saw, once it did. */
  saw?: Content
  answer(content: Content): void
  fail(error: Error): void
}

/** The database of the library and of the app, and time. */
function createWorld({ isTold }: Pick<Rules, 'isTold'>) {
  let now = 0
  let versions = 0
  let content: Content = {
    log: [{ revision: 1, mark: 'mark-0', changed: 'nobody' }],
    roles: [permissions, permissions],
    triggers: 'triggers-0',
  }
  const history = users.map(() => [{ from: -Infinity, held: permissions }])
  const reads: Read[] = []
  const clock: Clock = {
    monotonic: () => 50_000 + now,
    wall: () => 1_700_000_000_000 + now,
  }

  function start<Reading>(read: (content: Content) => Reading): Promise<Reading> {
    return new Promise((resolve, reject) => {
      reads.push({ answer: (content) => resolve(read(content)), fail: reject })
    })
  }

  return {
    clock,
    reads,

    get now() {
      return now
    },

    get content() {
      return content
    },

    pass(ms: number) {
      now += ms
    },

    change(user: number, to: readonly string[]) {
      const { log, triggers } = content
      const entry = {
        revision: (log.at(-1)?.revision ?? 0) + 1,
        mark: `mark-${++versions}`,
        changed: users[user] ?? '',
      }
      history[user]?.push({ from: now, held: to })
      content = {
        ...content,
        log: isTold && triggers !== null ? [...log, entry] : log,
        roles: content.roles.with(user, to),
      }
    },

    cutOff() {
      content = { ...content, log: content.log.slice(-1) }
    },

    switchTriggers() {
      const triggers = content.triggers === null ? `triggers-${++versions}` : null
      content = { ...content, triggers }
    },

    readLog(from: Position | null): Promise<LogReading> {
      const sentAt = momentOf(clock)
      return start(({ log, triggers }) => {
        const since = from ? log.filter(({ revision }) => revision > from.revision) : []
        return {
          sentAt,
          triggers,
          newest: log.at(-1) ?? null,
          continues: log.some(
            ({ revision, mark }) => revision === from?.revision && mark === from.mark,
          ),
          changedIds: [],
          changedUserIds: since.map(({ changed }) => changed),
          hasNew: false,
          isStandby: false,
          isSubscriber: false,
          xids: [],
          isRegistered: true,
          serverMs: 0,
        }
      })
    },

    /** Keys do not change here, and are read at once. */
    async readKeys(wanted: readonly Digest[]): Promise<KeyReading> {
      const { log, triggers } = content
      return {
        sentAt: momentOf(clock),
        triggers,
        newest: log.at(-1) ?? { revision: 0, mark: '' },
        rows: new Map(wanted.map((digest) => [digest, rowOf(digest)])),
        isStandby: false,
        isSubscriber: false,
        isRegistered: true,
      }
    },

    grantable(userId: string | number): Promise<readonly string[]> {
      return start(({ roles }) => roles[users.indexOf(String(userId))] ?? [])
    },

    /** Whether a user held something, or lacked it, at any time from a moment on until now. */
    wasSince(moment: number, user: number, isSo: (held: readonly string[]) => boolean): boolean {
      const spans = history[user] ?? []
      return spans.some(({ held }, at) => isSo(held) && (spans[at + 1]?.from ?? Infinity) >= moment)
    },
  }
}

function rowOf(digest: Digest): KeyRow {
  const number = digests.indexOf(digest)
  return {
    digest,
    id: `key-${number}`,
    userId: users[number] ?? '',
    name: 'Deployment',
    permissions,
    status: 'ACTIVE',
    expiresAtMs: null,
    lastUsedAtMs: null,
    worksUntilMs: null,
    policy: { allowedIps: null, metadata: '{}', limits: [] },
  }
}

interface Rules {
  maxAgeMs: number
  outageGraceMs: number
  /** Whether the app tells of what it changes. */
  isTold: boolean
}

/** One process, with everything but its connections. */
function createProcess(
  world: ReturnType<typeof createWorld>,
  { maxAgeMs, outageGraceMs }: Omit<Rules, 'isTold'>,
) {
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
    grantable: world.grantable,
    grantableMaxAgeMs: maxAgeMs,
    permissions,
    onGrantableFailure: () => {},
    onStandby: () => {},
  })
  const { cache, feed, loader, owners } = memory
  const verifier = createVerifier({
    onUnknownSecret: () => {},
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
    attempts: { note: () => 0, mayLookUp: () => true },
    emitter: createEmitter(),
    makeSignal: () => new AbortController().signal,
    clock,
    maxStalenessMs,
  })
  if (!owners) throw new Error('there is a grantable')
  return { feed, narrowing: createNarrowing({ verifier, grants: owners, clock }) }
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
async function play(actions: readonly Action[], rules: Rules): Promise<string[]> {
  const world = createWorld(rules)
  const { feed, narrowing } = createProcess(world, rules)
  const faults: string[] = []
  const deciding: Promise<void>[] = []

  function judge(user: number, verdict: Verdict, askedAt: number) {
    if (!verdict.valid) {
      faults.push(`at ${world.now}: the key of ${users[user]} was ${verdict.code}`)
      return
    }
    const since = rules.isTold
      ? world.now - maxStalenessMs - rules.outageGraceMs
      : askedAt - 2 * rules.maxAgeMs
    for (const permission of permissions) {
      const isHeld = verdict.apiKey.permissions.includes(permission)
      const isTrue = world.wasSince(since, user, (held) => held.includes(permission) === isHeld)
      if (!isTrue) faults.push(`at ${world.now}: ${users[user]} and ${permission}: ${isHeld}`)
    }
  }

  async function verify(user: number) {
    const { plainTextKey } = minted[user] ?? { plainTextKey: '' }
    const askedAt = world.now
    try {
      judge(user, await narrowing.verify(asSent(plainTextKey), anybody), askedAt)
    } catch (error) {
      if (!(error instanceof ApiKeysError)) faults.push(String(error))
    }
  }

  function act(action: Action) {
    switch (action.do) {
      case 'verify':
        deciding.push(verify(action.user))
        return
      case 'change':
        world.change(action.user, action.to)
        return
      case 'look': {
        const read = world.reads[action.read % (world.reads.length || 1)]
        if (read) read.saw ??= world.content
        return
      }
      case 'answer': {
        const [read] = world.reads.splice(action.read % (world.reads.length || 1), 1)
        if (action.fails) read?.fail(new ApiKeysError('database_unavailable'))
        else read?.answer(read.saw ?? world.content)
        return
      }
      case 'poll':
        feed.poll().catch(() => {})
        return
      case 'ring':
        feed.pollAnew().catch(() => {})
        return
      case 'wait':
        world.pass(action.ms)
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

describe('what a key holds', () => {
  it.each<[string, Rules]>([
    ['the bound', { maxAgeMs: 60_000, outageGraceMs: 0, isTold: true }],
    ['the bound and a grace', { maxAgeMs: 60_000, outageGraceMs: 500, isTold: true }],
    ['twice an age of 300 ms', { maxAgeMs: 300, outageGraceMs: 0, isTold: false }],
    ['twice an age of 5 s', { maxAgeMs: 5_000, outageGraceMs: 500, isTold: false }],
    ['the request, with an age of 0', { maxAgeMs: 0, outageGraceMs: 0, isTold: false }],
  ])(
    'never rests on what its owner held longer ago than %s',
    async (_, rules) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(action, { minLength: 20, maxLength: 80, size: 'max' }),
          async (actions) => {
            expect(await play(actions, rules)).toEqual([])
          },
        ),
        { numRuns: runs / 5 },
      )
    },
    120_000,
  )
})

describe('grants', () => {
  const maxAgeMs = 60_000

  /** What is remembered by a process that hears of every change, and an app that answers when it is told to. */
  function createMemory({ maxUsers = 10 } = {}) {
    let now = 0
    const asked: Read[] = []
    const heard: unknown[] = []
    const grants = createGrants({
      background,
      grantable: () =>
        new Promise((resolve, fail) => {
          asked.push({ answer: ({ roles }) => resolve(roles[0] ?? []), fail })
        }),
      permissions,
      feed: { lease: createLease(), isLive: () => true },
      clock: { monotonic: () => now, wall: () => now },
      maxUsers,
      maxAgeMs,
      maxStalenessMs,
      onFailure: () => {},
    })
    grants.listen((userId) => heard.push(userId))

    return {
      grants,
      asked,
      heard,
      pass(ms: number) {
        now += ms
      },
      /** What a user holds, as far as it is known at once. */
      recall(userId: string) {
        return grants.recall(userId, now, now)?.permissions.narrow(permissions)
      },
      async answer(held: readonly string[]) {
        await settle()
        asked.shift()?.answer({ log: [], triggers: null, roles: [held] })
        await settle()
      },
      async fail() {
        await settle()
        asked.shift()?.fail(new Error('away'))
        await settle()
      },
    }
  }

  async function createFilled() {
    const memory = createMemory()
    const asking = memory.grants.ask('alice')
    await memory.answer(['READ'])
    await asking
    return memory
  }

  it('are used up to their age, and up to twice that while they are asked for once', async () => {
    const { recall, pass, answer, asked, heard } = await createFilled()

    pass(maxAgeMs - 1)
    expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(0)

    pass(1)
    for (let use = 0; use < 3; use++) expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(1)
    pass(maxAgeMs - 1)
    expect(recall('alice')).toEqual(['READ'])
    pass(1)
    expect(recall('alice')).toBeUndefined()

    await answer(['WRITE'])
    expect(heard).toEqual(['alice'])
  })

  it('are as old as the question, not the answer', async () => {
    const { grants, recall, pass, answer } = createMemory()
    const asking = grants.ask('alice')
    pass(2 * maxAgeMs - 1)
    await answer(['READ'])
    await asking

    expect(recall('alice')).toEqual(['READ'])
    pass(1)
    expect(recall('alice')).toBeUndefined()
  })

  it('are asked for again a second after that failed, and not with every request', async () => {
    const { recall, pass, fail, asked } = await createFilled()
    pass(maxAgeMs)
    recall('alice')
    await fail()

    pass(999)
    expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(0)
    pass(1)
    expect(recall('alice')).toEqual(['READ'])
    await settle()

    expect(asked).toHaveLength(1)
  })

  it('are forgotten with the user, and what is under way is not joined after that', async () => {
    const { grants, recall, answer, asked } = await createFilled()
    const early = grants.ask('alice')
    await settle()

    grants.forget(['alice', 'nobody'])
    expect(recall('alice')).toBeUndefined()
    const late = grants.ask('alice')
    const later = grants.ask('alice')
    await settle()
    expect(asked).toHaveLength(2)

    await answer(['READ'])
    expect(recall('alice')).toBeUndefined()
    await answer(['WRITE'])
    expect(recall('alice')).toEqual(['WRITE'])
    expect((await early).isForgotten).toBe(true)
    expect(await late).toBe(await later)
  })

  it('are not replaced by an answer to an older question', async () => {
    const { grants, recall, pass, asked, answer } = createMemory()
    const first = grants.ask('alice')
    await settle()
    pass(maxAgeMs)
    const second = grants.ask('alice')
    await settle()
    const [older] = asked.splice(0, 1)

    await answer(['WRITE'])
    older?.answer({ log: [], triggers: null, roles: [['READ']] })
    await Promise.all([first, second])

    expect(recall('alice')).toEqual(['WRITE'])
  })

  it('are remembered of a number of users, those that were in use', async () => {
    const { grants, recall, answer } = createMemory({ maxUsers: 3 })
    for (const userId of ['alice', 'bob', 'carol']) {
      const asking = grants.ask(userId)
      await answer(['READ'])
      await asking
    }
    recall('alice')
    recall('carol')

    const asking = grants.ask('dave')
    await answer(['READ'])
    await asking

    const known = ['alice', 'bob', 'carol', 'dave'].filter((userId) => recall(userId))
    expect(known).toEqual(['alice', 'carol', 'dave'])
  })
})
