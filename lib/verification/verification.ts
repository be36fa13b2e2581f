import type { Sequelize } from 'sequelize'

import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import { createRetiredUses } from '../audit/retired-uses'
import type { Sealer } from '../audit/sealer'
import type { Signer } from '../audit/signing'
import type { Background } from '../database/background'
import { systemClock, type Clock, type ServerClock } from '../database/clock'
import type { Connections } from '../database/connections'
import { acquireLimitMs } from '../database/open-client'
import type { Observed } from '../database/observed'
import type { OwnChanges } from '../database/own-changes'
import type { PlannedSize } from '../database/prepared'
import { createWriter } from '../database/writer'
import type { ChangeFeed } from '../freshness/change-feed'
import { createChangeLog } from '../freshness/change-log'
import { createListener } from '../freshness/listener'
import { createWaitForEveryone } from '../freshness/wait-for-everyone'
import type { ImportedKeys } from '../importing/imported-keys'
import type { Emitter } from '../keys/emitter'
import type { SecretFormat } from '../keys/secret'
import { createRateLimiter } from '../limits/rate-limiter'
import type { Settings } from '../read-options'
import { createUsageRecorder } from '../usage/recorder'
import { createExamine } from './examine'
import { createHealth, createSecretCheck, describe } from './health'
import { createImports, importingOf } from './imports'
import { createLookup } from './lookup'
import { createMemory, createRefresh } from './memory'
import { createOutcomes } from './outcomes'
import { isUsersOnly } from '../keys/owner'
import { createOwnerCache, type OwnerCache } from './owners'
import { createRefusedKeys } from './refused-keys'
import { createSignals } from './signals'
import { createVerifier } from './verify'
import { createVerifyWithoutRequest } from './verify-alone'

/** The parts that the functions of this folder and of the floor above work with. */
export interface VerificationParts extends Settings {
  background: Background
  connections: Connections
  sealer: Sealer
  observed: Observed
  /** The app's own, whose connection settings are ours. */
  appSequelize: Sequelize
  /** The view of it that runs statements of the library (models/guest.ts). */
  sequelize: Sequelize
  tables: Tables
  signer: Signer
  format: SecretFormat
  /** `undefined` in an app without imported keys. */
  imported: ImportedKeys | undefined
  ownChanges: OwnChanges
  serverClock: ServerClock
  keysSize: PlannedSize
  emitter: Emitter
}

export type Verification = ReturnType<typeof createVerification>

/** Puts together the parts that answer the question of this floor: is this key good at this moment? */
export function createVerification(parts: VerificationParts) {
  const { appSequelize, background, connections, emitter, sealer } = parts
  const boundMs = parts.maxStalenessMs + parts.outageGraceMs
  const outcomes = createOutcomes()
  const shared = { ...parts, clock: systemClock, boundMs }

  const owners = createOwnerCache(parts.cacheSize, isUsersOnly(parts.idTypes))
  const { changeLog, lookUp } = connect({ ...shared, owners })
  const writer = createWriter({ background, connection: connections.usage })
  const usage = createUsageRecorder({ ...shared, writer })
  const memory = createMemory({
    ...shared,
    importing: importingOf(parts),
    log: changeLog,
    lookUp,
    owners,
    firstAnswerLimitMs: acquireLimitMs(appSequelize),
    onStandby: connections.lookUps.reset,
  })
  const { feed } = memory
  const refusedKeys = createRefusedKeys(parts)
  const signals = createSignals({ ...shared, memory })
  const trials = createImports(shared, memory)
  // No other properties: each request reads some of these, which are found fastest in a small object.
  const verifier = createVerifier({
    format: parts.format,
    emitter,
    memory,
    observed: parts.observed,
    usage,
    retiredUses: createRetiredUses(writer, parts),
    ...trials,
    makeSignal: signals.makeSignal,
    secretCheck: createSecretCheck(shared),
  })
  const { verify } = verifier
  const listener = listen(parts, feed)
  const finish = () => writer.flush().then(sealer.flush)

  listenTo(feed, { listener, sealer, connections, writer, refusedKeys })

  return {
    verify,
    outcomes,
    verifyAlone: createVerifyWithoutRequest({ ...parts, verify, usage, outcomes }),
    ...createExamine({ ...parts, memory, usage, ...trials }),
    rateLimiter: createRateLimiter(shared),
    ...createRefresh({ ...parts, memory, changeLog }),
    waitForEveryone: createWaitForEveryone(shared),
    recorder: usage,
    writer,
    lastUseOf: usage.lastUseOf,
    onPendingUse: memory.pendingUses.listen,
    health: createHealth({
      ...shared,
      memory,
      listener,
      verifier,
      usage,
      connections,
      refusedKeys,
    }),

    async flush() {
      try {
        await finish()
      } finally {
        if (!feed.lease.isActive) connections.usage.closeIdle()
      }
    },

    async close() {
      signals.close()
      refusedKeys.close()
      try {
        await finish()
      } finally {
        writer.stop()
        sealer.close()
        feed.stop()
        connections.close()
      }
    },
  }
}

interface FeedParts extends Pick<VerificationParts, 'sealer' | 'connections'> {
  listener: ReturnType<typeof listen>
  writer: ReturnType<typeof createWriter>
  refusedKeys: ReturnType<typeof createRefusedKeys>
}

/** Starts and stops the parts that work only while the process verifies keys. */
function listenTo(
  feed: ChangeFeed,
  { listener, sealer, connections, writer, refusedKeys }: FeedParts,
) {
  feed.listen({
    onStart() {
      listener?.start()
      sealer.start()
      refusedKeys.check()
    },
    onChanges: sealer.sealLater,
    onNew: sealer.sealLater,
    onStop() {
      listener?.stop()
      sealer.stop()
      connections.rest()
    },
    // If one connection hangs, the other connections may hang, too. Nothing would show this before a request waits for them.
    onOutage: connections.reset,
    onNeverReached,
    isNeeded: () => writer.size > 0,
  })
}

/** Makes the reader for the connections of this process. No connection is opened before it is needed. */
function connect(
  shared: VerificationParts & { clock: Clock; boundMs: number; owners: OwnerCache },
) {
  const { connections } = shared
  const changeLog = createChangeLog({
    ...shared,
    connection: connections.polls,
    followed: shared.grantable ? 'keys and owners' : 'keys',
  })
  const lookUp = createLookup({
    ...shared,
    connection: connections.lookUps,
    conditions: changeLog.conditions,
  })
  return { changeLog, lookUp }
}

/** Makes the listener for notifications, if the app wants any. */
function listen({ background, connections, tables }: VerificationParts, feed: ChangeFeed) {
  const { listening: connection, usage: sender } = connections
  const shared = { background, sender, channel: tables.channel, onUnheard }
  return connection && createListener({ ...shared, connection, onNotification: feed.catchUp })
}

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
    `The database cannot be used: ${describe(error)}. Until it can be used, keys get 503. Check where your Sequelize ` +
      'connects to, and as which role.',
  )
}
