import type { Request } from 'express'

import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Settings } from '../options'
import type { VerifiedApiKey, Verify } from '../verification/verifier'
import type { ReadCredential } from './credentials'

declare global {
  namespace Express {
    interface Request {
      /** The key that the request came with, once a guard or our strategy accepted it. */
      apiKey?: VerifiedApiKey | undefined
    }
  }
}

/** What came of the credential of a request. */
export type Authentication =
  | { kind: 'accepted'; apiKey: VerifiedApiKey; user: object }
  /** No key, but perhaps a bearer token that somebody else understands. */
  | { kind: 'absent'; isForeign: boolean }
  | { kind: 'refused'; error: ApiKeysError }

export interface Authenticator {
  /** Finds out whose key the request carries, once: whoever asks again is told what came of it the first time. */
  authenticate(req: Request): Promise<Authentication>
  /** Whether the request carries a key of ours, good or bad. */
  carriesKey(req: Request): boolean
}

interface AuthenticatorParts {
  readCredential: ReadCredential
  verify: Verify
  settings: Pick<Settings, 'currentUser' | 'loadUser'>
}

export function createAuthenticator(parts: AuthenticatorParts): Authenticator {
  const { readCredential, verify, settings } = parts
  const authentications = new WeakMap<Request, Promise<Authentication>>()

  async function authenticateOnce(req: Request): Promise<Authentication> {
    const credential = readCredential(req)
    switch (credential.kind) {
      case 'none':
        return { kind: 'absent', isForeign: false }
      case 'foreign':
        return { kind: 'absent', isForeign: true }
      case 'unreadable':
        return { kind: 'refused', error: credential.error }
      case 'key':
        return accept(req, credential.plainTextKey)
    }
  }

  async function accept(req: Request, plainTextKey: string): Promise<Authentication> {
    const verdict = await verify(plainTextKey)
    if (!verdict.valid) return { kind: 'refused', error: new InvalidApiKeyError(verdict.code) }

    const { apiKey } = verdict
    if (await isSomebodyElse(req, apiKey)) {
      return { kind: 'refused', error: new ApiKeysError('multiple_credentials') }
    }
    const user = req.user ?? (await loadUser(req, apiKey))
    if (!user) return { kind: 'refused', error: new InvalidApiKeyError('unknown') }

    req.apiKey = apiKey
    req.user = user
    return { kind: 'accepted', apiKey, user }
  }

  /** Whether the app has signed in another user than the key's owner on this request already. */
  async function isSomebodyElse(req: Request, { userId }: VerifiedApiKey): Promise<boolean> {
    if (!req.user) return false

    const present = settings.currentUser ? await settings.currentUser(req) : req.user
    const { id } = (present ?? {}) as { id?: unknown }
    return String(id) !== String(userId)
  }

  async function loadUser(
    req: Request,
    { userId }: VerifiedApiKey,
  ): Promise<object | null | undefined> {
    if (!settings.loadUser) return { id: userId }
    return settings.loadUser(userId, req)
  }

  return {
    authenticate(req) {
      const known = authentications.get(req)
      if (known) return known

      const authentication = authenticateOnce(req)
      authentications.set(req, authentication)
      return authentication
    },

    carriesKey(req) {
      const credential = readCredential(req)
      return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
    },
  }
}
