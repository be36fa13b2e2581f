import type { Sequelize, Transaction } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import { afterCommit, select } from '../database/query'
import type { UserIdType } from '../../models/storage-options'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import type { Background } from '../database/background'
import { readClientAddress } from '../keys/addresses'
import { createRetiredUses } from '../audit/retired-uses'
import type { Signer } from '../audit/signing'
import { onDatabase } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { OwnChanges } from '../database/own-changes'
import { asSent, type SecretFormat } from '../keys/secret'
import { createWaitForEveryone } from '../freshness/wait-for-everyone'
import { createMemory } from './memory'
import { createChangeLog } from '../freshness/change-log'
import { systemClock } from '../database/clock'
import { closablesOf, isClosable, type Closable } from '../keys/closable'
import { createConnections } from '../database/connections'
import { createListener } from '../freshness/listener'
import { createFailedAttempts } from './failed-attempts'
import { createHealth, describe, type Health, type LivingKeys } from './health'
import { createLookup } from './lookup'
import { createNarrowing } from './narrow-permissions'
import { createRateLimiter } from '../limits/rate-limiter'
import type { Settings } from '../read-options'
import { createSecretCheck } from './secret-check'
import { createSignals } from './signals'
import { acquireLimitMs } from '../database/open-client'
import { longestLimitMs } from '../database/time-limit'
import { createWriter } from '../database/writer'
import { createUsageRecorder } from '../usage/recorder'
import { createVerifier, type Verdict } from './verify'

/** What `health` is asked for besides what the process knows. */
export interface HealthQuestion {
  /** Counts the keys by the secret that keyed them. */
  livingKeys?: boolean | undefined
  /** Asks the database. */
  probe?: boolean | undefined
}

interface VerificationParts extends Settings {
  background: Background
  /** The app's, whose connection settings are ours. */
  appSequelize: Sequelize
  /** Our view of it. */
  sequelize: Sequelize
  tables: Tables
  signer: Signer
  userIdType: UserIdType
  format: SecretFormat
  ownChanges: OwnChanges
  emitter: Pick<Emitter, 'emit' | 'isHeard'>
}

export type Verification = ReturnType<typeof createVerification>

