import type { Transaction } from 'sequelize'

import type { Status } from '../../models/api-key'
import type { EventAction } from '../../models/api-key-event'
import type { ApiKeysError } from '../errors'
import type { ImportReport } from '../importing/report'
import type { AuditHead } from '../audit/head'
import type { ApiKeyEvent } from '../audit/list-entries'
import type { AuditVerification, VerificationOptions } from '../audit/verify'
import type { Sort } from '../keys/cursor'
import type { AnyApp, App, If } from '../keys/app'
import type { AnyId, Owner, SomeOwner } from '../keys/owner'
import type { Actor, ApiKeyChanges, ApiKeyRecord, NewApiKey } from '../keys/record'
import type { UsageUnit } from '../keys/usage-period'
import type { Erased } from './erase-owner'
import type { ImportOptions } from './import-options'
import type { TotalUsage, Usage } from '../usage/report'

interface Page {
  /**
   * The most entries of the page, from 1 to 100.
   *
   * @default 20
   */
  limit?: number | undefined
  /** The `nextCursor` of the page before. */
  cursor?: string | undefined
}

/** Which keys `list` returns. */
export type ApiKeyFilter<
  Permission extends string = string,
  O extends Owner = Owner,
  Environment extends string = never,
> = FilterFields<Permission, O> & If<Environment, { environment?: Environment | undefined }>

interface FilterFields<Permission extends string, O extends Owner> extends Page, SomeOwner<O> {
  /** The id of the user or administrator who made the keys. */
  createdBy?: AnyId
  status?: Status | readonly Status[] | undefined
  /** `true` for keys past their `expiresAt` or `idleExpiresAt`, `false` for all other keys. */
  isExpired?: boolean | undefined
  /** A permission that the keys hold, by its name, by a name of before, or by a permission that implies it. */
  permission?: Permission | undefined
  /**
   * At most 10 starts of words. The keys have a word for each of them in their names and descriptions. A start of a key, with
   * the key prefix and an underscore, finds keys by their `prefix`.
   */
  text?: string | undefined
  /**
   * The order; a `-` means the greatest first. All orders but the order of `createdAt` need an owner.
   *
   * @default '-createdAt'
   */
  sort?: Sort | undefined
}

/** Which entries of the audit trail `events` returns. */
export interface EventFilter<O extends Owner = Owner> extends Page, SomeOwner<O> {
  apiKeyId?: string | undefined
  action?: EventAction | undefined
}

/** The period of which usage is reported, and its parts. */
export interface UsageQuery {
  /**
   * The earliest start of an hour; text is RFC 3339. At most 31 days before `to`, or 366 days by the day.
   *
   * @default 24 hours or 30 days before `to`
   */
  from?: Date | string | undefined
  /**
   * Hours that begin from this time on are left out; text is RFC 3339.
   *
   * @default now
   */
  to?: Date | string | undefined
  /**
   * Days are days of UTC.
   *
   * @default 'hour'
   */
  by?: UsageUnit | undefined
}

/** The period and the keys of which `totalUsage` reports. */
export interface UsageFilter<O extends Owner = Owner> extends UsageQuery, SomeOwner<O> {
  apiKeyId?: string | undefined
}

/** The last argument of calls that read. If it names an owner, a key of another owner is reported as `api_key_not_found`. */
export interface ReadOptions<O extends Owner = Owner> extends SomeOwner<O> {
  /** A transaction that the call becomes a part of. A call never joins an ambient one (CLS). */
  transaction?: Transaction | undefined
}

/** The last argument of calls that change keys. */
export interface ChangeOptions<O extends Owner = Owner> extends ReadOptions<O> {
  /**
   * Who makes the change, for the audit trail.
   *
   * @default the owner if that is a user, else `{ type: 'system' }`
   */
  actor?: Actor | undefined
  /**
   * The permissions that the caller may give, if these are not all that the owner holds. The call then refuses to create a key, to add to
   * a key, and to rotate or reactivate a key that may do more, or change its expiry, addresses or resources.
   */
  mayGive?: readonly string[] | undefined
  /** The IP address of the client, for the audit trail: `req.ip`, for example. */
  address?: string | undefined
  /** The reason of the change, for the audit trail; at most 500 characters. */
  reason?: string | undefined
}

