import { momentOf, type Clock } from '../../lib/database/clock'
import type { LogReading, Position } from '../../lib/freshness/change-log'
import type { Owner } from '../../lib/keys/owner'
import { asSent, createSecretFormat, type Digest } from '../../lib/keys/secret'
import type { KeyRow } from '../../lib/verification/cache'
import type { KeyReading } from '../../lib/verification/lookup'
import { unbound } from '../support/keys'
import { createOwnerCache, type OwnerCache } from '../../lib/verification/owners'
import { permissionsOf } from '../support/permissions'

/** All permissions that there are. */
export const permissions = permissionsOf(['READ', 'WRITE'])

export const users = ['alice', 'bob', 'carol']

export const format = createSecretFormat({
  keyPrefixes: ['agpt'],
  secrets: [],
  acceptUnkeyed: false,
})

/** One key for each user. The last key does not exist at first. */
export const minted = users.map(() => format.mint('agpt'))
export const digests = minted.map(({ plainTextKey }) => format.parse(asSent(plainTextKey)) ?? '')
const ids = users.map((_, number) => `key-${number}`)

export type Status = KeyRow['status'] | 'MISSING'

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
  /** The number of the user who owns each key. */
  holders: readonly number[]
  /** True for each user who is suspended. */
  suspended: readonly boolean[]
  /** The permissions of each user. */
  roles: readonly (readonly string[])[]
  triggers: string | null
  /** How many keys were added that the log does not report. */
  unloggedKeys: number
  /** The name of the server. */
  server: string
}

/** How a key was added last: when, if the log reports it, and if this process has added it. */
interface Addition {
  at: number
  isLogged: boolean
  isOwn: boolean
}

/** The state of a server that a statement sees. */
interface Sight {
  at: number
  content: Content
  isStandby: boolean
}

/** A statement, or a question to the app, that is under way. */
interface Read {
  /** The state that it saw, if it was sent and not answered. */
  saw?: Sight
  answer(sight: Sight): void
  fail(error: Error): void
}

export interface Rules {
  outageGraceMs: number
  /** With it, keys are read at once, and answers of `grantable` take time. */
  grantable?: {
    maxAgeMs: number
    /** True if the app reports which users it changes. */
    isReported: boolean
  }
}

export type World = ReturnType<typeof createWorld>

/** Makes the database, the app and the clocks of a simulated process. Time passes when the spec says so. */
export function createWorld({ grantable }: Rules) {
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
    holders: [0, 1, 2],
    suspended: [false, false, false],
    roles: users.map((): readonly string[] => permissions.names),
    triggers: 'triggers-0',
    unloggedKeys: 0,
    server: 'server-0',
  }
  let before: Content[] = []
  /** The states of the database, with the time from which each held. */
  const history = [{ from: -Infinity, content }]
  const reads: Read[] = []
  const owners = createOwnerCache(100)
  /** By the number of the key. */
  const additions: Addition[] = []

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
    owners,

    get now() {
      return now
    },

    pass(ms: number) {
      now += ms
    },

    // If a machine sleeps and its clock is set as well, no clock is right, and nothing can be promised.

    sleep(ms: number) {
      if (clockIsSetBy === null) asleep += ms
      now += ms
    },

    setClock(ms: number) {
      if (asleep === 0) clockIsSetBy = ms
    },

    /** Sets the wall clock back by years. A process notices that after a sleep, too. */
    loseTime() {
      clockIsSetBy ??= -1_000_000_000_000
    },

    /** The state of the primary. */
    get sight(): Sight {
      return { at: now, content, isStandby: false }
    },

    /** The state of a standby that lags behind. */
    get sightOfStandby(): Sight {
      return { at: now, content: before.at(-3) ?? before[0] ?? content, isStandby: true }
    },

    change(key: number, to: Status) {
      const { statuses } = content
      const from = statuses[key]
      if (from === 'MISSING' && to === 'MISSING') return
      if (from === 'MISSING') additions[key] = { at: now, isLogged: true, isOwn: false }
      commit({ statuses: statuses.with(key, to) }, from === 'MISSING' ? { isNew: true } : { key })
    },

    /** Undoes the revocation of a key. */
    unrevoke(key: number) {
      const { statuses } = content
      if (statuses[key] === 'REVOKED') commit({ statuses: statuses.with(key, 'ACTIVE') }, { key })
    },

    /** Creates a key as the library does, which the log does not report. Returns false if it is there. */
    create(key: number, isOwn: boolean): boolean {
      const { statuses, unloggedKeys } = content
      if (statuses[key] !== 'MISSING') return false

      additions[key] = { at: now, isLogged: false, isOwn }
      commit({ statuses: statuses.with(key, 'ACTIVE'), unloggedKeys: unloggedKeys + 1 })
      return true
    },

    additionOf: (key: number) => additions[key],

    changeAll(to: KeyRow['status']) {
      const statuses = content.statuses.map((from) => (from === 'MISSING' ? from : to))
      commit({ statuses }, { key: 'all' })
    },

    /** Suspends a user or ends it, by a row and an entry, whatever the number of the user's keys. */
    suspend(user: number, to: boolean) {
      commit({ suspended: content.suspended.with(user, to) }, { user })
    },

    /** Gives a key another owner. */
    transfer(key: number, user: number) {
      if (content.statuses[key] === 'MISSING') return
      commit({ holders: content.holders.with(key, user) }, { key })
    },

    changeUser(user: number, to: readonly string[]) {
      const roles = content.roles.with(user, to)
      commit({ roles }, grantable?.isReported === true ? { user } : undefined)
    },

    /**
     * Fails over to a standby that missed the last changes. Their numbers are given out once more. It stays unnoticed that it is
     * another server, unless only that shows the loss of a key.
     */
    loseChanges(count: number) {
      const survivor = before.at(-count)
      if (!survivor) return
      before = before.slice(0, -count)
      const hasLostKeys = survivor.unloggedKeys !== content.unloggedKeys
      const server = hasLostKeys ? `server-${++versions}` : content.server
      become({ ...survivor, server })
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
        triggers: versionOf(content),
        newest: content.log.at(-1) ?? { revision: 0, mark: '' },
        rows: new Map(wanted.flatMap((digest) => rowOf(digest, content, owners))),
        isStandby,
        isSubscriber: false,
        isRegistered: true,
      })
      return grantable ? readingOf(this.sight) : start(readingOf)
    },

    grantable({ id }: { id: string | number }): Promise<readonly string[]> {
      return start(({ content }) => content.roles[users.indexOf(String(id))] ?? [])
    },

    /** True if the last poll that ended went unanswered. */
    get pollHasFailed() {
      return pollHasFailed
    },

    /** The time up to which all changes have been reported to the process. */
    get knownFrom() {
      return knownFrom
    },

    /** True if changes were lost that were never reported. */
    hasLostWithin(ms: number): boolean {
      return now - lostAt < ms
    },

    /** True if the condition held at any time from then until now. */
    wasSince(then: number, isSo: (content: Content) => boolean): boolean {
      return history.some(
        ({ content }, at) => isSo(content) && (history[at + 1]?.from ?? Infinity) >= then,
      )
    },
  }
}

