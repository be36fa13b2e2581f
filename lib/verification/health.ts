import type { Sequelize } from 'sequelize'

import { endSql, isOfPrefixes } from '../../models/api-key'
import { createOptionChecks, optionsOf } from '../../models/option-checks'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import type { AuditHealth } from '../audit/own-entries'
import type { Sealer } from '../audit/sealer'
import type { Background } from '../database/background'
import { momentOf } from '../database/clock'
import type { Connections } from '../database/connections'
import { causeOf, isUnmigrated, onDatabase, sqlStateOf } from '../database/failures'
import { select } from '../database/query'
import type { FeedState } from '../freshness/lease'
import type { Listener } from '../freshness/listener'
import type { ImportedKeys } from '../importing/imported-keys'
import type { SecretFormat } from '../keys/secret'
import type { Settings } from '../read-options'
import type { UsageHealth, UsageRecorder } from '../usage/recorder'
import { countLivingImports, type LivingImports } from './living-imports'
import type { Memory } from './memory'
import type { RefusedKeys } from './refused-keys'
import { countUnknownPermissions, type UnknownPermission } from './unknown-permissions'
import type { Verifier } from './verify'

/** The state of verification in this process. */
export interface Health {
  /**
   * False if this process cannot verify keys at the moment. A process that has just started, or that verifies nothing,
   * is `ok`: `health({ probe: true })` asks the database.
   */
  ok: boolean
  /** The fault, also if keys are verified in spite of it; `null` if there is none. */
  reason: string | null
  /**
   * As long as it is live, cached keys are verified without a query. Without it, a cached key is verified without a query until it was
   * read longer ago than `maxStalenessMs`.
   */
  lease: { isLive: boolean; remainingMs: number }
  feed: FeedState
  /** The newest change that this process has read. */
  revision: number | null
  /** Milliseconds since the database was last asked for changes. */
  lagMs: number | null
  /** Why the last look-up of a key failed, and how long ago; `null` once a look-up succeeds. */
  lookUpFailure: { message: string; agoMs: number } | null
  /** `up` if changes are reported at once (LISTEN); `off` if the app has set `listen: false`. */
  listener: 'up' | 'down' | 'off'
  cache: {
    keys: number
    maxKeys: number
    /** Hashes that are known to belong to no key. */
    unknownHashes: number
    hits: number
    misses: number
    /** A number from 0 to 1; `null` before the first verification. */
    hitRate: number | null
  }
  usage: UsageHealth
  audit: AuditHealth
  /**
   * Milliseconds by which the clock of the database is ahead of this process's clock. Keys expire by the clock of this
   * process.
   */
  clockOffsetMs: number | null
  /** Counted on request. */
  livingKeys?: LivingKeys[]
  /** The names of permissions in living keys that the app does not know, counted together with `livingKeys`. */
  unknownPermissions?: UnknownPermission[]
  /** Living keys that are refused because of their prefix, counted together with `livingKeys`. */
  refusedKeys?: RefusedKeys[]
  /** Living keys that still have a secret of another system, by the source, counted together with `livingKeys`. */
  imports?: LivingImports[]
}

/**
 * How many keys there are that are neither revoked nor expired, by the secret that keyed their hash. In the grace period of
 * a rotation, and before a pending one, a key counts for the secrets of all of its hashes.
 */
export interface LivingKeys {
  /** The place of the secret in the option `secrets`; `null` for unkeyed hashes and for secrets that are gone. */
  secret: number | null
  /** An id that does not reveal the secret; `null` for unkeyed hashes. */
  secretId: string | null
  keys: number
}

/** The parts of a report that take a query. */
export interface HealthQuestion {
  /** Counts the keys by the secret that keyed them, and the keys that are refused because of their prefix. */
  livingKeys?: boolean | undefined
  /** Asks the database. */
  probe?: boolean | undefined
}

/** The parts that count the keys of an app in the database. */
interface CountingParts extends Pick<Settings, 'environments' | 'permissions' | 'idleMs'> {
  background: Pick<Background, 'run'>
  /** The view of the app's Sequelize that runs statements of the library (models/guest.ts). */
  sequelize: Sequelize
  tables: Tables
  format: SecretFormat
  imported: ImportedKeys | undefined
}

interface HealthParts extends CountingParts {
  memory: Memory
  listener: Pick<Listener, 'isUp'> | undefined
  verifier: Pick<Verifier, 'counts'>
  usage: Pick<UsageRecorder, 'health'>
  connections: Pick<Connections, 'lookUps'>
  sealer: Pick<Sealer, 'health'>
  refusedKeys: { count(): Promise<RefusedKeys[]> }
}

const { refuseUnknownNames } = createOptionChecks('health')

/** For how long a look-up that failed counts as the present state. */
const recentMs = 30_000

/** Makes the function that says how verification in this process is doing. */
export function createHealth(parts: HealthParts) {
  return async function health(question?: HealthQuestion): Promise<Health> {
    const options = optionsOf(question)
    refuseUnknownNames(options, ['livingKeys', 'probe'])
    const { livingKeys = false, probe = false } = options
    if (probe) await probeDatabase(parts)
    const health = healthOf(parts)
    if (!livingKeys) return health
    return {
      ...health,
      livingKeys: await countLivingKeys(parts),
      unknownPermissions: await countUnknownPermissions(parts),
      refusedKeys: await parts.refusedKeys.count(),
      imports: await countLivingImports(parts.sequelize, parts.tables, parts.imported),
    }
  }
}

/** Asks the database, and notes the answer: the process knows it from then on. */
async function probeDatabase({ background, memory, connections }: HealthParts) {
  const { feed, loader } = memory
  await background.run(loader.probe).catch(() => {})
  if (feed.lease.isActive) await feed.pollAnew().catch(() => {})
  else connections.lookUps.close()
}