/** The last argument of calls that restrict keys. */
export interface RestrictOptions<O extends Owner = Owner> extends ChangeOptions<O> {
  /**
   * Answers only when no process accepts the old state. It waits for the longest bound (`maxStalenessMs` and
   * `outageGraceMs`) of all processes after the commit. It excludes a `transaction`.
   *
   * @default false
   */
  everywhere?: boolean | undefined
}

/** The last argument of `ownerChanged`. */
export type OwnerChangeOptions = Pick<RestrictOptions, 'transaction' | 'everywhere'>

/** The last argument of `eraseOwner`. */
export interface EraseOptions extends Omit<ChangeOptions, OwnerNames | 'transaction' | 'reason'> {
  /** Why the owner is erased, for the audit trail. It stays there, so it must not name the person; at most 500 characters. */
  reason: string
  /**
   * Revokes the keys that are not revoked yet. Without it, the call rejects with `owner_has_api_keys` if there are any.
   *
   * @default false
   */
  revoke?: boolean | undefined
  /**
   * Erases nothing, and returns what the call would erase.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** The options of calls that make a secret. */
export interface IssueOptions<O extends Owner = Owner> extends ChangeOptions<O> {
  /**
   * A text of the caller's for this request, 1 to 255 characters of ASCII, for example a UUID. The request is carried out once in 24
   * hours for all calls with this text, the same `actor` and the same input. Calls after the first reject with `already_created`, and
   * with `idempotency_key_reused` if the input differs. Within a minute, the process that has answered the first call answers again.
   */
  idempotencyKey?: string | undefined
  /**
   * With `false`, no call after the first is answered again, so that the secret is shown once even within the minute.
   *
   * @default true
   */
  answersAgain?: boolean | undefined
}

/** The last argument of `rotate`. */
export interface RotateOptions<O extends Owner = Owner> extends IssueOptions<O> {
  /**
   * How many seconds the old secret still works: from 0 to `maxGracePeriodSeconds`. It never outlives the key.
   *
   * @default 86_400 (a day), or `maxGracePeriodSeconds` if that is less
   */
  gracePeriodSeconds?: number | undefined
  /**
   * When the new secret takes the place of the old one: `'now'`, or `'on-first-use'`. The grace period begins then. Until its first use, the
   * new secret waits as `pendingRotation` in the record, and another rotation or `endRotation` cancels it.
   *
   * @default 'now'
   */
  activate?: 'now' | 'on-first-use' | undefined
}

/** Which old rows a call deletes. */
export interface PruneOptions {
  /** The least age in days; a whole number from 1 to 36,500. */
  olderThanDays: number
  /**
   * Deletes nothing, and returns how many rows the call would delete.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** Which keys `revokeMany` revokes: the keys of a list, or the keys for which all criteria of a filter are true. */
export type ManyKeys<
  Permission extends string = string,
  O extends Owner = Owner,
  Environment extends string = never,
> = (
  | {
      /** At most 10,000 ids. */
      ids: readonly string[]
    }
  | (Omit<FilterFields<Permission, O>, keyof Page | 'sort'> &
      If<Environment, { environment?: Environment | undefined }>)
) & {
  /**
   * Revokes nothing, and returns how many keys the call would revoke.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** The last argument of `renamePermission` and `dropPermission`. */
export interface PermissionOptions extends Omit<RestrictOptions, OwnerNames | 'transaction'> {
  /**
   * Changes nothing, and returns how many keys the call would change.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** Which keys `revokeUnused` revokes: of an owner or of all, of an environment or of all. */
export type UnusedOptions<
  O extends Owner = Owner,
  Environment extends string = never,
> = UnusedFields<O> & If<Environment, { environment?: Environment | undefined }>

interface UnusedFields<O extends Owner> extends SomeOwner<O> {
  /** The least number of days since the last use, or since the creation of a key without uses; from 1 to 36,500. */
  unusedForDays: number
  /**
   * Revokes nothing, and returns how many keys the call would revoke.
   *
   * @default false
   */
  dryRun?: boolean | undefined
}

/** The names of the owner in calls that take it in their first argument. */
type OwnerNames = keyof SomeOwner

/**
 * Everything that can be done with keys. Calls reject with an `ApiKeysError` and its stable `code`: with `invalid_input` for
 * input that breaks the rules, and with `database_unavailable` while the database cannot serve. Mistakes of the program, such as
 * `userId: undefined`, are `TypeError`s.
 */
export interface Lifecycle<A extends App = AnyApp> {
  /**
   * Creates a key. Its plain text is in this answer, and nowhere else ever. Rejects with `too_many_api_keys` if the owner has
   * `maxKeysPerOwner` keys.
   */
  create(
    apiKey: NewApiKey<A>,
    options?: Omit<IssueOptions, OwnerNames>,
  ): Promise<{ apiKey: ApiKeyRecord<A>; plainTextKey: string }>

  /**
   * Creates at most 10,000 keys, a thousand in one transaction: each of a thousand, or none. All rules of `create`
   * hold. Rejects with `invalid_input` if any key breaks a rule, with `#/apiKeys/17/name` as the place of a fault.
   * Rejects with `too_many_api_keys` if owners would have more than `maxKeysPerOwner` keys, and lists those keys in
   * `errors`.
   *
   * If a later thousand cannot be created, the call resolves with the keys before it, because their plain text is in this answer only.
   * `failure` then says why the remaining keys are missing. In a `transaction` of yours, the call rejects.
   *
   * A call that is repeated with its `idempotencyKey` creates the thousands that are missing. The keys that exist come without their
   * plain text, so that it is `null` only then.
   */
  createMany(
    apiKeys: readonly NewApiKey<A>[],
    options?: Omit<IssueOptions, OwnerNames>,
  ): Promise<{
    apiKeys: { apiKey: ApiKeyRecord<A>; plainTextKey: string | null }[]
    failure: ApiKeysError | null
  }>

  /**
   * Imports the keys of another system, so that its users keep them. `source` is the name of a source in the option `imports`. A row is an
   * `ImportRow`, or a row of the system's own table if the source can read that. It imports a thousand rows in a transaction, and can be
   * repeated: known keys are passed over, except that a key which was suspended, revoked or shortened over there since is so here as well.
   * The report has every row that was not imported.
   *
   * @example
   * const rows = await betterAuthDatabase.query('SELECT * FROM apikey')
   * const report = await apiKeys.importKeys('better-auth', rows, { permissions: ['READ_GRAPH'] })
   */
  importKeys(
    source: string,
    rows: Iterable<unknown> | AsyncIterable<unknown>,
    options?: ImportOptions<A['permission'], A['owner']>,
  ): Promise<ImportReport>

  /**
   * Lists keys of every status, newest first, a page at a time. A page of a long list may have fewer keys than `limit`. The last
   * page has no `nextCursor`.
   */
  list(
    filter?: ApiKeyFilter<A['permission'], A['owner'], A['environment']>,
    options?: Omit<ReadOptions, OwnerNames>,
  ): Promise<{ apiKeys: ApiKeyRecord<A>[]; nextCursor: string | null }>

  /** Returns the record of a key. Rejects with `api_key_not_found`, like all calls for one key. */
  get(id: string, options?: ReadOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /** Changes the fields that `changes` names. Rejects with `api_key_revoked` for a revoked key. */
  update(
    id: string,
    changes: ApiKeyChanges<A>,
    options?: ChangeOptions<A['owner']>,
  ): Promise<ApiKeyRecord<A>>

  /** Replaces all permissions of a key. Rejects with `api_key_revoked` for a revoked key. */
  setPermissions(
    id: string,
    permissions: readonly A['permission'][],
    options?: RestrictOptions<A['owner']>,
  ): Promise<ApiKeyRecord<A>>

  /** Suspends a key: it is refused until `reactivate`. Rejects with `api_key_revoked` for a revoked key. */
  suspend(id: string, options?: RestrictOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /** Ends a suspension, or the expiry of a key that was idle for `maxIdleDays`. Rejects with `api_key_revoked` for a revoked key. */
  reactivate(id: string, options?: ChangeOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /** Revokes a key for good, unless `unrevoke` undoes that in time. Its record stays. */
  revoke(id: string, options?: RestrictOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /**
   * Undoes a revocation within `undoMinutes` after it: the key is active or suspended, as it was before. Its old secret gets no more time.
   * Rejects with `api_key_revoked` if that time is over, if the key has expired since, or if it is revoked once more during the call.
   * Rejects with `api_key_exposed` for an exposed key, and with `too_many_api_keys`. A key that is not revoked stays as it is. Call it for
   * administrators only.
   */
  unrevoke(id: string, options?: ChangeOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /**
   * Gives a key a new secret under the same id. Its plain text is in this answer, and nowhere else ever. The old secret works on
   * for the grace period, and the secret before the old one stops working. A call that is repeated because its answer was lost
   * replaces the secret that was never used, and leaves the old one its time. Rejects with `api_key_suspended`, `api_key_expired`
   * or `api_key_revoked`.
   */
  rotate(
    id: string,
    options?: RotateOptions<A['owner']>,
  ): Promise<{ apiKey: ApiKeyRecord<A>; plainTextKey: string }>

  /**
   * Gives a key another owner, who may hold its permissions and its resources. Rejects with `invalid_input` if the owner may not, with
   * `api_key_revoked`, with `owner_suspended`, and with `too_many_api_keys`. The owner before still knows the secret, so rotate the key.
   */
  transfer(
    id: string,
    owner: A['owner'],
    options?: RestrictOptions<A['owner']>,
  ): Promise<ApiKeyRecord<A>>

  /** Ends the grace period of a rotation, and cancels one that waits for the first use: only the current secret works. Rejects with `api_key_revoked` for a revoked key. */
  endRotation(id: string, options?: RestrictOptions<A['owner']>): Promise<ApiKeyRecord<A>>

  /**
   * Revokes the keys of a list of ids, or of a filter, and returns how many it revoked. A filter must have a criterion. `notFound` has
   * the ids of the list that no key has. The call works through any number, a thousand in one transaction.
   */
  revokeMany(
    criteria: ManyKeys<A['permission'], A['owner'], A['environment']>,
    options?: Omit<RestrictOptions, OwnerNames | 'transaction'>,
  ): Promise<{ keys: number; notFound: string[] }>

  /**
   * Gives every key that has the name `from` the permission `to` in its place, 1,000 keys in a transaction, and returns how many keys
   * it changed. A key that has both keeps one. A call that was stopped half-way goes on if it is repeated. Call it when
   * all processes have the new name and the option `formerPermissions`. `from` may leave that option afterwards. Revoked keys stay as
   * they are.
   *
   * @example
   * await apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH', { dryRun: true }) // { keys: 12 }
   */
  renamePermission(
    from: string,
    to: A['permission'],
    options?: PermissionOptions,
  ): Promise<{ keys: number }>

  /**
   * Takes a permission from every key that has its name, 1,000 keys in a transaction, and returns how many keys it changed. A key may be
   * left with no permission. If a permission gets the name again later, no key has it from before. Revoked keys stay as they are. A name that is
   * still in the option `permissions` is taken from keys as well: guards go on demanding it, and keys can be given it again.
   */
  dropPermission(name: string, options?: PermissionOptions): Promise<{ keys: number }>

  /**
   * Revokes all keys of an owner in one transaction, and returns how many keys it revoked. `on('revoked')` reports the first 200
   * before the answer, and the other keys a page at a time after it.
   */
  revokeAll(
    owner: A['owner'],
    options?: Omit<RestrictOptions, OwnerNames>,
  ): Promise<{ keys: number }>

  /**
   * Suspends an owner: all keys of the owner are refused until `reactivateOwner`, however many there are, and the owner gets no new
   * secret. The records of the keys stay as they are, with `ownerSuspended: true`. `isChanged` is false if the owner was suspended before.
   */
  suspendOwner(
    owner: A['owner'],
    options?: Omit<RestrictOptions, OwnerNames>,
  ): Promise<{ isChanged: boolean }>

  /** Ends the suspension of an owner. Keys that are suspended by themselves stay so. */
  reactivateOwner(
    owner: A['owner'],
    options?: Omit<ChangeOptions, OwnerNames>,
  ): Promise<{ isChanged: boolean }>

  /**
   * Erases an owner, whose keys must be revoked: deletes the keys, and removes ids, names, descriptions, metadata, reasons and addresses of
   * the owner from the audit trail and from usage. The trail still verifies. Each part of it works in transactions of its own, so that a
   * call that was stopped half-way goes on if it is repeated. Rejects with `owner_has_api_keys`, also if the owner creates a key
   * meanwhile. Returns how much it erased.
   *
   * @example
   * await apiKeys.eraseOwner({ type: 'user', id: 'alice' }, { reason: 'request 4711', actor: { type: 'admin', id: 'root' } })
   */
  eraseOwner(owner: A['owner'], options: EraseOptions): Promise<Erased>

  /** Returns how many keys `revokeAll` would revoke. */
  countRevocable(
    owner: A['owner'],
    options?: Omit<ReadOptions, OwnerNames>,
  ): Promise<{ keys: number }>

  /** Revokes keys that are not in use, 1,000 in a transaction, and returns how many keys it revoked. */
  revokeUnused(
    criteria: UnusedOptions<A['owner'], A['environment']>,
    options?: Omit<RestrictOptions, OwnerNames | 'transaction'>,
  ): Promise<{ keys: number }>

  /**
   * Deletes keys that were revoked long ago, 1,000 in a transaction, and returns how many keys it deleted. Their audit trail and
   * their usage stay.
   */
  pruneRevoked(
    criteria: PruneOptions,
    options?: Omit<ChangeOptions, OwnerNames | 'transaction'>,
  ): Promise<{ keys: number }>

  /** Lists the audit trail, newest first, a page at a time. */
  events(
    filter?: EventFilter<A['owner']>,
    options?: Omit<ReadOptions, OwnerNames>,
  ): Promise<{ events: ApiKeyEvent<A['owner']>[]; nextCursor: string | null }>

  /**
   * Reports to all processes that an owner gained or lost a role. Within the bound of all changes, each of them asks the option
   * `grantable` again. Call it in the transaction that changes the role, or after it.
   *
   * @example
   * await sequelize.transaction(async (transaction) => {
   *   await user.update({ role: 'guest' }, { transaction })
   *   await apiKeys.ownerChanged({ type: 'user', id: user.id }, { transaction })
   * })
   */
  ownerChanged(owner: A['owner'], options?: OwnerChangeOptions): Promise<void>

  /** Returns how often a key was accepted and refused, hour by hour. Other processes write their counts within a minute. */
  usage(id: string, query?: UsageQuery, options?: ReadOptions<A['owner']>): Promise<Usage>

  /** Returns the usage of all keys together, deleted keys included, and the keys that were used most. */
  totalUsage(
    filter?: UsageFilter<A['owner']>,
    options?: Omit<ReadOptions, OwnerNames>,
  ): Promise<TotalUsage<A['owner']>>

  /** Deletes old usage, 10,000 rows at a time, and returns how many rows it deleted. A row is an hour of a key. */
  pruneUsage(options: PruneOptions): Promise<{ hours: number }>

  /**
   * Reads the whole audit trail. It finds every entry that was changed, removed, inserted or moved, the last entry
   * included, and every key that contradicts the trail. With a `head` that was exported before and kept elsewhere, it
   * also finds a trail that was put back as a whole. `onProgress` is called again and again. If it throws, the
   * verification ends with its error.
   */
  verifyAuditTrail(options?: VerificationOptions): Promise<AuditVerification>

  /**
   * Returns the signed end of the audit trail, for `verifyAuditTrail`. Keep it out of reach of everyone who can change the
   * database. Rejects with `audit_trail_not_intact` if the end was altered.
   */
  auditHead(): Promise<AuditHead>

  /**
   * Removes the oldest entries of the audit trail, up to the first younger entry, and returns how many entries it removed. An entry is as
   * old as its seal. The call leaves a signed checkpoint, at which verification begins. Rejects with `audit_trail_not_intact` like `auditHead`.
   */
  pruneAuditTrail(options: PruneOptions): Promise<{ events: number }>
}
