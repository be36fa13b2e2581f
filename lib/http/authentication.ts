import type { Request } from 'express'

import { ApiKeysError, refusalOf, type InvalidReason } from '../errors'
import type { Rules } from '../keys/rules'
import type { MaybePromise, Settings } from '../options'
import type { UsageRecorder } from '../verification/usage'
import type { Verdict, Verifier } from '../verification/verifier'
import type { Bearer, VerifiedApiKey } from '../verification/verified-api-key'
import type { Credential, CredentialReader } from './credentials'

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
  | Accepted
  /** No key of ours, but perhaps a token that somebody else understands. The error is for who insists on a key. */
  | { kind: 'absent'; error: ApiKeysError }
  | { kind: 'refused'; error: ApiKeysError }

export interface Accepted {
  kind: 'accepted'
  apiKey: VerifiedApiKey
  user: object
  bearer: RequestBearer
}

/** Says what a key lacks; `null` if it may pass. */
export type Demand = (apiKey: VerifiedApiKey) => ApiKeysError | null

/** A request that came with a key. The signal of the key holds as long as its response, and by what its guards demand. */
export class RequestBearer implements Bearer {
  countedInHour: number | undefined = undefined
  readonly #req: Request
  #demand: Demand = demandsNothing
  #paid = 0
  #userBefore: object | undefined = undefined

  constructor(req: Request) {
    this.#req = req
  }

  get until() {
    return this.#req.res
  }

  /** By Express's own rules, the app's `trust proxy`. */
  get ip() {
    return this.#req.ip
  }

  /** Notes what a guard demanded, and was given. */
  add(demand: Demand) {
    const before = this.#demand
    this.#demand = before === demandsNothing ? demand : (apiKey) => before(apiKey) ?? demand(apiKey)
  }

