import { QueryTypes, type Sequelize, type Transaction } from 'sequelize'

import { changeLogOf } from '../../models/change-log'
import type { UserIdType } from '../../models/storage-options'
import { ApiKeysError } from '../errors'
import type { Audit } from '../keys/audit'
import { onDatabase } from '../keys/database'
import type { SecretFormat } from '../keys/secret'
import { createBarrier } from './barrier'
import { createKeyCache } from './cache'
import { createChangeFeed, type FeedState } from './change-feed'
import { createChangeLog } from './change-log'
import { momentOf, systemClock } from './clock'
import { createConnection, createOpenClient } from './connection'
import { createDoorbell } from './doorbell'
import { createFills } from './fills'
import { createLookup } from './lookup'
import { createSignals } from './signals'
import { openingLimitMs } from './time-limit'
import { createUsageRecorder } from './usage'
import type { Bearer } from './verified-api-key'
import { createVerifier, judge, type Verdict } from './verifier'

/** How verification in this process is doing. */
export interface Health {
  /** As long as it is live, keys that are remembered are judged without a query. */
  lease: { isLive: boolean; remainingMs: number }
  feed: FeedState
  /** The newest change that this process knows of. */
  revision: number | null
  /** How old that knowledge is: milliseconds since it was last asked for. */
  lagMs: number | null
  /** Whether changes are told of at once (LISTEN); `off` where the app wants none. */
  doorbell: 'up' | 'down' | 'off'
  cache: {
    keys: number
    maxKeys: number
    /** Hashes that are known to belong to no key. */
    unknownHashes: number
    hits: number
    misses: number
    /** From 0 to 1; `null` before the first. */
    hitRate: number | null
  }
  /** How far the clock of the database is ahead of this process's, in milliseconds. Expiry goes by the latter. */
  clockOffsetMs: number | null
  /** Counted on request. */
  livingKeys?: LivingKeys[]
}

/**
 * How many keys there are that are neither revoked nor expired, by the secret that keyed their hash. In the grace period of
 * a rotation a key counts for the secrets of both of its hashes.
 */
export interface LivingKeys {
  /** The place of the secret in the option `secrets`; `null` for unkeyed hashes and for secrets that are gone. */
  secret: number | null
  /** Names a secret without telling it; `null` for unkeyed hashes. */
  secretId: string | null
  keys: number
}

interface VerificationParts {
  /** The app's, whose connection settings are ours. */
  appSequelize: Sequelize
  /** Our view of it. */
  sequelize: Sequelize
  schema: string
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** Those of the tables of retired secrets and of the audit trail. */
  retiredTable: string
  eventTable: string
  /** Vouches for an entry of it. */
  entryMacOf: Audit['entryMacOf']
  userIdType: UserIdType
  format: SecretFormat
  maxStalenessMs: number
  outageGraceMs: number
  cacheSize: number
  lastUsedResolutionMs: number
  listen: boolean | string
  preparedStatements: boolean
}

export type Verification = ReturnType<typeof createVerification>

