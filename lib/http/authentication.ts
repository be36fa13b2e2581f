import type { ServerResponse } from 'node:http'

import { ApiKeysError, InvalidApiKeyError, refusalOf, type InvalidReason } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { MaybePromise } from '../options'
import type { UsageRecorder } from '../usage/recorder'
import { AcceptedKey, type VerifiedApiKey } from '../verification/verified-key'
import type { Verdict, Verifier } from '../verification/verify'
import { withoutStack } from './answer'
import type { Credential, CredentialReader } from './credentials'
import { createOwners, type OwnersParts } from './owner'
import { createTrustCheck } from './proxy-trust'
import { linesOf, type GuardedRequest } from './request'
import {
  beginBearer,
  hasAcceptedKey,
  keeperOf,
  recallBearer,
  recallMaskedKey,
  type Accepted,
  type Authentication,
  type RequestBearer,
} from './request-memory'

export interface Authenticator {
  /** Finds out whose key a request carries, once: later calls get what came of it the first time. */
  authenticate(req: GuardedRequest, res?: ServerResponse): MaybePromise<Authentication>
  /** Takes back that a key was accepted, for a request that goes on without it: later calls get the error. */
  withdraw(accepted: Accepted, error: ApiKeysError): Authentication
  /** Reads the credential of a request and masks it. Judges nothing: guards do so later. */
  mask(req: GuardedRequest): void
  /** Returns what is known of a request; `undefined` if nothing of the library has read it. */
  recall(req: object): RequestBearer | undefined
  /** True if a request carries a key of ours, good or bad, or came with one that another instance accepted. */
  carriesKey(req: GuardedRequest): boolean
  /** Reports a refused request to the listeners of `denied`. */
  reportDenied(req: object, failure: unknown): void
}

interface AuthenticatorParts extends OwnersParts {
  credentials: CredentialReader
  verify: Verifier['verify']
  /** Counts a use of a good key as denied. */
  noteDenied: UsageRecorder['noteDenied']
  emitter: Pick<Emitter, 'emit' | 'isHeard'>
}

