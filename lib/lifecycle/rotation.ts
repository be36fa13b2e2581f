import { hash } from 'node:crypto'

import { isOutage } from '../database/failures'
import { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import { toStoredHash, type MintedSecret } from '../keys/secret'
import { nextStatus } from '../keys/states'
import type { PendingUse } from '../verification/pending-uses'
import type { Circumstances, Parts } from './calls'
import { changeKey } from './change-key'
import { once, type Claim } from './idempotency'
import type { Decision, ReadKey } from './key-changes'
import * as policies from './policies'
import { renew } from './renewal'
import { identify } from './store'

/** How a key is rotated. */
export interface Rotation {
  gracePeriodSeconds: number
  /** `on-first-use` if the new secret becomes the current one only then. */
  activate: 'now' | 'on-first-use'
}

/**
 * Gives a key a new secret. The secret before works on for the grace period; the one before that stops working. If the secret before
 * was never used, because the answer that had it was lost, it stops working instead, and the grace period goes on. A secret that is
 * activated on its first use changes nothing until then, and replaces another one that waits.
 */
export async function rotate(
  parts: Parts,
  id: string,
  rotation: Rotation,
  circumstances: Circumstances,
) {
  // Refuses an id that is no UUID.
  identify(id, circumstances.owner)
  return once(parts, `rotate ${id.toLowerCase()}`, rotation, circumstances, (claim) =>
    rotateNow(parts, id, rotation, { ...circumstances, claim }),
  )
}

async function rotateNow(
  parts: Parts,
  id: string,
  { gracePeriodSeconds, activate }: Rotation,
  { claim, ...circumstances }: Circumstances & { claim: Claim | undefined },
) {
  let minted: MintedSecret | undefined

  // A use that this process has not written yet counts. If it cannot be written, that secret stops working.
  await parts.verification.flush().catch(() => {})

  function decide(key: ApiKeyRecord, read: ReadKey): Decision {
    nextStatus('rotate', key)
    if (key.ownerSuspended) throw new ApiKeysError('owner_suspended')
    policies.refuseKeyBeyond(parts, read, circumstances.mayGive)
    const own = parts.environments.ofKey(read)
    if (!own) throw new ApiKeysError('unknown_environment')
    minted ??= parts.format.mint(own.keyPrefixes[0])
    const { plainTextKey: _, ...secret } = minted
    const { prefix, postfix } = secret
    if (activate === 'on-first-use') {
      const pendingRotation = { prefix, postfix, gracePeriodSeconds }
      return { action: 'rotation_begun', changes: { pendingRotation }, pending: secret, claim }
    }
    if (read.isUnused && gracePeriodSeconds > 0) {
      const changes = { prefix, postfix, pendingRotation: null }
      return { action: 'rotated', changes, secret, renewal: renew(parts), claim }
    }
    return { ...replaceSecret(parts, key, secret, gracePeriodSeconds), claim }
  }
  const apiKey = await changeKey(parts, { id, circumstances, decide })
  return { apiKey, plainTextKey: minted?.plainTextKey ?? '' }
}

/** Makes another secret the current one. The secret before works on for a grace period, and no secret waits any longer. */
function replaceSecret(
  parts: Parts,
  { prefix, postfix, lastUsedAt }: ApiKeyRecord,
  secret: Omit<MintedSecret, 'plainTextKey'>,
  gracePeriodSeconds: number,
): Decision {
  const worksUntil = new Date(parts.serverClock.now() + gracePeriodSeconds * 1_000)
  const previousSecret = gracePeriodSeconds > 0 ? { prefix, postfix, worksUntil, lastUsedAt } : null
  return {
    action: 'rotated',
    changes: {
      prefix: secret.prefix,
      postfix: secret.postfix,
      previousSecret,
      pendingRotation: null,
    },
    secret,
    renewal: renew(parts),
  }
}

/**
 * Makes pending secrets the current ones, beside the requests that use them first. The request does not wait for that: until the change is
 * committed, both secrets are good, so that nothing is lost if it fails or the process dies. Each further use tries again. The change
 * compares the version of the row, so one of several processes makes it.
 */
export function activateOnFirstUse(parts: Parts) {
  const { background, emitter, verification } = parts
  const underWay = new Set<string>()

  verification.onPendingUse((use) => {
    if (underWay.has(use.digest)) return
    underWay.add(use.digest)
    background
      .run(() => activate(parts, use))
      .catch((error: unknown) => {
        // A key that was changed meanwhile keeps its secrets. While the database is away, no use is accepted.
        if (error instanceof ApiKeysError || isOutage(error)) return
        emitter.emit('error', { error, notice: 'rotated' })
      })
      .finally(() => underWay.delete(use.digest))
  })
}

async function activate(parts: Parts, { id, digest, address }: PendingUse) {
  const stored = toStoredHash(digest)
  const shown = hash('sha256', stored)

  function decide(key: ApiKeyRecord, read: ReadKey): Decision {
    const { pendingRotation: pending } = key
    if (!pending || read.pendingHashDigest !== shown) return { action: 'rotated', changes: {} }

    nextStatus('rotate', key)
    const { prefix, postfix, gracePeriodSeconds } = pending
    const secret = { prefix, postfix, hash: stored, secretId: read.pendingSecretId }
    const decision = replaceSecret(parts, key, secret, gracePeriodSeconds)
    return { ...decision, firstUsedAt: new Date(Math.round(parts.serverClock.now())) }
  }
  const circumstances: Circumstances = {
    actor: { type: 'system' },
    reason: 'first use of the new secret',
    ...(address !== null && { address }),
  }
  await changeKey(parts, { id, circumstances, decide })
}

/** Ends the grace period of a key's previous secret, and a rotation that waits for the first use of its new secret. */
export async function endRotation(parts: Parts, id: string, circumstances: Circumstances) {
  return changeKey(parts, { id, circumstances, decide: decideEnd }, { isUrgent: true })
}

function decideEnd(key: ApiKeyRecord): Decision {
  nextStatus('change', key)
  return { action: 'rotation_ended', changes: { previousSecret: null, pendingRotation: null } }
}