/** Puts together what answers the one question of this floor: is this key good right now? */
export function createVerification(parts: VerificationParts) {
  const { appSequelize, sequelize, schema, table, userIdType, format, listen } = parts
  const { retiredTable, eventTable, entryMacOf } = parts
  const { maxStalenessMs, outageGraceMs, lastUsedResolutionMs } = parts
  const clock = systemClock
  const log = changeLogOf(schema)
  const boundMs = maxStalenessMs + outageGraceMs

  // Apart, so that a table that is locked holds up look-ups and not the polls, and a slow write neither.
  const open = createOpenClient(appSequelize)
  const connectionParts = { open, clock, openingLimitMs: openingLimitMs(maxStalenessMs) }
  const pollConnection = createConnection(connectionParts)
  const lookupConnection = createConnection(connectionParts)
  const usageConnection = createConnection(connectionParts)
  const changeLog = createChangeLog({ connection: pollConnection, sequelize, log, table, boundMs })
  const lookUp = createLookup({
    connection: lookupConnection,
    log,
    table,
    retiredTable,
    userIdType,
    isRegistered: changeLog.isRegistered,
    fingerprint: changeLog.fingerprint,
    preparedStatements: parts.preparedStatements,
  })

  const cache = createKeyCache(parts.cacheSize)
  const feed = createChangeFeed({
    log: changeLog,
    clock,
    maxStalenessMs,
    outageGraceMs,
    listener: {
      onChanges(ids) {
        for (const id of ids) cache.forget(id)
        signals.check(ids)
      },
      onNew: () => cache.forgetUnknown(),
      onGap() {
        cache.forgetAll()
        signals.checkAll()
      },
      onDoubt: () => signals.checkAll(),
    },
    isNeeded: () => signals.size > 0 || usage.size > 0,
    onStart: () => doorbell?.start(),
    onStop() {
      doorbell?.stop()
      fills.cancel()
      pollConnection.close()
      lookupConnection.close()
      usageConnection.close()
    },
    // What hangs on one connection may hang on the others, and nobody would notice before somebody waits for it.
    onOutage() {
      pollConnection.reset()
      lookupConnection.reset()
    },
  })
  const doorbell =
    listen === false
      ? undefined
      : createDoorbell({
          open: listen === true ? open : createOpenClient(appSequelize, listen),
          channel: log.channel,
          ring: feed.catchUp,
        })

  const fills = createFills({
    lookUp,
    feed,
    cache,
    clock,
    maxStalenessMs,
    onStandby: () => lookupConnection.reset(),
  })
  const signals = createSignals({
    clock,
    judge,
    wake: feed.wake,
    isCurrent(row) {
      const key = cache.get(row.digest)
      return key?.row === row && key.isFollowed && feed.isLive(clock.monotonic(), clock.wall())
    },
    async readAnew(digest) {
      const { row, isOld } = await fills.fill(digest)
      // It may have been on its way when the key was changed.
      if (isOld) throw new ApiKeysError('database_unavailable')
      return row
    },
  })
  const usage = createUsageRecorder({
    connection: usageConnection,
    table,
    eventTable,
    entryMacOf,
    lastUsedResolutionMs,
  })
  const { makeSignal } = signals
  const verifier = createVerifier({
    format,
    cache,
    feed,
    fills,
    usage,
    makeSignal,
    clock,
    maxStalenessMs,
  })

  /** Learns of a change that this process has made before anybody is told that it is made. */
  async function learn(id: string | undefined) {
    try {
      await feed.pollAnew()
    } catch {
      // A change is made whether or not it could be read back. Nothing is opened for a process that does not verify.
      if (id === undefined) cache.forgetAll()
      else cache.forget(id)
      cache.forgetUnknown()
    }
  }

  async function countLivingKeys(): Promise<LivingKeys[]> {
    const rows = await onDatabase(() =>
      sequelize.query<{ secretId: string | null; keys: string }>(
        `SELECT secret_id AS "secretId", count(*)::text AS keys
           FROM (
             SELECT secret_id, status, expires_at FROM ${table}
              UNION ALL
             SELECT previous_secret_id, status, expires_at FROM ${table}
              WHERE previous_works_until > now()
           ) AS secret
          WHERE status <> 'REVOKED' AND (expires_at IS NULL OR expires_at > now())
          GROUP BY secret_id ORDER BY secret_id`,
        { type: QueryTypes.SELECT, useMaster: true, transaction: null },
      ),
    )
    return rows.map(({ secretId, keys }) => {
      const place = secretId === null ? -1 : format.secretIds.indexOf(secretId)
      return { secret: place === -1 ? null : place, secretId, keys: Number(keys) }
    })
  }

  return {
    verify: verifier.verify,

    /** The same for keys that came without a request. */
    async verifyAlone(
      plainTextKey: string,
      circumstances?: Pick<Bearer, 'until' | 'ip'>,
    ): Promise<Verdict> {
      const bearer = circumstances ? { ...anybody, ...circumstances } : anybody
      return verifier.verify(plainTextKey, bearer)
    },

    /** Called after a key was changed, or many: in a transaction of the caller's, which may still be open, or in one of ours. */
    async changed(id: string | undefined, transaction: Transaction | undefined) {
      if (transaction) outermost(transaction).afterCommit(() => learn(id))
      else await learn(id)
    },

    waitForEveryone: createBarrier({ sequelize, bounds: log.bounds, boundMs, clock }),

    lastUseOf: usage.lastUseOf,

    async flush() {
      try {
        await usage.flush()
      } finally {
        if (!feed.isActive) usageConnection.close()
      }
    },

    async close() {
      signals.close()
      try {
        await usage.flush()
      } finally {
        usage.stop()
        feed.stop()
      }
    },

    async health({ livingKeys = false }: { livingKeys?: boolean | undefined } = {}) {
      const { hits, misses } = verifier
      const health: Health = {
        ...feed.health(momentOf(clock)),
        doorbell: doorbell ? (doorbell.isUp ? 'up' : 'down') : 'off',
        cache: {
          keys: cache.size,
          maxKeys: cache.maxKeys,
          unknownHashes: cache.unknownSize,
          hits,
          misses,
          hitRate: hits + misses > 0 ? hits / (hits + misses) : null,
        },
      }
      return livingKeys ? { ...health, livingKeys: await countLivingKeys() } : health
    },
  }
}

/** A transaction within another one, a savepoint, commits with it. */
function outermost(transaction: Transaction): Transaction {
  // The types know of no such member.
  const { parent } = transaction as Transaction & { parent?: Transaction | null }
  return parent ? outermost(parent) : transaction
}

/** Whoever calls `verify` demands no permissions. */
const anybody: Bearer = { refusalOf: () => null }