/** Returns the state of verification in this process. */
function healthOf({ memory, listener, verifier, usage, sealer }: HealthParts): Health {
  const { cache, clock, feed, loader } = memory
  const now = momentOf(clock)
  const { failure: pollFailure, ...followed } = feed.health(now)
  const lookUpFailure = loader.failure && {
    message: describe(loader.failure.error),
    agoMs: now.monotonic - loader.failure.at.monotonic,
  }
  const isFailing = lookUpFailure !== null && lookUpFailure.agoMs < recentMs
  const feedFault = faultOf(followed.feed, pollFailure)
  const lookUpFault = isFailing ? `Keys cannot be looked up: ${lookUpFailure.message}` : null
  const isVerifying = feedFault === null || followed.feed === 'untrusted' || followed.lease.isLive
  const { hits, misses } = verifier.counts

  return {
    ok: isVerifying && !isFailing,
    reason: feedFault ?? lookUpFault,
    ...followed,
    lookUpFailure,
    listener: listener ? (listener.isUp ? 'up' : 'down') : 'off',
    cache: {
      keys: cache.size,
      maxKeys: cache.maxKeys,
      unknownHashes: cache.unknownSize,
      hits,
      misses,
      hitRate: hits + misses > 0 ? hits / (hits + misses) : null,
    },
    usage: usage.health(),
    audit: sealer.health(),
  }
}

async function countLivingKeys({
  sequelize,
  tables,
  environments,
  format,
  idleMs,
}: CountingParts): Promise<LivingKeys[]> {
  const end = endSql('key', idleMs)
  const rows = await onDatabase(() =>
    select<{ secretId: string | null; keys: string }>(
      sequelize,
      `SELECT secret_id AS "secretId", count(*)::text AS keys
         FROM (
           SELECT secret_id, status, ${end} AS ends_at, prefix FROM ${tables.keys} AS key
            UNION ALL
           SELECT previous_secret_id, status, ${end}, prefix FROM ${tables.keys} AS key
            WHERE previous_works_until > now()
            UNION ALL
           SELECT pending_secret_id, status, ${end}, prefix FROM ${tables.keys} AS key
            WHERE pending_hash IS NOT NULL
         ) AS secret
        WHERE ${isOfPrefixes('secret', environments.keyPrefixes)}
          AND status <> 'REVOKED' AND (ends_at IS NULL OR ends_at > now())
        GROUP BY secret_id ORDER BY secret_id`,
      { transaction: null },
    ),
  )
  return rows.map(({ secretId, keys }) => {
    const place = secretId === null ? -1 : format.secretIds.indexOf(secretId)
    return { secret: place === -1 ? null : place, secretId, keys: Number(keys) }
  })
}

function faultOf(feed: FeedState, failure: unknown): string | null {
  switch (feed) {
    case 'standby':
      return 'The server is a standby. It may lag behind, so that nothing it says is relied on.'
    case 'subscriber':
      return 'Logical replication feeds the table of keys. It may lag behind, so that nothing it holds is relied on.'
    case 'unreachable':
      return `The database cannot be asked for changes: ${describe(failure)}`
    case 'untrusted':
      return 'A trigger that logs changes is missing, disabled or altered, so that keys are read again and again. Run migrate().'
    default:
      return null
  }
}

/** Returns what went wrong, in the words of the server or of the driver. It holds no hash. */
export function describe(failure: unknown): string {
  const cause = causeOf(failure)
  const { message = '', code = '' } = (cause ?? {}) as { message?: unknown; code?: unknown }
  const text = String(message || code || cause).replaceAll(/[0-9a-f]{64}/g, '…')
  if (isUnmigrated(cause)) return `${text}. Run migrate().`
  // A standby does not get as far as that.
  if (sqlStateOf(cause) !== '25006') return text
  return `${text}: default_transaction_read_only is on for this role or database, and has to be off`
}

/**
 * Warns once if the database has living keys of a secret that the app does not have. Such keys are refused as malformed without
 * a look-up, so that nothing else would say why.
 */
export function createSecretCheck(parts: CountingParts) {
  return {
    isDone: false,

    run() {
      this.isDone = true
      // It is a hint, and nothing relies on it.
      parts.background.run(() => warnOfUnknownSecret(parts)).catch(() => {})
    },
  }
}

async function warnOfUnknownSecret({ sequelize, tables, environments, format }: CountingParts) {
  const [key] = await select<{ secret: 'keyed' | 'unkeyed' }>(
    sequelize,
    `SELECT CASE WHEN secret_id IS NULL THEN 'unkeyed' ELSE 'keyed' END AS secret FROM ${tables.keys} AS key
      WHERE ${isOfPrefixes('key', environments.keyPrefixes)}
        AND status <> 'REVOKED' AND (expires_at IS NULL OR expires_at > now())
        AND coalesce(secret_id, '') <> ALL ($1::text[])
      LIMIT 1`,
    { bind: [format.secretIds.map((id) => id ?? '')], transaction: null },
  )
  if (!key) return

  warn(
    'API_KEYS_SECRET_UNKNOWN',
    key.secret === 'keyed'
      ? 'The database has keys that were made with a secret that is not among your secrets, and they are refused as ' +
          'malformed. Put the old secret behind the new one: secrets: [new, old]. health({ livingKeys: true }) counts them.'
      : 'The database has keys that were made without a secret, and they are refused as malformed. To accept them, set ' +
          'acceptUnkeyed: true. health({ livingKeys: true }) counts them.',
  )
}