  /** How many uses a guard has still to count: a request counts for as many as its dearest guard says. */
  owes(cost: number): number {
    return Math.max(cost - this.#paid, 0)
  }

  notePaid(cost: number) {
    this.#paid += cost
  }

  refusalOf(apiKey: VerifiedApiKey): ApiKeysError | null {
    return this.#demand(apiKey)
  }

  accept(apiKey: VerifiedApiKey, user: object, userBefore: object | undefined): Accepted {
    this.#userBefore = userBefore
    this.#req.apiKey = apiKey
    this.#req.user = user
    return { kind: 'accepted', apiKey, user, bearer: this }
  }

  withdraw() {
    this.#req.apiKey = undefined
    this.#req.user = this.#userBefore
  }
}

const demandsNothing: Demand = () => null

export interface Authenticator {
  /** Finds out whose key the request carries, once: whoever asks again is told what came of it the first time. */
  authenticate(req: Request): MaybePromise<Authentication>
  /** Takes back that a key was accepted, for a request that goes on without it: whoever asks again is told why. */
  withdraw(req: Request, accepted: Accepted, error: ApiKeysError): Authentication
  /** Whether the request carries a key of ours, good or bad. */
  carriesKey(req: Request): boolean
}

interface AuthenticatorParts {
  credentials: CredentialReader
  verify: Verifier['verify']
  /** Counts a use of a good key as denied. */
  noteDenied: UsageRecorder['noteDenied']
  rules: Pick<Rules, 'userId'>
  settings: Pick<Settings, 'currentUser' | 'loadUser'>
}

export function createAuthenticator(parts: AuthenticatorParts): Authenticator {
  const { credentials, verify, noteDenied, rules, settings } = parts
  /**
   * Where a request keeps what came of it: at the list of its headers. Before Node 24, Express makes each request an object
   * of a shape of its own: to read a property of it takes a quarter as long as all else that a guard does, to add one longer
   * than that. A WeakMap costs even more.
   */
  const memo = Symbol('express-api-keys')
  type Memory = string[] & { [memo]?: MaybePromise<Authentication> }

  function authenticateFirst(req: Request, credential: Credential): MaybePromise<Authentication> {
    switch (credential.kind) {
      case 'none':
        return { kind: 'absent', error: withoutStack(() => new ApiKeysError('missing_credential')) }
      case 'foreign':
        return { kind: 'absent', error: invalid('malformed') }
      case 'unreadable':
        return { kind: credential.isOurs ? 'refused' : 'absent', error: credential.error }
      case 'key': {
        const bearer = new RequestBearer(req)
        const verdict = verify(credential, bearer)
        return verdict instanceof Promise
          ? verdict.then((verdict) => accept(req, verdict, bearer))
          : accept(req, verdict, bearer)
      }
    }
  }

  function accept(
    req: Request,
    verdict: Verdict,
    bearer: RequestBearer,
  ): MaybePromise<Authentication> {
    if (!verdict.valid) {
      return { kind: 'refused', error: invalid(verdict.code, verdict.retryAfterSeconds) }
    }

    const { apiKey } = verdict
    const { user } = req
    if (user || settings.loadUser) return acceptUser(req, apiKey, bearer)
    return bearer.accept(apiKey, { id: apiKey.userId }, user)
  }

  async function acceptUser(
    req: Request,
    apiKey: VerifiedApiKey,
    bearer: RequestBearer,
  ): Promise<Authentication> {
    if (req.user && !(await isOwner(req, apiKey))) return somebodyElse(apiKey, bearer)
    const user = req.user ?? (await loadUser(req, apiKey))
    if (user) return bearer.accept(apiKey, user, req.user)

    noteDenied(apiKey, bearer)
    return { kind: 'refused', error: invalid('unknown') }
  }

  /** The app may have signed somebody in since, behind the guard that came first. */
  function authenticateAgain(
    req: Request,
    authentication: Authentication,
  ): MaybePromise<Authentication> {
    if (authentication.kind !== 'accepted' || req.user === authentication.user)
      return authentication

    const { apiKey, bearer } = authentication
    return isOwner(req, apiKey).then((isOwner) =>
      isOwner ? authentication : somebodyElse(apiKey, bearer),
    )
  }

  function somebodyElse(apiKey: VerifiedApiKey, bearer: RequestBearer): Authentication {
    noteDenied(apiKey, bearer)
    return {
      kind: 'refused',
      error: withoutStack(() => new ApiKeysError('multiple_credentials')),
    }
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
      const memory: Memory = req.rawHeaders
      // A key that is still legible has not been read before.
      const plain = credentials.readPlain(req.headers, memory)
      if (!plain) {
        const before = memory[memo]
        if (before instanceof Promise) {
          return before.then((before) => authenticateAgain(req, before))
        }
        if (before) return authenticateAgain(req, before)
      }

      const authentication = authenticateFirst(req, plain ?? credentials.read(req))
      memory[memo] = authentication
      return authentication
    },

    withdraw(req, { bearer }, error) {
      bearer.withdraw()
      const memory: Memory = req.rawHeaders
      const refused = { kind: 'refused', error } as const
      memory[memo] = refused
      return refused
    },

    carriesKey(req) {
      const credential = credentials.read(req)
      return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
    },
  }
}

function invalid(reason: InvalidReason, retryAfterSeconds?: number): ApiKeysError {
  return withoutStack(() => refusalOf(reason, retryAfterSeconds))
}

/**
 * Makes the refusal of a request without a stack trace: it would tell nothing about the request, and costs more than all
 * else that a refusal takes.
 */
export function withoutStack<Refused extends ApiKeysError>(make: () => Refused): Refused {
  const { stackTraceLimit } = Error
  // Where Node was told to freeze what JavaScript comes with, this changes nothing.
  Reflect.set(Error, 'stackTraceLimit', 0)
  try {
    return make()
  } finally {
    Reflect.set(Error, 'stackTraceLimit', stackTraceLimit)
  }
}