/** Puts together what answers the one question of this floor: is this key good right now? */
export function createVerification(parts: VerificationParts) {
  const { background, appSequelize, sequelize, tables, userIdType, format } = parts
  const { ownChanges } = parts
  const { emitter, grantable, grantableMaxAgeMs } = parts
  const { maxStalenessMs, outageGraceMs } = parts
  const clock = systemClock
  const boundMs = maxStalenessMs + outageGraceMs

  const connections = createConnections({ ...parts, clock })
  const changeLog = createChangeLog({
    connection: connections.polls,
    sequelize,
    tables,
    userIdType,
    followed: grantable ? 'keys and users' : 'keys',
    boundMs,
    ownChanges,
  })
  const lookUp = createLookup({
    connection: connections.lookUps,
    tables,
    userIdType,
    limits: parts.limits,
    conditions: changeLog.conditions,
    preparedStatements: parts.preparedStatements,
  })

  const writer = createWriter({ background, connection: connections.usage })
  const usage = createUsageRecorder({ ...parts, writer, clock })
  const retiredUses = createRetiredUses(writer, parts.tables, parts.signer)
  const memory = createMemory({
    ...parts,
    clock,
    log: changeLog,
    lookUp,
    firstAnswerLimitMs: acquireLimitMs(appSequelize),
    onGrantableFailure: (userId, error) => emitter.emit('grantable_unavailable', { userId, error }),
    onStandby: connections.lookUps.reset,
  })
  const { cache, feed, loader, owners } = memory
  const listener =
    connections.listening &&
    createListener({
      background,
      connection: connections.listening,
      sender: connections.usage,
      channel: tables.channel,
      onNotification: feed.catchUp,
      onUnheard,
    })

  const signals = createSignals({
    background,
    memory,
    lookAgainMs: grantable ? Math.max(grantableMaxAgeMs, leastLookAgainMs) : Infinity,
  })
  feed.listen({
    onEntries: (xids) =>
      ownChanges.follow(xids, {
        revision: feed.lease.applied?.revision ?? null,
        gaps: feed.lease.gaps,
      }),
    onStart: () => listener?.start(),
    onStop() {
      listener?.stop()
      connections.close()
    },
    // If one connection hangs, the others may hang, too, which would not show before a request waits for them.
    onOutage: connections.reset,
    onNeverReached,
    isNeeded: () => writer.size > 0,
  })

  const warnOfUnknownSecret = createSecretCheck({ ...parts, sequelize, table: tables.keys, format })
  const attempts = createFailedAttempts({ ...parts, clock })
  const verifier = createVerifier({
    format,
    cache,
    feed,
    fills: loader,
    usage,
    retiredUses,
    attempts,
    emitter,
    makeSignal: signals.makeSignal,
    clock,
    maxStalenessMs,
    onUnknownSecret() {
      // It is a hint, and nothing relies on it.
      background.run(warnOfUnknownSecret).catch(() => {})
    },
  })
  const narrowing = owners && createNarrowing({ verifier, grants: owners, clock })
  const { verify } = narrowing ?? verifier

  /** Learns of a change that this process has made before anybody is told that it is made. */
  async function learn(forget: () => void) {
    try {
      await feed.pollAnew()
      if (feed.lease.state === 'following') return await confirmOwnChanges()
    } catch {
      // A change is made whether or not it could be read back. Nothing is opened for a process that does not verify.
    }
    ownChanges.clear()
    feed.noteGap()
    forget()
  }

  /** Begins anew, unless what this process has committed is among what it has read of the log since. */
  async function confirmOwnChanges() {
    const missing = ownChanges.takeMissing(feed.lease.grantedAt?.monotonic ?? -Infinity)
    if (missing.length === 0) return

    feed.beginAnew()
    const xids = missing.map(({ xid }) => xid)
    const found = await changeLog.find(xids, longestLimitMs(maxStalenessMs))
    const misplaced = missing.flatMap((change) => {
      const revision = found.get(change.xid)
      return revision !== undefined && ownChanges.isMisplaced(change, revision) ? [revision] : []
    })
    // Other processes have passed over the entry as well.
    if (misplaced.length > 0) await changeLog.remove(misplaced)
    await feed.pollAnew()
  }

  async function learnIn(transaction: Transaction | undefined, forget: () => void) {
    if (transaction) afterCommit(transaction, () => learn(forget))
    else await learn(forget)
  }

  async function countLivingKeys(): Promise<LivingKeys[]> {
    const rows = await onDatabase(() =>
      select<{ secretId: string | null; keys: string }>(
        sequelize,
        `SELECT secret_id AS "secretId", count(*)::text AS keys
           FROM (
             SELECT secret_id, status, expires_at, prefix FROM ${tables.keys}
              UNION ALL
             SELECT previous_secret_id, status, expires_at, prefix FROM ${tables.keys}
              WHERE previous_works_until > now()
           ) AS secret
          WHERE ${isOfPrefix('secret', parts.keyPrefix)}
            AND status <> 'REVOKED' AND (expires_at IS NULL OR expires_at > now())
          GROUP BY secret_id ORDER BY secret_id`,
        { transaction: null },
      ),
    )
    return rows.map(({ secretId, keys }) => {
      const place = secretId === null ? -1 : format.secretIds.indexOf(secretId)
      return { secret: place === -1 ? null : place, secretId, keys: Number(keys) }
    })
  }

  const readHealth = createHealth({ feed, fills: loader, listener, cache, verifier, usage, clock })

  /** What comes of it is part of what the process knows from then on. */
  async function probeDatabase() {
    await background.run(loader.probe).catch(() => {})
    if (feed.lease.isActive) await feed.pollAnew().catch(() => {})
    else connections.lookUps.close()
  }

  return {
    verify,

    rateLimiter: createRateLimiter({ ...parts, clock }),

    /** The same for keys that came without a request. */
    async verifyAlone(
      plainTextKey: string,
      { until, ip }: { until?: Closable; ip?: string | undefined } = {},
    ): Promise<Verdict> {
      if (until !== undefined && !isClosable(until)) {
        throw new TypeError(
          'verify: until must be an event emitter, such as a response or a socket: it needs the methods once() and off()',
        )
      }
      const closables = until && closablesOf(until)
      const address = typeof ip === 'string' ? readClientAddress(ip) : undefined
      const bearer = { closables, ip: address, countedInHour: undefined, refusalOf }
      const sent = asSent(typeof plainTextKey === 'string' ? plainTextKey : '')
      const answer = verify(sent, bearer)
      // Waiting for what is there costs a twentieth of a verification.
      const verdict = answer instanceof Promise ? await answer : answer
      if (verdict.valid && emitter.isHeard('verified')) {
        emitter.emit('verified', { apiKey: verdict.apiKey, address: address ?? null })
      }
      return verdict
    },

    /** Lets this process honour a change of keys, at once or after the commit of the caller's transaction. */
    async changed(ids: readonly string[] | 'all', transaction: Transaction | undefined) {
      await learnIn(transaction, () => {
        if (ids === 'all') cache.forgetAll()
        // The caller may have written an id in upper case.
        else for (const id of ids) cache.forget(id.toLowerCase())
        cache.forgetUnknown()
      })
    },

    /** Has every process ask anew what a user may do: this one before it is answered, or when the caller's transaction ends. */
    async userChanged(userId: string | number, transaction: Transaction | undefined) {
      await changeLog.tellOfUser(userId, transaction)
      await learnIn(transaction, () => owners?.forget([userId]))
    },

    waitForEveryone: createWaitForEveryone({ sequelize, tables, boundMs, clock }),

    recorder: usage,
    writer,
    lastUseOf: usage.lastUseOf,

    async flush() {
      try {
        await writer.flush()
      } finally {
        if (!feed.lease.isActive) connections.usage.close()
      }
    },

    async close() {
      signals.close()
      try {
        await writer.flush()
      } finally {
        writer.stop()
        feed.stop()
      }
    },

    async health({ livingKeys = false, probe = false }: HealthQuestion = {}): Promise<Health> {
      if (probe) await probeDatabase()
      const health = readHealth()
      return livingKeys ? { ...health, livingKeys: await countLivingKeys() } : health
    },
  }
}

/** The shortest time between two checks of what the owner of a key may do whose signal is in use. */
const leastLookAgainMs = 1_000

function onUnheard() {
  warn(
    'API_KEYS_LISTEN_UNHEARD',
    'LISTEN succeeds and no notification arrives, as behind a pooler in transaction mode. Changes of keys take up to ' +
      'maxStalenessMs to be honoured by other processes. Set the option listen to the address of the server itself, or to false.',
  )
}

function onNeverReached(error: unknown) {
  warn(
    'API_KEYS_DATABASE_UNAVAILABLE',
    `The database cannot be used: ${describe(error)}. Until it can, keys are answered with 503. Check where your Sequelize ` +
      'connects to, and as which role.',
  )
}

/** Whoever calls `verify` demands no permissions. */
function refusalOf() {
  return null
}
