import type { Transaction } from 'sequelize'

import type { Status } from '../../models/api-key'
import type { EventAction } from '../../models/api-key-event'
import type { ApiKeyEvent, Audit } from '../audit/trail'
import type { AuditHead } from '../audit/head'
import type { AuditVerification } from '../audit/verify'
import type { Sort } from '../keys/cursor'
import { onDatabase } from '../database/failures'
import type { LimitOverrides } from '../keys/limits'
import type { Metadata } from '../keys/metadata'
import type { ApiKeyRecord } from '../keys/record'
import type { Actor } from '../keys/types'
import type { Parsers } from '../keys/input'
import type { Store } from './store'
import type { TotalUsage, Usage, UsageStore } from '../usage/report'
import { readUsagePeriod, type UsageUnit } from '../keys/usage-period'

/** An id of one of the app's users, in any of the forms that ids come in. */
export type AnyUserId = string | number | bigint

/** A key to be made. */
export interface NewApiKey<Permission extends string = string> {
  /** The owner. */
  userId: AnyUserId
  /** 1 to 100 characters. */
  name: string
  /** At most 500 characters. */
  description?: string | null | undefined
  /** At least one, without repeats. */
  permissions: readonly Permission[]
  /** In the future; as text, ISO 8601 with an offset. Without it the key does not expire. */
  expiresAt?: Date | string | null | undefined
  /** Addresses and ranges (CIDR), IPv4 and IPv6, from which the key works; at most 100. Without it, from everywhere. */
  allowedIps?: readonly string[] | null | undefined
  /** What the app keeps with the key: a JSON object of at most 4096 bytes. */
  metadata?: Metadata | undefined
  /**
   * How often the key may be used, over the app's limits of the same names; `null` for a name takes the app's away. Not for
   * owners to write.
   */
  limits?: LimitOverrides | null | undefined
}

/** What may change of a key besides its permissions and status. What is left out stays. */
export type ApiKeyChanges = Partial<
  Pick<NewApiKey, 'name' | 'description' | 'expiresAt' | 'allowedIps' | 'metadata' | 'limits'>
>

interface Page {
  /**
   * How many at most, from 1 to 100.
   *
   * @default 20
   */
  limit?: number | undefined
  /** The `nextCursor` of the page before. */
  cursor?: string | undefined
}

export interface ApiKeyFilter<Permission extends string = string> extends Page {
  /** The owner. */
  userId?: AnyUserId
  status?: Status | readonly Status[] | undefined
  /** Only keys whose `expiresAt` is over, or only others. */
  isExpired?: boolean | undefined
  /** Only keys that hold it. */
  permission?: Permission | undefined
  /**
   * Only keys whose name and description have words that begin with all of these, at most 10. What begins with the key prefix
   * and an underscore is looked for in `prefix`.
   */
  text?: string | undefined
  /**
   * The order, with a `-` the greatest first. All but `createdAt` need a `userId`.
   *
   * @default '-createdAt'
   */
  sort?: Sort | undefined
}

export interface EventFilter extends Page {
  apiKeyId?: string | undefined
  /** The owner of the key. */
  userId?: AnyUserId
  action?: EventAction | undefined
}

/** Of which time usage is told, and in what parts. */
export interface UsageQuery {
  /**
   * The hours that begin from then on; as text, RFC 3339. At most 31 days before `to`, by the day 366.
   *
   * @default 24 hours or 30 days, of which the last has begun before `to`
   */
  from?: Date | string | undefined
  /**
   * The hours that begin before then.
   *
   * @default now
   */
  to?: Date | string | undefined
  /**
   * Days are those of UTC.
   *
   * @default 'hour'
   */
  by?: UsageUnit | undefined
}

export interface UsageFilter extends UsageQuery {
  apiKeyId?: string | undefined
  /** The owner of the key. */
  userId?: AnyUserId
}

/** What every call that reads takes last. */
export interface ReadOptions {
  /** Only a key of this user; another's is not found. */
  userId?: AnyUserId
  /** A transaction to be part of. An ambient one (CLS) is never joined. */
  transaction?: Transaction | undefined
}

