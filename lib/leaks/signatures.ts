import { createPublicKey, verify, type KeyObject } from 'node:crypto'

import { systemClock } from '../database/clock'
import { ApiKeysError } from '../errors'

/** How long the public keys are relied on, and how often they are asked for at most because of an unknown one. */
const keepMs = 30 * 60_000
const askAgainMs = 60_000

/** How often they are asked for at most while none are known. */
const askFirstMs = 1_000

const answerLimitMs = 5_000

interface SignatureOptions {
  publicKeysUrl: string
  token: string | undefined
  /** By a monotonic clock, in milliseconds. */
  now?: () => number
}

/** The header fields of a signed report. */
export interface Signature {
  keyIdentifier: string | undefined
  signature: string | undefined
}

/**
 * Makes the check of GitHub's signatures: ECDSA on P-256 over SHA-256 of the bytes of a body, in DER and base64
 * (docs.github.com, secret scanning partner program). While GitHub is away, the last public keys go on.
 */
export function createSignatureCheck(options: SignatureOptions) {
  const { publicKeysUrl, token, now = systemClock.monotonic } = options
  let keys: ReadonlyMap<string, KeyObject> = new Map()
  let etag: string | null = null
  let readAt = -Infinity
  let askedAt = -Infinity
  let reading: Promise<void> | undefined

  async function read() {
    const answer = await fetch(publicKeysUrl, {
      headers: {
        Accept: 'application/json',
        'User-Agent': 'express-api-keys',
        ...(etag !== null && { 'If-None-Match': etag }),
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
      },
      redirect: 'error',
      signal: AbortSignal.timeout(answerLimitMs),
    })
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(`express-api-keys: ${publicKeysUrl} answers ${answer.status}`)
      const found = readPublicKeys(await answer.json())
      if (found.size === 0) throw new Error(`express-api-keys: ${publicKeysUrl} has no public keys`)
      keys = found
      etag = answer.headers.get('etag')
    }
    readAt = now()
  }

  /** Asks for the public keys, once for all reports that wait for them. Returns the failure, if it fails. */
  async function refresh(): Promise<unknown> {
    askedAt = now()
    reading ??= read().finally(() => {
      reading = undefined
    })
    return reading.then(
      () => null,
      (error: unknown) => error,
    )
  }

  async function keyOf(identifier: string): Promise<KeyObject | undefined> {
    const waitMs = keys.size === 0 ? askFirstMs : askAgainMs
    const isDue = now() - readAt > keepMs || !keys.has(identifier)
    const failure = reading || (isDue && now() - askedAt >= waitMs) ? await refresh() : null
    if (keys.size === 0) throw new ApiKeysError('report_unverifiable', { cause: failure })
    return keys.get(identifier)
  }

  /** Returns the check of the body of a report, which throws unless GitHub has signed it. Rejects if no body can be signed so. */
  return async function readSignature({ keyIdentifier, signature }: Signature) {
    const isFormed =
      keyIdentifier !== undefined && signature !== undefined && base64.test(signature)
    const key = isFormed ? await keyOf(keyIdentifier) : undefined
    if (!key) throw new ApiKeysError('invalid_signature')

    return function checkBody(body: Buffer) {
      if (!isSigned(body, key, signature)) throw new ApiKeysError('invalid_signature')
    }
  }
}

const base64 = /^[A-Za-z0-9+/]{8,200}={0,2}$/

function isSigned(body: Buffer, key: KeyObject, signature = ''): boolean {
  return verify('sha256', body, { key, dsaEncoding: 'der' }, Buffer.from(signature, 'base64'))
}

/** Reads the public keys on P-256 of an answer, by their identifiers. Other keys are left out, because nothing of ours checks them. */
function readPublicKeys(answer: unknown): Map<string, KeyObject> {
  const { public_keys: list } = Object(answer) as { public_keys?: unknown }
  const keys = new Map<string, KeyObject>()
  for (const each of Array.isArray(list) ? list : []) {
    const { key_identifier: identifier, key: pem } = Object(each) as Record<string, unknown>
    if (typeof identifier !== 'string' || typeof pem !== 'string') continue
    const key = readPublicKey(pem)
    if (key?.asymmetricKeyDetails?.namedCurve === 'prime256v1') keys.set(identifier, key)
  }
  return keys
}

function readPublicKey(pem: string): KeyObject | undefined {
  try {
    return createPublicKey(pem)
  } catch {
    return undefined
  }
}