export function createAuthenticator(parts: AuthenticatorParts): Authenticator {
  const { credentials, verify, noteDenied, emitter, settings } = parts
  const owners = createOwners(parts)
  /** Names this instance in the memory of requests. */
  const self = Symbol('express-api-keys')
  const checkTrust = createTrustCheck()

  function authenticateFirst(
    req: GuardedRequest,
    credential: Credential,
    bearer: RequestBearer,
  ): MaybePromise<Authentication> {
    switch (credential.kind) {
      case 'none':
        return { kind: 'absent', error: withoutStack(() => new ApiKeysError('missing_credential')) }
      case 'foreign':
        return { kind: 'absent', error: invalid('malformed') }
      case 'unreadable':
        return { kind: credential.isOurs ? 'refused' : 'absent', error: credential.error }
      case 'key': {
        const verdict = verify(credential, bearer)
        return verdict instanceof Promise
          ? verdict.then((verdict) => accept(req, verdict, bearer))
          : accept(req, verdict, bearer)
      }
    }
  }

  function accept(
    req: GuardedRequest,
    verdict: Verdict,
    bearer: RequestBearer,
  ): MaybePromise<Authentication> {
    if (!verdict.valid) {
      return { kind: 'refused', error: invalid(verdict.code, verdict.retryAfterSeconds) }
    }

    const { apiKey } = verdict
    if (AcceptedKey.isBound(apiKey)) checkTrust(req)
    const { user } = req
    if (user || settings.loadUser) return acceptUser(req, apiKey, bearer)
    return bearer.accept(apiKey, { id: apiKey.userId }, user)
  }

  async function acceptUser(
    req: GuardedRequest,
    apiKey: VerifiedApiKey,
    bearer: RequestBearer,
  ): Promise<Authentication> {
    const { user: present } = req
    const signedIn = present ? await owners.compareSignedIn(req, apiKey) : 'nobody'
    if (signedIn === 'other') return twoCredentials(apiKey, bearer)
    // A guest is nobody, and gives its place to the owner.
    const user = signedIn === 'owner' ? present : await owners.loadUser(req, apiKey)
    if (user) return bearer.accept(apiKey, user, present)

    noteDenied(apiKey, bearer)
    bearer.refused = apiKey
    return { kind: 'refused', error: invalid('unknown') }
  }

  /** The app may have signed a user in since, behind the guard that came first. */
  function authenticateAgain(
    req: GuardedRequest,
    authentication: Authentication,
  ): MaybePromise<Authentication> {
    if (authentication.kind !== 'accepted' || req.user === authentication.user)
      return authentication
    return acceptAgain(req, authentication)
  }

  async function acceptAgain(req: GuardedRequest, accepted: Accepted): Promise<Authentication> {
    const { apiKey, bearer, user } = accepted
    const signedIn = await owners.compareSignedIn(req, apiKey)
    if (signedIn === 'other') return twoCredentials(apiKey, bearer)
    return signedIn === 'owner' ? accepted : bearer.accept(apiKey, user, req.user)
  }

  function twoCredentials(apiKey: VerifiedApiKey, bearer: RequestBearer): Authentication {
    noteDenied(apiKey, bearer)
    bearer.refused = apiKey
    return {
      kind: 'refused',
      error: withoutStack(() => new ApiKeysError('multiple_credentials')),
    }
  }

  function recall(req: object): RequestBearer | undefined {
    return recallBearer(keeperOf(req, linesOf(req as GuardedRequest)), self)
  }

  return {
    authenticate(req, res) {
      const lines = linesOf(req)
      const keeper = keeperOf(req, lines)
      let bearer = recallBearer(keeper, self)
      let credential = credentials.readPlain(req, lines)
      // A key that is still legible has not been read before.
      if (bearer && credential?.kind !== 'key') {
        bearer.noteResponse(res)
        const { authentication: before } = bearer
        if (before instanceof Promise) {
          return before.then((before) => authenticateAgain(req, before))
        }
        if (before) return authenticateAgain(req, before)
        const kept = bearer.takeCredential()
        // Since it was kept, the app may have put a key into a header that had none.
        if (kept?.kind === 'key' || kept?.kind === 'unreadable') credential = kept
      } else {
        bearer = beginBearer(keeper, self, req, res)
      }

      bearer.authentication = authenticateFirst(
        req,
        credential ?? credentials.read(req, lines, recallMaskedKey(keeper)),
        bearer,
      )
      return bearer.authentication
    },

    withdraw({ bearer }, error) {
      bearer.withdraw()
      const refused = { kind: 'refused', error } as const
      bearer.authentication = refused
      return refused
    },

    mask(req) {
      const lines = linesOf(req)
      const keeper = keeperOf(req, lines)
      const plain = credentials.readPlain(req, lines)
      if (plain?.kind !== 'key' && recallBearer(keeper, self)) return

      const credential = plain ?? credentials.read(req, lines, recallMaskedKey(keeper))
      beginBearer(keeper, self, req, undefined).keepCredential(credential)
    },

    recall,

    carriesKey(req) {
      const lines = linesOf(req)
      const keeper = keeperOf(req, lines)
      if (hasAcceptedKey(keeper)) return true
      // A key that was read before is masked by now. The request carries it all the same.
      const credential = credentials.read(req, lines)
      return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
    },

    reportDenied(req, failure) {
      if (!(failure instanceof ApiKeysError) || !emitter.isHeard('denied')) return

      const bearer = recall(req)
      const apiKey = bearer?.accepted?.apiKey ?? bearer?.refused
      emitter.emit('denied', {
        apiKey: apiKey ? { id: apiKey.id, userId: apiKey.userId } : null,
        error: failure,
        reason: failure instanceof InvalidApiKeyError ? failure.reason : null,
        address: bearer?.ip ?? null,
      })
    },
  }
}

function invalid(reason: InvalidReason, retryAfterSeconds?: number): ApiKeysError {
  return withoutStack(() => refusalOf(reason, retryAfterSeconds))
}
