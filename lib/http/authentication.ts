import type { ServerResponse } from 'node:http'

import { ApiKeysError, InvalidApiKeyError, refusalOf, type InvalidReason } from '../errors'
import type { Emitter, RequestDenied } from '../keys/emitter'
import type { MaybePromise } from '../options'
import type { UsageRecorder } from '../usage/recorder'
import type { Decision } from '../verification/decide'
import type { Outcomes } from '../verification/outcomes'
import type { Verifier } from '../verification/verify'
import { withoutStack } from './answer'
import {
  addCaller,
  findCaller,
  findMaskedKey,
  hasAcceptedKey,
  keeperOf,
  type Accepted,
  type Authentication,
  type Caller,
} from './caller'
import { isOurs, linesOf, type Credential, type CredentialReader } from './credentials'
import { createOwnerCheck, userOf, type OwnerParts } from './owner'
import type { createPlainHttp } from './plain-http'
import { clientAddressOf, createTrustCheck, type GuardedRequest } from './request'
import type { Transport } from './transport'

/** The part that identifies the key of a request. */
export type Authenticator = ReturnType<typeof createAuthenticator>

interface AuthenticatorParts extends OwnerParts {
  credentials: CredentialReader
  verify: Verifier['verify']
  recorder: Pick<UsageRecorder, 'noteDenied' | 'noteRateLimited'>
  emitter: Pick<Emitter, 'emit' | 'listeners'>
  /** `undefined` if it does not matter how a request came. */
  transport: Transport | undefined
  /** Revokes a key that came over plain HTTP, after the answer. */
  revokeLater: ReturnType<typeof createPlainHttp>
  outcomes: Outcomes
}

/** Makes the part that identifies the key of a request, for one instance of the library. */
export function createAuthenticator(parts: AuthenticatorParts) {
  const { credentials, recorder, emitter, outcomes, transport, revokeLater } = parts
  const { judge, judgeAgain } = createJudge(parts)
  const instance = Symbol('express-api-keys')

  function recall(req: object): Caller | undefined {
    return findCaller(keeperOf(req, linesOf(req as GuardedRequest)), instance)
  }

  /** Masks the credential of a request, and keeps it for the guards. It reads a request once, unless it is to read it anew. */
  function mask(req: GuardedRequest, anew = false) {
    const lines = linesOf(req)
    const keeper = keeperOf(req, lines)
    const plain = credentials.readPlain(req, lines)
    if (!anew && plain?.kind !== 'key' && findCaller(keeper, instance)) return

    const credential = plain ?? credentials.read(req, lines, findMaskedKey(keeper))
    addCaller(keeper, instance, req, undefined).masked = credential
  }

  /**
   * Returns the refusal of a request that came over plain HTTP; `null` if it may go on. The refusal is the same with every key and
   * without one, and nothing is looked up for it.
   */
  function refuseInsecure(req: GuardedRequest, res?: ServerResponse): ApiKeysError | null {
    if (!transport?.refuses(req, res ?? req.res)) return null
    mask(req)
    if (transport.revokes(req)) {
      const masked = recall(req)?.masked
      if (masked?.kind === 'key') revokeLater(masked, clientAddressOf(req))
    }
    return withoutStack(() => new ApiKeysError('insecure_transport'))
  }

  return {
    refuseInsecure,

    /** Identifies the key of a request. Later calls with the same request get the first result. */
    authenticate(req: GuardedRequest, res?: ServerResponse): MaybePromise<Authentication> {
      if (transport !== undefined) {
        const error = refuseInsecure(req, res)
        if (error) return { kind: 'refused', error }
      }
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
      if (credential.kind === 'foreign' && credential.sent) caller.masked = credential
      caller.authentication = judge(req, credential, caller)
      return caller.authentication
    },

    mask,

    /** Returns the caller of a request; `undefined` if this instance has not read the request. */
    recall,

    /** True if a request carries a key of ours, good or bad, or came with a key that another instance accepted. */
    carriesKey(req: GuardedRequest): boolean {
      const lines = linesOf(req)
      // A key that was read before is masked by now. The request carries it all the same.
      return hasAcceptedKey(keeperOf(req, lines)) || isOurs(credentials.read(req, lines))
    },

    /** Reports a request that may pass to the listeners of `verified`. A later guard may still refuse it, so it waits for the end. */
    reportVerified({ key, caller }: Accepted) {
      outcomes.accepted++
      if (!emitter.listeners.has('verified')) return
      const address = caller.ip
      caller.reportOnce(() => emitter.emit('verified', { apiKey: key.apiKey, address }))
    },

    /** Counts a refused request if its key is good, and reports it to the listeners of `denied`. */
    reportDenied(req: object, failure: unknown) {
      if (!(failure instanceof ApiKeysError)) return

      outcomes.noteRefused(failure.code, reasonOf(failure))
      const caller = recall(req)
      const row = caller?.accepted?.key.row
      const key = row ? { id: row.id, owner: row.owner.shown } : caller?.refused
      if (caller && key) countRefusal(recorder, failure, key, caller)
      if (!emitter.listeners.has('denied')) return
      emitter.emit('denied', denialOf(key, caller, failure))
    },
  }
}

/** Makes the functions that decide about a credential, and about the owner of its key. */
function createJudge(parts: AuthenticatorParts) {
  const { verify, settings } = parts
  const owner = createOwnerCheck(parts)
  const checkTrust = createTrustCheck()

  function judge(
    req: GuardedRequest,
    credential: Credential,
    caller: Caller,
  ): MaybePromise<Authentication> {
    if (credential.kind !== 'key') return withoutKey(credential)

    const decision = verify(credential, caller)
    return decision instanceof Promise
      ? decision.then((decision) => accept(req, decision, caller))
      : accept(req, decision, caller)
  }

  function accept(
    req: GuardedRequest,
    decision: Decision,
    caller: Caller,
  ): MaybePromise<Authentication> {
    if (!decision.valid) {
      return { kind: 'refused', error: invalid(decision.code, decision.retryAfterSeconds) }
    }

    const { row } = decision
    if (row.policy.allowedIps !== null) checkTrust(req)
    const user = Reflect.get(req, 'user')
    if (user || settings.loadOwner) return owner.accept(req, decision, caller)
    return caller.accept(decision, userOf(row.owner), user)
  }

  /** The app may have put a user on the request since the first guard. */
  function judgeAgain(
    req: GuardedRequest,
    authentication: Authentication,
  ): MaybePromise<Authentication> {
    const isAsBefore = authentication.kind !== 'accepted' || req.user === authentication.user
    return isAsBefore ? authentication : owner.acceptAgain(req, authentication)
  }

  return { judge, judgeAgain }
}

/** A request counts as accepted once its key is verified. If it is refused after that, that is counted beside it, once. */
function countRefusal(
  { noteDenied, noteRateLimited }: AuthenticatorParts['recorder'],
  { code, status }: ApiKeysError,
  key: NonNullable<Caller['refused']>,
  caller: Caller,
) {
  if (code === 'rate_limited') noteRateLimited(key, caller)
  // If a part of the app cannot answer, that says nothing about the key.
  else if (status !== 503) noteDenied(key, caller)
}

function reasonOf(error: ApiKeysError): InvalidReason | null {
  return error instanceof InvalidApiKeyError ? error.reason : null
}

function denialOf(
  key: Caller['refused'] | undefined,
  caller: Caller | undefined,
  error: ApiKeysError,
): RequestDenied {
  return {
    apiKey: key ? { id: key.id, owner: key.owner } : null,
    error,
    reason: reasonOf(error),
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