/** What every call that changes something takes last. */
export interface ChangeOptions extends ReadOptions {
  /**
   * Who does it, for the audit trail.
   *
   * @default the user of `userId`, else `{ type: 'system' }`
   */
  actor?: Actor | undefined
  /** From which IP address it is asked for, for the audit trail: `req.ip`, say. */
  address?: string | undefined
  /** Why, for the audit trail; at most 500 characters. */
  reason?: string | undefined
}

/** What every call that takes something away from keys takes last. */
export interface RestrictOptions extends ChangeOptions {
  /**
   * Answers only when no process can go by the old state any more: as long after the commit as the longest bound
   * (`maxStalenessMs` and `outageGraceMs`) that any process goes by. Not within a `transaction` of the caller.
   *
   * @default false
   */
  everywhere?: boolean | undefined
}

/** What the call takes last that tells of a user. */
export type UserChangeOptions = Pick<RestrictOptions, 'transaction' | 'everywhere'>

/** What a rotation takes last. */
export interface RotateOptions extends ChangeOptions {
  /**
   * For how many seconds the old secret works on: 0 for not at all, at most `maxGracePeriodSeconds`. It never works for
   * longer than the key itself.
   *
   * @default 86_400 (a day)
   */
  gracePeriodSeconds?: number | undefined
}

/** What pruning the audit trail takes. */
export interface PruneOptions {
  /** How many days old an entry has to be; a whole number above 0. */
  olderThanDays: number
  /**
   * Removes nothing, and says how much there would be.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** What revoking keys that are not in use takes. */
export interface UnusedOptions {
  /** For how many days nobody has used them, nor were they made; a whole number above 0. */
  unusedForDays: number
  /** Only keys of this user. */
  userId?: AnyUserId
  /**
   * Revokes nothing, and says how many there would be.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** Everything that can be done with keys. Each refusal is an `ApiKeysError` with a stable `code`. */
export interface Lifecycle<Permission extends string = string, UserId = string | number> {
  /** Makes a key. Its plain text is in this answer and never again anywhere. */
  create(
    apiKey: NewApiKey<Permission>,
    options?: Omit<ChangeOptions, 'userId'>,
  ): Promise<{ apiKey: ApiKeyRecord<Permission, UserId>; plainTextKey: string }>

  /**
   * Lists keys of every status, newest first, a page at a time. A page may be shorter than asked for, while the rest of a long
   * list is searched; the last page has no `nextCursor`.
   */
  list(
    filter?: ApiKeyFilter<Permission>,
    options?: Omit<ReadOptions, 'userId'>,
  ): Promise<{ apiKeys: ApiKeyRecord<Permission, UserId>[]; nextCursor: string | null }>

  get(id: string, options?: ReadOptions): Promise<ApiKeyRecord<Permission, UserId>>

  update(
    id: string,
    changes: ApiKeyChanges,
    options?: ChangeOptions,
  ): Promise<ApiKeyRecord<Permission, UserId>>

  /** Replaces the whole set. */
  setPermissions(
    id: string,
    permissions: readonly Permission[],
    options?: RestrictOptions,
  ): Promise<ApiKeyRecord<Permission, UserId>>

  /** Has the key refused until it is reactivated. */
  suspend(id: string, options?: RestrictOptions): Promise<ApiKeyRecord<Permission, UserId>>

  reactivate(id: string, options?: ChangeOptions): Promise<ApiKeyRecord<Permission, UserId>>

  /** Has the key refused for ever. Its record stays. */
  revoke(id: string, options?: RestrictOptions): Promise<ApiKeyRecord<Permission, UserId>>

  /**
   * Gives the key a new secret under the same id, whose plain text is in this answer and never again anywhere. The old
   * secret works on for the grace period, and the one before that no more: whoever rotates twice, for want of an answer
   * say, ends what was in use before.
   */
  rotate(
    id: string,
    options?: RotateOptions,
  ): Promise<{ apiKey: ApiKeyRecord<Permission, UserId>; plainTextKey: string }>

  /** Ends the grace period of a rotation: only the new secret works. */
  endRotation(id: string, options?: RestrictOptions): Promise<ApiKeyRecord<Permission, UserId>>

