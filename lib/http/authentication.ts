import type { Request } from 'express'

import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Rules } from '../keys/rules'
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
  /** No key of ours, but perhaps a token that somebody else understands. The error is for who insists on a key. */
  | { kind: 'absent'; error: ApiKeysError }
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
  rules: Pick<Rules, 'userId'>
  settings: Pick<Settings, 'currentUser' | 'loadUser'>
}

export function createAuthenticator(parts: AuthenticatorParts): Authenticator {
  const { readCredential, verify, rules, settings } = parts
  const authentications = new WeakMap<Request, Promise<Authentication>>()

  async function authenticateFirst(req: Request): Promise<Authentication> {
    const credential = readCredential(req)
    switch (credential.kind) {
      case 'none':
        return { kind: 'absent', error: new ApiKeysError('missing_credential') }
      case 'foreign':
        return { kind: 'absent', error: new InvalidApiKeyError('malformed') }
      case 'unreadable':
        return { kind: credential.isOurs ? 'refused' : 'absent', error: credential.error }
      case 'key':
        return accept(req, credential.plainTextKey)
    }
  }

  async function accept(req: Request, plainTextKey: string): Promise<Authentication> {
    const verdict = await verify(plainTextKey)
    if (!verdict.valid) return { kind: 'refused', error: new InvalidApiKeyError(verdict.code) }

    const { apiKey } = verdict
    if (req.user && !(await isOwner(req, apiKey))) return somebodyElse()
    const user = req.user ?? (await loadUser(req, apiKey))
    if (!user) return { kind: 'refused', error: new InvalidApiKeyError('unknown') }

    req.apiKey = apiKey
    req.user = user
    return { kind: 'accepted', apiKey, user }
  }

  /** The app may have signed somebody in since, behind the guard that came first. */
  async function authenticateAgain(
    req: Request,
    first: Promise<Authentication>,
  ): Promise<Authentication> {
    const authentication = await first
    if (authentication.kind !== 'accepted' || req.user === authentication.user)
      return authentication

    return (await isOwner(req, authentication.apiKey)) ? authentication : somebodyElse()
  }

  /** Whether whom the app has in `req.user` is the owner of the key. */
  async function isOwner(req: Request, { userId }: VerifiedApiKey): Promise<boolean> {
    const user: object | null | undefined = settings.currentUser
      ? await settings.currentUser(req)
      : req.user
    const { id } = (user ?? {}) as { id?: unknown }
    return rules.userId.safeParse(id).data === userId
  }

  async function loadUser(
    req: Request,
    { userId }: VerifiedApiKey,
  ): Promise<object | null | undefined> {
    return settings.loadUser ? settings.loadUser(userId, req) : { id: userId }
  }

  return {
    authenticate(req) {
      const first = authentications.get(req)
      if (first) return authenticateAgain(req, first)

      const authentication = authenticateFirst(req)
      authentications.set(req, authentication)
      return authentication
    },

    carriesKey(req) {
      const credential = readCredential(req)
      return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
    },
  }
}

function somebodyElse(): Authentication {
  return { kind: 'refused', error: new ApiKeysError('multiple_credentials') }
}
