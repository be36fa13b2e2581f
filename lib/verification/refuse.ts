import { warn } from '../../models/warnings'
import type { RetiredUses } from '../audit/retired-uses'
import { hourMs } from '../database/clock'
import type { InvalidReason } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { SecretFormat, SentKey } from '../keys/secret'
import type { UsageRecorder } from '../usage/recorder'
import type { CachedKey } from './cache'
import type { FailedAttempts } from './failed-attempts'
import type { KeyCaller } from './verified-key'

/** A verdict against a key. */
export interface Refused {
  valid: false
  code: InvalidReason
  /** With `too_many_attempts`: when it may be tried again. */
  retryAfterSeconds?: number
}

/** Why a key that has the shape of a key may be refused. */
export type KeyFault = Exclude<
  InvalidReason,
  'malformed' | 'environment_not_allowed' | 'too_many_attempts'
>

/** The parts that a refusal is noted with. */
export interface RefusalParts {
  format: Pick<SecretFormat, 'hasShape'>
  attempts: FailedAttempts
  usage: Pick<UsageRecorder, 'countUse' | 'noteDenied'>
  retiredUses: Pick<RetiredUses, 'note'>
  emitter: Pick<Emitter, 'emit'>
  /** Warns once if the database has keys of a secret that the app does not have. */
  secretCheck: { readonly isDone: boolean; run(): void }
}

/** One object for all, because it is all that a refusal of garbage takes. */
const malformed: Refused = Object.freeze({ valid: false, code: 'malformed' })

/** Refuses a text that is no key, and counts it against its address. */
export function refuseMalformed(
  sent: SentKey,
  caller: KeyCaller,
  { format, attempts, secretCheck }: RefusalParts,
): Refused {
  if (!secretCheck.isDone && format.hasShape(sent)) secretCheck.run()
  const waitMs = attempts.note(caller)
  if (waitMs === 0) return malformed
  return { ...refused('too_many_attempts'), retryAfterSeconds: Math.ceil(waitMs / 1_000) }
}

/** Refuses a key that is not in the database, and counts it against its address. */
export function refuseUnknown(caller: KeyCaller, { attempts }: RefusalParts): Refused {
  attempts.note(caller)
  return refused('unknown')
}

/** Refuses a key that is in the database, and notes what its owner should know. */
export function refuse(
  key: CachedKey,
  fault: KeyFault,
  wall: number,
  caller: KeyCaller,
  parts: RefusalParts,
): Refused {
  caller.refused = { id: key.id, owner: key.owner.shown }
  if (fault === 'retired') noteRetiredUse(key, wall, caller, parts)
  if (fault === 'environment_mismatch') warn('API_KEYS_ENVIRONMENT_MISMATCH', mismatch)
  if (fault === 'address_not_allowed') noteForeignUse(key, wall, caller, parts)
  return refused(fault)
}

const mismatch =
  'A key was refused because it was created for another environment than the one that has its prefix now. Give each environment the prefixes that its keys have. health({ livingKeys: true }) counts such keys.'

/** The time from which on the use of a secret that no longer works is noted again. */
const noteRetiredFromMs = new WeakMap<CachedKey, number>()

/** Notes that a client uses an old secret, which may be stolen. Once an hour is enough for the owner. */
function noteRetiredUse(
  key: CachedKey,
  wall: number,
  { ip }: KeyCaller,
  { retiredUses, emitter }: RefusalParts,
) {
  if (wall < (noteRetiredFromMs.get(key) ?? -Infinity)) return

  noteRetiredFromMs.set(key, wall - (wall % hourMs) + hourMs)
  retiredUses.note(key, ip ?? null)
  emitter.emit('retired_secret_used', { apiKeyId: key.id })
}

/** Counts the use of a good key from an address that is not the key's, because the key may be stolen. */
function noteForeignUse(key: CachedKey, wall: number, caller: KeyCaller, { usage }: RefusalParts) {
  if (caller.ip === undefined || caller.ip === null) {
    warn(
      'API_KEYS_ADDRESS_UNKNOWN',
      'A key with allowedIps was refused because the address of the client is not known. Behind a proxy, set `trust proxy` of Express. For verify(), give the address as { ip }.',
    )
  }
  usage.countUse(key, wall, caller)
  usage.noteDenied(key, caller)
}

function refused(code: InvalidReason): Refused {
  return { valid: false, code }
}