  /**
   * Revokes all keys of a user at once, and returns how many there were to revoke. It is one transaction for any number of
   * keys. `on('revoked')` reports the first 200 before the answer, and the others a page at a time after it.
   */
  revokeAll(userId: AnyUserId, options?: Omit<RestrictOptions, 'userId'>): Promise<number>

  /** Returns how many keys `revokeAll` would revoke. */
  countRevocable(userId: AnyUserId, options?: Omit<ReadOptions, 'userId'>): Promise<number>

  /** Revokes keys that are not in use, 1,000 in a transaction, and returns how many; with `dryRun`, how many there are. */
  revokeUnused(
    criteria: UnusedOptions,
    options?: Omit<RestrictOptions, 'userId' | 'transaction'>,
  ): Promise<{ keys: number }>

  /**
   * Deletes keys that were revoked so many days ago, 1,000 in a transaction, and returns how many; with `dryRun`, how many there
   * are. The audit trail and the usage go on telling of them.
   */
  pruneRevoked(
    criteria: PruneOptions,
    options?: Omit<ChangeOptions, 'userId' | 'transaction'>,
  ): Promise<{ keys: number }>

  /** Lists the audit trail, newest first, a page at a time. */
  events(
    filter?: EventFilter,
    options?: Omit<ReadOptions, 'userId'>,
  ): Promise<{ events: ApiKeyEvent<UserId>[]; nextCursor: string | null }>

  /**
   * Has every process ask the option `grantable` anew what a user may do, within the bound of all changes. Call it when a
   * user gets or loses a role: in the transaction that changes it, or after that.
   *
   * @example
   * await sequelize.transaction(async (transaction) => {
   *   await user.update({ role: 'guest' }, { transaction })
   *   await apiKeys.userChanged(user.id, { transaction })
   * })
   */
  userChanged(userId: AnyUserId, options?: UserChangeOptions): Promise<void>

  /**
   * Tells how often a key was accepted and refused, hour by hour. Other processes than this one write that down within a
   * minute.
   */
  usage(id: string, query?: UsageQuery, options?: ReadOptions): Promise<Usage>

  /** Tells the same of all keys together, also of those that are gone, and which were used most. */
  totalUsage(
    filter?: UsageFilter,
    options?: Omit<ReadOptions, 'userId'>,
  ): Promise<TotalUsage<UserId>>

  /**
   * Deletes what is told of the usage in hours that began so many days ago, 10,000 entries at a time, and returns how many
   * there were; with `dryRun`, how many there are.
   */
  pruneUsage(options: { olderThanDays: number; dryRun?: boolean }): Promise<{ hours: number }>

  /**
   * Reads the whole audit trail and finds every entry that was changed, removed, inserted or moved, the last one included,
   * and every key that is not what the trail says. With a `head` that was exported before and kept elsewhere, it also finds a
   * trail that was put back as a whole.
   */
  verifyAuditTrail(options?: { head?: AuditHead | undefined }): Promise<AuditVerification>

  /**
   * Returns the end of the audit trail, signed, to be kept where whoever could change the database cannot: for
   * `verifyAuditTrail`. Rejects with `audit_trail_not_intact` where somebody has changed it.
   */
  auditHead(): Promise<AuditHead>

