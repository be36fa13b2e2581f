import type { Request, Response } from 'express'

import { ApiKeysError } from '../errors'
import type { Authenticator } from '../http/authentication'
import { sendJson, type RouterParts } from '../http/router'
import { readClientAddress } from '../keys/addresses'
import type { Owner } from '../keys/owner'
import type { Settings } from '../read-options'
import type { CachedKey } from '../verification/cache'
import { lastEndOf, faultOf } from '../verification/decide'
import type { Verification } from '../verification/verification'
import { malformed, readForm, tokenOf } from './form'
import type { Introspection, readTokenOptions } from './options'

export interface IntrospectionParts extends Pick<RouterParts, 'lifecycle'> {
  authenticator: Pick<Authenticator, 'recall'>
  settings: Pick<Settings, 'environments' | 'maxStalenessMs'>
  verification: Pick<Verification, 'inspect' | 'holdingOf'>
  /** Verifies a key, and counts the use. */
  verify: Verification['verifyAlone']
}

type IntrospectSettings = NonNullable<ReturnType<typeof readTokenOptions>['introspect']>

/** The answer about every token that may not be used, and every token that the caller may not see (RFC 7662, section 2.2). */
const inactive = Object.freeze({ active: false })

/** Makes the handler that tells an authorized caller what a key may do (RFC 7662). It stands behind a guard. */
export function createIntrospect(parts: IntrospectionParts, options: IntrospectSettings) {
  const { authenticator, settings } = parts
  const { mayIntrospect, countUse, environment } = options
  const introspectKey = createIntrospectKey(parts, options)
  const isUsed = async (token: string, ip: string | undefined) =>
    (await parts.verify(token, { ip, environment })).valid

  return async function introspect(req: Request, res: Response) {
    const parameters = await readForm(req, res)
    const token = tokenOf(parameters)
    const ip = readAddress(parameters.get('ip'))
    const found = await introspectKey(token, ip)
    const caller = authenticator.recall(req)?.accepted
    const isSeen =
      found !== null &&
      caller !== undefined &&
      (!mayIntrospect || (await mayIntrospect(caller.key.apiKey, found)) === true) &&
      (!countUse || (await isUsed(token, ip)))

    const restMs = isSeen && found.exp !== undefined ? found.exp * 1_000 - Date.now() : Infinity
    const maxAgeMs = Math.max(Math.min(settings.maxStalenessMs, restMs), 0)
    res.set('Cache-Control', `private, max-age=${Math.floor(maxAgeMs / 1_000)}`)
    sendJson(res, isSeen ? found : inactive)
  }
}

/** Returns the address of the client that has sent a key, if the caller says it (RFC 7662, section 2.1, allows such a parameter). */
function readAddress(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  const address = readClientAddress(text)
  if (address === null) throw malformed()
  return address
}

/** Makes the function that finds out what a key may do; `null` for a text that is no key, or a key that may not be used. */
function createIntrospectKey(
  { lifecycle, settings, verification }: IntrospectionParts,
  { environment }: IntrospectSettings,
) {
  const { environments } = settings
  const { inspect, holdingOf } = verification
  const accepted = environments.acceptedBy('tokenRouter', environment)
  /** When keys were created. Rows in the cache do not say it. */
  const createdAt = new WeakMap<CachedKey, Date>()

  async function creationOf(key: CachedKey): Promise<Date> {
    const known = createdAt.get(key)
    if (known) return known
    const record = await lifecycle.get(key.id)
    createdAt.set(key, record.createdAt)
    return record.createdAt
  }

  async function describe(key: CachedKey): Promise<Introspection> {
    const { id, owner, environment, policy } = key
    const { permissions } = await holdingOf(key)
    const endsAtMs = lastEndOf(key)
    const { resources } = policy.bindings
    return {
      active: true,
      ...(permissions.names.length > 0 && { scope: permissions.names.join(' ') }),
      client_id: id,
      token_type: 'Bearer',
      ...(endsAtMs < Infinity && { exp: secondsOf(endsAtMs) }),
      iat: secondsOf((await creationOf(key)).getTime()),
      sub: subjectOf(owner.shown),
      jti: id,
      owner: owner.shown,
      ...(environment !== null && { environment }),
      ...(resources && { resources }),
    }
  }

  return async function introspectKey(token: string, ip: string | undefined) {
    const { key, wall } = await inspect(token)
    if (!key || faultOf(key, wall, { ip }) !== null) return null
    if (accepted !== null && !accepted.includes(key.environment ?? '')) return null

    return describe(key).catch(unlessDeleted)
  }
}

/** The key may be deleted between the two reads. */
function unlessDeleted(error: unknown): null {
  if (error instanceof ApiKeysError && error.code === 'api_key_not_found') return null
  throw error
}

/** The starts of subjects that are no users. */
const kinds = /^(?:user|organization|service):/

/** Returns a text for an owner that no other owner has, whatever ids users choose. */
function subjectOf({ type, id }: Owner): string {
  const text = String(id)
  return type === 'user' && !kinds.test(text) ? text : `${type}:${text}`
}

function secondsOf(ms: number): number {
  return Math.floor(ms / 1_000)
}
