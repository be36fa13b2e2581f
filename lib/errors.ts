import { refusals, type ErrorCode } from './refusals'

export { challengeOf, oauthErrorOf, type ErrorCode } from './refusals'

/**
 * Returns the header fields that a refusal always has besides its challenge. Every 503 may be tried again shortly. Clients that are generated
 * by Stainless send a request again after a 409, unless a field that is theirs says no.
 */
function fieldsOf(code: ErrorCode): ApiKeysError['headers'] {
  if (code === 'unsupported_media_type')
    return { Accept: 'application/json', 'Accept-Encoding': 'gzip, deflate' }
  const [status] = refusals[code]
  if (status === 503 || code === 'request_under_way') return retryAfter(1)
  return status === 409 ? { 'X-Should-Retry': 'false' } : {}
}

/** In seconds. A timer takes at most 2^31 milliseconds. With a longer time, clients would not wait at all. */
const longestRetryAfter = 2_147_483

function retryAfter(seconds: number) {
  return { 'Retry-After': String(Math.min(seconds, longestRetryAfter)) }
}

/** Why a key was not accepted, for the app's logs. A client gets the same answer for all reasons but the last three. */
export type InvalidReason =
  | 'malformed'
  | 'unknown'
  | 'revoked'
  | 'suspended'
  | 'expired'
  /** The key had this secret before a rotation, and its grace period is over. */
  | 'retired'
  /** The row of the key names another environment than the start of the secret. */
  | 'environment_mismatch'
  | 'address_not_allowed'
  | 'environment_not_allowed'
  /** It is bound to other resources than the call of `verify` names. */
  | 'resource_not_allowed'
  /** It is not a key, and its address has sent too many malformed keys. */
  | 'too_many_attempts'

/** A rule that the input breaks: its place (a JSON Pointer as a URI fragment, RFC 6901, section 6) and the fault. */
export interface InputFault {
  pointer: string
  message: string
}

/**
 * A refusal of a request or a call, with all that HTTP answers. Mistakes of the program that calls the library are `TypeError`s
 * instead. Errors of the app are passed on as they came.
 */
export class ApiKeysError extends Error {
  override readonly name: string = 'ApiKeysError'

  /** The status that HTTP answers. Express reads it here, and other frameworks, such as Nest, from `statusCode`. */
  readonly status: number
  readonly statusCode: number

  /** The header fields of the answer. A guard and `authenticateRequest` add the challenge, `WWW-Authenticate`. */
  headers: Readonly<Record<string, string>>

  /** The message may be shown to the client. */
  readonly expose = true

  constructor(
    readonly code: ErrorCode,
    options?: ErrorOptions,
    sentence: string = refusals[code][1],
  ) {
    super(sentence, options)
    this.status = refusals[code][0]
    this.statusCode = this.status
    this.headers = fieldsOf(code)
  }
}

/** The credential is not a key that may be used. */
export class InvalidApiKeyError extends ApiKeysError {
  override readonly name = 'InvalidApiKeyError'

  readonly #reason: InvalidReason

  constructor(reason: InvalidReason) {
    super('invalid_api_key')
    this.#reason = reason
  }

  /** For the app's logs. A getter, so that an error sent as JSON does not show it to a client. */
  get reason(): InvalidReason {
    return this.#reason
  }
}

/** An address has sent too many malformed keys. */
export class TooManyAttemptsError extends ApiKeysError {
  override readonly name = 'TooManyAttemptsError'

  constructor(readonly retryAfterSeconds: number) {
    super('too_many_attempts')
    this.headers = retryAfter(retryAfterSeconds)
  }
}

/** An address has sent too many reports of exposed keys. */
export class TooManyReportsError extends ApiKeysError {
  override readonly name = 'TooManyReportsError'

  constructor(readonly retryAfterSeconds: number) {
    super('too_many_reports')
    this.headers = retryAfter(retryAfterSeconds)
  }
}

