import type { ServerResponse } from 'node:http'

import { ApiKeysError, InvalidApiKeyError, refusalOf, type InvalidReason } from '../errors'
import type { Emitter, RequestDenied } from '../keys/emitter'
import type { MaybePromise } from '../options'
import { AcceptedKey } from '../verification/verified-key'
import type { Verdict, Verifier } from '../verification/verify'
import { withoutStack } from './answer'
import {
  addCaller,
  findCaller,
  findMaskedKey,
  hasAcceptedKey,
  keeperOf,
  type Authentication,
  type Caller,
} from './caller'
import { isOurs, linesOf, type Credential, type CredentialReader } from './credentials'
import { createOwnerCheck, type OwnerParts } from './owner'
import { createTrustCheck, type GuardedRequest } from './request'

/** The part that identifies the key of a request. */
export type Authenticator = ReturnType<typeof createAuthenticator>

interface AuthenticatorParts extends OwnerParts {
  credentials: CredentialReader
  verify: Verifier['verify']
  emitter: Pick<Emitter, 'emit' | 'hasListener'>
}

/** Makes the part that identifies the key of a request, for one instance of the library. */
export function createAuthenticator(parts: AuthenticatorParts) {
  const { credentials, verify, emitter, settings } = parts
  const owner = createOwnerCheck(parts)
  const checkTrust = createTrustCheck()
  const instance = Symbol('express-api-keys')

  function judge(
    req: GuardedRequest,
    credential: Credential,
    caller: Caller,
  ): MaybePromise<Authentication> {
    if (credential.kind !== 'key') return withoutKey(credential)

    const verdict = verify(credential, caller)
    return verdict instanceof Promise
      ? verdict.then((verdict) => accept(req, verdict, caller))
      : accept(req, verdict, caller)
  }

  function accept(
    req: GuardedRequest,
    verdict: Verdict,
    caller: Caller,
  ): MaybePromise<Authentication> {
    if (!verdict.valid) {
      return { kind: 'refused', error: invalid(verdict.code, verdict.retryAfterSeconds) }
    }

    const { apiKey } = verdict
    if (AcceptedKey.isBound(apiKey)) checkTrust(req)
    const { user } = req
    if (user || settings.loadUser) return owner.accept(req, apiKey, caller)
    return caller.accept(apiKey, { id: apiKey.userId }, user)
  }

  /** The app may have put a user on the request since the first guard. */
  function judgeAgain(
    req: GuardedRequest,
    authentication: Authentication,
  ): MaybePromise<Authentication> {
    const isAsBefore = authentication.kind !== 'accepted' || req.user === authentication.user
    return isAsBefore ? authentication : owner.acceptAgain(req, authentication)
  }

  function recall(req: object): Caller | undefined {
    return findCaller(keeperOf(req, linesOf(req as GuardedRequest)), instance)
  }

  return {
    /** Identifies the key of a request. Later calls with the same request get the first result. */
    authenticate(req: GuardedRequest, res?: ServerResponse): MaybePromise<Authentication> {
      const lines = linesOf(req)
      const keeper = keeperOf(req, lines)
      let caller = findCaller(keeper, instance)
      let credential = credentials.readPlain(req, lines)
      // A key that is still legible has not been read before.
      if (caller && credential?.kind !== 'key') {
        caller.addResponse(res)
        const { authentication: before, masked } = caller
        if (before instanceof Promise) return before.then((before) => judgeAgain(req, before))
        if (before) return judgeAgain(req, before)
        caller.masked = undefined
        // After the masking, the app may have put a key into a header that had none.
        if (masked?.kind === 'key' || masked?.kind === 'unreadable') credential = masked
      } else {
        caller = addCaller(keeper, instance, req, res)
      }

      credential ??= credentials.read(req, lines, findMaskedKey(keeper))
      caller.authentication = judge(req, credential, caller)
      return caller.authentication
    },

    /** Masks the credential of a request, and keeps it for the guards. */
    mask(req: GuardedRequest) {
      const lines = linesOf(req)
      const keeper = keeperOf(req, lines)
      const plain = credentials.readPlain(req, lines)
      if (plain?.kind !== 'key' && findCaller(keeper, instance)) return

      const credential = plain ?? credentials.read(req, lines, findMaskedKey(keeper))
      addCaller(keeper, instance, req, undefined).masked = credential
    },

    /** Returns the caller of a request; `undefined` if this instance has not read the request. */
    recall,

    /** True if a request carries a key of ours, good or bad, or came with a key that another instance accepted. */
    carriesKey(req: GuardedRequest): boolean {
      const lines = linesOf(req)
      // A key that was read before is masked by now. The request carries it all the same.
      return hasAcceptedKey(keeperOf(req, lines)) || isOurs(credentials.read(req, lines))
    },

    /** Reports a refused request to the listeners of `denied`. */
    reportDenied(req: object, failure: unknown) {
      if (!(failure instanceof ApiKeysError) || !emitter.hasListener('denied')) return
      emitter.emit('denied', denialOf(recall(req), failure))
    },
  }
}

function denialOf(caller: Caller | undefined, error: ApiKeysError): RequestDenied {
  const apiKey = caller?.accepted?.apiKey ?? caller?.refused
  return {
    apiKey: apiKey ? { id: apiKey.id, userId: apiKey.userId } : null,
    error,
    reason: error instanceof InvalidApiKeyError ? error.reason : null,
    address: caller?.ip ?? null,
  }
}

function withoutKey(credential: Exclude<Credential, { kind: 'key' }>): Authentication {
  switch (credential.kind) {
    case 'none':
      return { kind: 'absent', error: withoutStack(() => new ApiKeysError('missing_credential')) }
    case 'foreign':
      return { kind: 'absent', error: invalid('malformed') }
    case 'unreadable':
      return { kind: credential.isOurs ? 'refused' : 'absent', error: credential.error }
  }
}

/** Returns the refusal of a key. `refusalOf` in errors.ts has the status of each reason. */
function invalid(reason: InvalidReason, retryAfterSeconds?: number): ApiKeysError {
  return withoutStack(() => refusalOf(reason, retryAfterSeconds))
}