  /**
   * Removes the oldest entries of the audit trail, up to the first that is younger, and leaves a signed checkpoint from which
   * verification goes on. Returns how many. Rejects with `audit_trail_not_intact` like `auditHead`.
   */
  pruneAuditTrail(options: PruneOptions): Promise<{ events: number }>
}

/** The same with input that nobody has looked at yet. */
export type UncheckedLifecycle = ReturnType<typeof createLifecycle>

interface LifecycleParts {
  store: Store
  audit: Audit
  usage: UsageStore
  parse: Parsers
  /** Called after a key was changed, or many, in a transaction of the caller's or in one that is over. */
  changed(id: string | undefined, transaction: Transaction | undefined): Promise<void>
  /** Has every process ask anew what a user may do. */
  tellOfUser(userId: string | number, transaction: Transaction | undefined): Promise<void>
  /** Resolves when no process goes by what was so before. */
  waitForEveryone(): Promise<void>
}

/** Holds all input against the rules before it reaches the store. */
export function createLifecycle(parts: LifecycleParts) {
  const { store, audit, usage, parse } = parts
  const { changed, tellOfUser, waitForEveryone } = parts

  function readOptions({ transaction, ...circumstances }: ChangeOptions = {}) {
    refuseUndefined(circumstances, 'userId')
    checkTransaction(transaction)
    const { userId, address, reason, actor } = parse.circumstances(circumstances)
    const owner: Actor | undefined = userId === undefined ? undefined : { type: 'user', id: userId }

    return { transaction, userId, address, reason, actor: actor ?? owner }
  }

  /** For calls that name the owner in their first argument: one among the options would go unheeded. */
  function readOwnerlessOptions(options: ChangeOptions = {}) {
    if ('userId' in options) throw new TypeError('userId goes into the first argument of this call')
    return readOptions(options)
  }

  /** For calls that work in transactions of their own. */
  function readOwnOptions(options: ChangeOptions = {}) {
    if (options.transaction)
      throw new TypeError('this call makes transactions of its own: leave out the transaction')
    return readOwnerlessOptions(options)
  }

  /** Makes a change, and has this process know of it before the caller does. */
  async function making<Result>(
    id: string | undefined,
    options: ChangeOptions | undefined,
    change: () => Promise<Result>,
  ): Promise<Result> {
    const result = await onDatabase(change)
    await changed(id, options?.transaction)
    return result
  }

  /** The same for changes that take something away; on request, has every process know. */
  async function restricting<Result>(
    id: string | undefined,
    options: RestrictOptions = {},
    change: (rest: ChangeOptions) => Promise<Result>,
  ): Promise<Result> {
    const { everywhere = false, ...rest } = options
    checkEverywhere(everywhere, rest.transaction)
    const result = await making(id, rest, () => change(rest))
    if (everywhere) await waitForEveryone()
    return result
  }

  function transit(name: Parameters<Store['transit']>[0], id: string, options?: ChangeOptions) {
    return store.transit(name, id, readOptions(options))
  }

  return {
    async create(apiKey: unknown, options?: ChangeOptions) {
      return making('', options, async () =>
        store.create(parse.newKeyOf(apiKey), readOwnerlessOptions(options)),
      )
    },

    list(filter: object = {}, options?: ReadOptions) {
      return onDatabase(async () => {
        refuseUndefined(filter, 'userId')
        return store.list(parse.list(filter), readOwnerlessOptions(options))
      })
    },

    get(id: string, options?: ReadOptions) {
      return onDatabase(async () => store.get(id, readOptions(options)))
    },

    async update(id: string, changes: unknown, options?: ChangeOptions) {
      return making(id, options, async () =>
        store.update(id, parse.changes(changes), readOptions(options)),
      )
    },

    async setPermissions(id: string, permissions: unknown, options?: RestrictOptions) {
      return restricting(id, options, async (rest) => {
        const input = parse.permissionSet({ permissions })
        return store.setPermissions(id, input.permissions, readOptions(rest))
      })
    },

    async suspend(id: string, options?: RestrictOptions) {
      return restricting(id, options, async (rest) => transit('suspend', id, rest))
    },

    async reactivate(id: string, options?: ChangeOptions) {
      return making(id, options, async () => transit('reactivate', id, options))
    },

    async revoke(id: string, options?: RestrictOptions) {
      return restricting(id, options, async (rest) => transit('revoke', id, rest))
    },

    async rotate(id: string, { gracePeriodSeconds, ...options }: RotateOptions = {}) {
      // Nothing may come between the new secret and the answer: to wait for every process, end the rotation.
      return making(id, options, async () => {
        const input = parse.rotation({ gracePeriodSeconds })
        return store.rotate(id, input.gracePeriodSeconds, readOptions(options))
      })
    },

    async endRotation(id: string, options?: RestrictOptions) {
      return restricting(id, options, async (rest) => store.endRotation(id, readOptions(rest)))
    },

    async revokeAll(userId: unknown, options?: RestrictOptions) {
      return restricting(undefined, options, async (rest) => {
        const input = parse.owner({ userId })
        return store.revokeAll(input.userId, readOwnerlessOptions(rest))
      })
    },

    countRevocable(userId: unknown, options?: ReadOptions) {
      return onDatabase(async () => {
        const input = parse.owner({ userId })
        return store.countRevocable(input.userId, readOwnerlessOptions(options))
      })
    },

    async revokeUnused(criteria: object, options?: RestrictOptions) {
      refuseUndefined(criteria, 'userId')
      return restricting(undefined, options, async (rest) => {
        const input = parse.unusedKeys(criteria)
        return { keys: await store.revokeUnused(input, readOwnOptions(rest)) }
      })
    },

    async pruneRevoked(criteria: unknown, options?: ChangeOptions) {
      return making(undefined, options, async () => {
        const input = parse.pruning(criteria)
        return { keys: await store.pruneRevoked(input, readOwnOptions(options)) }
      })
    },

    events(filter: object = {}, options?: ReadOptions) {
      return onDatabase(async () => {
        refuseUndefined(filter, 'userId', 'apiKeyId')
        return audit.list(parse.eventList(filter), readOwnerlessOptions(options))
      })
    },

    usage(id: string, query: object = {}, options?: ReadOptions) {
      return onDatabase(async () => {
        const period = readUsagePeriod(parse.usageQuery(query))
        const scope = readOptions(options)
        const apiKey = await store.get(id, scope)
        return usage.ofKey(apiKey.id, period, scope)
      })
    },

    totalUsage(filter: object = {}, options?: ReadOptions) {
      return onDatabase(async () => {
        refuseUndefined(filter, 'userId', 'apiKeyId')
        const { apiKeyId, userId, ...query } = parse.usageFilter(filter)
        const scope = readOwnerlessOptions(options)
        return usage.ofAll({ apiKeyId, userId, ...readUsagePeriod(query) }, scope)
      })
    },

    pruneUsage(options: unknown) {
      return onDatabase(async () => {
        const { olderThanDays, dryRun } = parse.pruning(options)
        return {
          hours: await (dryRun ? usage.countOld(olderThanDays) : usage.prune(olderThanDays)),
        }
      })
    },

    verifyAuditTrail(options: object = {}) {
      return onDatabase(async () => {
        const { head } = parse.auditVerification(options)
        return audit.verify(head)
      })
    },

    auditHead() {
      return onDatabase(() => audit.exportHead())
    },

    pruneAuditTrail(options: unknown) {
      return onDatabase(async () => ({
        events: await audit.prune(parse.pruning(options)),
      }))
    },

    async userChanged(userId: unknown, options: UserChangeOptions = {}) {
      const { transaction, everywhere = false, ...rest } = options
      checkTransaction(transaction)
      checkEverywhere(everywhere, transaction)
      const [unknown] = Object.keys(rest)
      if (unknown !== undefined) throw new TypeError(`userChanged: there is no option ${unknown}`)

      const input = parse.owner({ userId })
      await onDatabase(() => tellOfUser(input.userId, transaction))
      if (everywhere) await waitForEveryone()
    },
  }
}

function checkTransaction(transaction: unknown) {
  // An app may have two copies of Sequelize, and so it is not asked of which class it is.
  if (transaction !== undefined && transaction !== null && !('commit' in Object(transaction))) {
    throw new TypeError('transaction must be one that sequelize.transaction() has made')
  }
}

function checkEverywhere(everywhere: unknown, transaction: Transaction | undefined) {
  if (typeof everywhere !== 'boolean') throw new TypeError('everywhere must be true or false')
  if (everywhere && transaction) {
    throw new TypeError('everywhere needs a change that is committed: leave out the transaction')
  }
}

/** `{ userId: undefined }` is what a mistake looks like that would reach everyone's keys. */
function refuseUndefined(options: object, ...names: string[]) {
  for (const [name, value] of Object.entries(options)) {
    if (names.includes(name) && (value === undefined || value === null)) {
      throw new TypeError(`${name} is ${value}: leave it out to mean all of them`)
    }
  }
}