/** Returns the code of the refusal of a key that is not accepted. */
export function codeOf(reason: InvalidReason): ErrorCode {
  switch (reason) {
    case 'address_not_allowed':
    case 'environment_not_allowed':
    case 'resource_not_allowed':
    case 'too_many_attempts':
      return reason
    default:
      return 'invalid_api_key'
  }
}

/**
 * Returns the refusal of a key that is not accepted: 403 for another address, environment or resource, 429 for too many attempts, 401
 * for all else.
 */
export function refusalOf(reason: InvalidReason, retryAfterSeconds = 1): ApiKeysError {
  const code = codeOf(reason)
  if (code === 'too_many_attempts') return new TooManyAttemptsError(retryAfterSeconds)
  return code === 'invalid_api_key' ? new InvalidApiKeyError(reason) : new ApiKeysError(code)
}

/** The state of a limit of a key. */
export interface LimitState {
  readonly name: string
  readonly limit: number
  readonly windowSeconds: number
  /** The number of uses that are left in this window. */
  readonly remaining: number
  /** The milliseconds until the window ends. */
  readonly resetMs: number
}

/** The key is good, but used too often. */
export class RateLimitedError extends ApiKeysError {
  override readonly name = 'RateLimitedError'

  /** The names of the limits that do not allow it. */
  readonly violated: readonly string[]

  /** The seconds until all limits allow it again. */
  readonly retryAfterSeconds: number

  constructor(
    /** All limits of the key. */
    readonly limits: readonly LimitState[],
    /** The number of uses that this use counts for. */
    readonly cost: number,
  ) {
    super('rate_limited')
    const violated = limits.filter(({ remaining }) => remaining < cost)
    this.violated = violated.map(({ name }) => name)
    const longestMs = Math.max(1_000, ...violated.map(({ resetMs }) => resetMs))
    this.retryAfterSeconds = Math.ceil(longestMs / 1_000)
    this.headers = retryAfter(this.retryAfterSeconds)
  }
}

/** The key is good, but holds too little. */
export class MissingPermissionError extends ApiKeysError {
  override readonly name = 'MissingPermissionError'

  constructor(
    /** The permissions that the route names; of several alternatives, the first of those that lack the fewest. */
    readonly needed: readonly string[],
    /** The permissions among them that the key does not hold. */
    readonly missing: readonly string[],
    /** The alternatives of which a key needs one, each a list of permissions; `undefined` if there is only one. */
    readonly anyOf?: readonly (readonly string[])[],
  ) {
    super('missing_permission')
  }
}

/** The input breaks rules. `errors` lists every fault. */
export class InvalidInputError extends ApiKeysError {
  override readonly name = 'InvalidInputError'

  constructor(
    readonly errors: readonly InputFault[],
    options?: ErrorOptions,
  ) {
    super('invalid_input', options, summarize(errors))
  }
}

/** The sentence for logs that do not show `errors`. A message goes on from its pointer; `#` is the whole input. */
function summarize([first, ...others]: readonly InputFault[]): string {
  const faults = first ? [`${first.pointer === '#' ? 'it' : first.pointer} ${first.message}`] : []
  if (others.length > 0) faults.push(`and ${others.length} more`)
  return [refusals.invalid_input[1], faults.join(', ')].join(': ')
}

/** Some users of many new keys would have too many. `errors` names the keys that are too many. */
export class TooManyApiKeysError extends ApiKeysError {
  override readonly name = 'TooManyApiKeysError'

  constructor(readonly errors: readonly InputFault[]) {
    super('too_many_api_keys')
  }
}

/** A request with the same idempotency key has made the secret. */
export class AlreadyCreatedError extends ApiKeysError {
  override readonly name = 'AlreadyCreatedError'

  constructor(
    /** The record of the key; `null` if the key is deleted, or has another owner by now. */
    readonly apiKey: { readonly id: string } | null,
  ) {
    super('already_created')
  }
}

/** The path has other methods. */
export class MethodNotAllowedError extends ApiKeysError {
  override readonly name = 'MethodNotAllowedError'

  constructor(readonly allowed: readonly string[]) {
    super('method_not_allowed')
    this.headers = { Allow: allowed.join(', ') }
  }
}