/** The version of the triggers, and of the server. */
function versionOf({ triggers, server }: Content): string | null {
  return triggers && `${triggers} of ${server}`
}

function readingOfLog(
  { content, isStandby }: Sight,
  from: Position | null,
  sentAt: LogReading['sentAt'],
): LogReading {
  const { log } = content
  const since = from ? log.filter(({ revision }) => revision > from.revision) : []
  const keys = since.flatMap(({ key }) => key ?? [])
  return {
    sentAt,
    triggers: versionOf(content),
    isStandby,
    newest: log.at(-1) ?? null,
    continues: log.some(({ revision, mark }) => revision === from?.revision && mark === from.mark),
    changedIds: keys.includes('all') ? null : keys.map((key) => ids[Number(key)] ?? ''),
    changedOwners: since.flatMap(({ user }) => (user === undefined ? [] : `user ${users[user]}`)),
    hasNew: since.some(({ isNew }) => isNew),
    hasAdded: false,
    isSubscriber: false,
    xids: [],
    isRegistered: true,
    serverMs: 0,
  }
}

/** The status of a key as verification sees it. A key of a suspended user counts as suspended. */
export function statusOf({ statuses, holders, suspended }: Content, key: number): Status {
  const status = statuses[key] ?? 'MISSING'
  return status === 'ACTIVE' && suspended[holders[key] ?? -1] === true ? 'SUSPENDED' : status
}

/** The owner of a key. */
export function ownerOf({ holders }: Content, key: number): Owner {
  return { type: 'user', id: users[holders[key] ?? -1] ?? '' }
}

function rowOf(digest: Digest, content: Content, owners: OwnerCache): [Digest, KeyRow][] {
  const number = digests.indexOf(digest)
  const status = statusOf(content, number)
  if (status === 'MISSING') return []

  const row: KeyRow = {
    digest,
    id: ids[number] ?? '',
    owner: owners.of(ownerOf(content, number)),
    name: 'Deployment',
    permissions: permissions.heldBy(permissions.names),
    status,
    expiresAtMs: null,
    endsAtMs: Infinity,
    lastUsedAtMs: null,
    worksUntilMs: null,
    isPending: false,
    environment: null,
    policy: { allowedIps: null, metadata: '{}', limits: [], bindings: unbound },
  }
  return [[digest, row]]
}
