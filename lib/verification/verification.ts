import createDebug from 'debug'
import type { Sequelize } from 'sequelize'

import { optionsOf } from '../../models/option-checks'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import { createRetiredUses } from '../audit/retired-uses'
import type { Sealer } from '../audit/sealer'
import type { Signer } from '../audit/signing'
import type { Background } from '../database/background'
import { systemClock, type Clock, type ServerClock } from '../database/clock'
import type { Connections } from '../database/connections'
import { acquireLimitMs } from '../database/open-client'
import type { OwnChanges } from '../database/own-changes'
import { createWriter } from '../database/writer'
import type { ChangeFeed } from '../freshness/change-feed'
import { createChangeLog } from '../freshness/change-log'
import { createListener } from '../freshness/listener'
import { createWaitForEveryone } from '../freshness/wait-for-everyone'
import { readClientAddress } from '../keys/addresses'
import { closablesOf, isClosable } from '../keys/closable'
import type { ImportedKeys } from '../importing/imported-keys'
import type { Emitter } from '../keys/emitter'
import { asSent, type SecretFormat } from '../keys/secret'
import { createRateLimiter } from '../limits/rate-limiter'
import type { Settings } from '../read-options'
import { createUsageRecorder, type UsageRecorder } from '../usage/recorder'
import { createExamine } from './examine'
import { checkResource, RequestConditions } from './guard-conditions'
import { createHealth, createSecretCheck, describe } from './health'
import { createImports, importingOf } from './imports'
import { createLookup } from './lookup'
import { createMemory, createRefresh } from './memory'
import { isUsersOnly } from '../keys/owner'
import { createOwnerCache, type OwnerCache } from './owners'
import { createRefusedKeys } from './refused-keys'
import type { Refused } from './refuse'
import { createSignals } from './signals'
import type { KeyCaller } from './verified-key'
import { createVerifier, type Verdict, type Verifier, type VerifyOptions } from './verify'

/** The parts that the functions of this folder and of the floor above work with. */
export interface VerificationParts extends Settings {
  background: Background
  connections: Connections
  sealer: Sealer
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
  emitter: Emitter
}

export type Verification = ReturnType<typeof createVerification>

/** Puts together the parts that answer the question of this floor: is this key good at this moment? */
export function createVerification(parts: VerificationParts) {
  const { appSequelize, background, connections, emitter, sealer } = parts
  const boundMs = parts.maxStalenessMs + parts.outageGraceMs
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
    verifyAlone: createVerifyWithoutRequest({ ...parts, verify, usage }),
    ...createExamine({ ...parts, memory, ...trials }),
    rateLimiter: createRateLimiter(shared),
    ...createRefresh({ ...parts, memory, changeLog }),
    waitForEveryone: createWaitForEveryone(shared),
    recorder: usage,
    writer,
    lastUseOf: usage.lastUseOf,
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
        if (!feed.lease.isActive) connections.usage.close()
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
      connections.close()
    },
    // If one connection hangs, the other connections may hang, too. Nothing would show this before a request waits for them.
    onOutage: connections.reset,
    onNeverReached,
    isNeeded: () => writer.size > 0,
  })
}

const log = createDebug('express-api-keys:verify')

/** Makes the `verify` that the app calls with a plain-text key, for example from a WebSocket. */
function createVerifyWithoutRequest(parts: AloneParts) {
  const { verify, usage, emitter, environments, resources } = parts
  const { enabled: isPrinted } = log

  function refused(id: string | undefined, verdict: Refused): Refused {
    if (isPrinted) log('%s; refused: %s', nameOfKey(id), verdict.code)
    return verdict
  }

  return async function verifyWithoutRequest(
    plainTextKey: string,
    options?: VerifyOptions<string, string>,
  ): Promise<Verdict> {
    const { until, ip, environment, resource } = optionsOf(options)
    const accepted = environments.acceptedBy('verify', environment)
    if (until !== undefined && !isClosable(until)) {
      throw new TypeError(
        'verify: until must be an event emitter, such as a response or a socket: it needs the methods once() and off()',
      )
    }
    const closables = until && closablesOf(until)
    const address = typeof ip === 'string' ? readClientAddress(ip) : undefined
    checkResource('verify', resource, 'object', resources)
    const refusalOf = resource ? createRefusal(resource) : demandNothing
    const caller: KeyCaller = { closables, ip: address, countedInHour: undefined, refusalOf }
    const sent = asSent(typeof plainTextKey === 'string' ? plainTextKey : '')
    const answer = verify(sent, caller)
    // Waiting for a verdict that is already there would cost a twentieth of a verification.
    const verdict = answer instanceof Promise ? await answer : answer
    if (!verdict.valid) return refused(caller.refused?.id, verdict)
    const { id } = verdict.row
    if (accepted !== null && !accepted.includes(verdict.row.environment ?? '')) {
      usage.noteDenied(verdict.row, caller)
      return refused(id, { valid: false, code: 'environment_not_allowed' })
    }
    if (refusalOf(verdict)) {
      usage.noteDenied(verdict.row, caller)
      return refused(id, { valid: false, code: 'resource_not_allowed' })
    }

    const { apiKey } = verdict
    if (emitter.listeners.has('verified')) {
      emitter.emit('verified', { apiKey, address: address ?? null })
    }
    if (isPrinted) log('%s; passes', nameOfKey(id))
    return { valid: true, apiKey }
  }
}

function nameOfKey(id: string | undefined): string {
  return id === undefined ? 'no key' : `key ${id}`
}

interface AloneParts extends Pick<VerificationParts, 'emitter' | 'environments' | 'resources'> {
  verify: Verifier['verify']
  usage: Pick<UsageRecorder, 'noteDenied'>
}

function demandNothing() {
  return null
}

/** Makes the refusal of keys that are bound to other resources than the call is about. */
function createRefusal(resource: object): KeyCaller['refusalOf'] {
  const guard = { environments: null, refusePermissions: demandNothing, resource: () => resource }
  const conditions = new RequestConditions(guard, resource, undefined)
  return (holding) => conditions.refuseByAll(holding)
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
