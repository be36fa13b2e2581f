/** Every refusal: its stable code, the status that HTTP answers, and the sentence that says what to do about it. */
const refusals = {
  missing_credential: [
    401,
    'This needs an API key. Send it in the header: Authorization: Bearer <key>.',
  ],
  malformed_credential: [
    400,
    'The API key is not sent as it should be. Send it in the header: Authorization: Bearer <key>.',
  ],
  multiple_credentials: [400, 'The request carries more than one credential. Send exactly one.'],
  invalid_api_key: [401, 'The API key is not valid. It is unknown, revoked, suspended or expired.'],
  address_not_allowed: [403, 'The API key may not be used from this address.'],
  rate_limited: [
    429,
    'The API key is used too often. Wait as long as the header Retry-After says.',
  ],
  too_many_attempts: [
    429,
    'Too many failed attempts from this address. Wait as long as the header Retry-After says.',
  ],
  missing_permission: [403, 'The API key does not have the permission that this needs.'],
  not_signed_in: [401, 'Sign in first.'],
  not_an_admin: [403, 'Only an administrator may do this.'],
  api_key_not_allowed: [
    403,
    'API keys are not managed with an API key. Sign in instead, and send no key.',
  ],
  cross_site_request: [403, 'A request from another site may not change anything here.'],
  api_key_not_found: [404, 'There is no such API key.'],
  precondition_failed: [412, 'API keys have no ETag here, so If-Match is never met. Leave it out.'],
  method_not_allowed: [
    405,
    'This method is not allowed here. The header Allow names those that are.',
  ],
  api_key_suspended: [409, 'The API key is suspended. Reactivate it first.'],
  api_key_expired: [409, 'The API key has expired. Give it a later expiresAt first.'],
  api_key_revoked: [409, 'The API key is revoked, and stays so. Create a new one.'],
  too_many_api_keys: [409, 'This user has as many API keys as are allowed. Revoke one first.'],
  audit_trail_not_intact: [
    409,
    'The end of the audit trail is not as it was left. Verify the trail to see what is wrong.',
  ],
  unsupported_media_type: [
    415,
    'The body must be JSON in UTF-8, with the header: Content-Type: application/json.',
  ],
  malformed_json: [400, 'The body is not valid JSON.'],
  body_too_large: [413, 'The body is larger than 32 kB.'],
  invalid_input: [422, 'The input breaks the rules'],
  limiter_unavailable: [
    503,
    'The limits of the API key cannot be checked at the moment. Try again shortly.',
  ],
  grantable_unavailable: [
    503,
    'What the owner of the API key may do cannot be checked at the moment. Try again shortly.',
  ],
  too_many_lookups: [503, 'Too many unknown API keys from this address. Try again shortly.'],
  database_unavailable: [
    503,
    'API keys cannot be checked or changed at the moment. Try again shortly.',
  ],
} as const

/** What a program branches on. Codes are stable; sentences may change. */
export type ErrorCode = keyof typeof refusals

/** Why a key was not accepted. For the app's logs: a client is told one text for all of them but the last two. */
export type InvalidReason =
  | 'malformed'
  | 'unknown'
  | 'revoked'
  | 'suspended'
  | 'expired'
  /** A secret that the key had before a rotation, and that works no more. */
  | 'retired'
  | 'address_not_allowed'
  /** It is no key, and neither was too much else from its address. */
  | 'too_many_attempts'

/** One rule that the input breaks: where (a JSON Pointer as a URI fragment, RFC 6901 section 6) and how. */
export interface InputFault {
  pointer: string
  message: string
}

/**
 * A refusal: what a request or a call is answered with that may not have what it asks for, or not now. Mistakes of the program
 * that calls us are `TypeError`s instead, and what is not ours is passed on as it came.
 */
export class ApiKeysError extends Error {
  override readonly name: string = 'ApiKeysError'

  /** The status that HTTP answers. Express reads it here, and other frameworks, such as Nest, from `statusCode`. */
  readonly status: number
  readonly statusCode: number

  /** The fields of the answer, such as `WWW-Authenticate`: complete once a guard or a function of the library has failed. */
  headers: Readonly<Record<string, string>> = {}

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

  /** For the app's logs. No property of its own, so that an error sent as JSON does not tell it to a client. */
  get reason(): InvalidReason {
    return this.#reason
  }
}

/** Too much came from an address that is no key. */
export class TooManyAttemptsError extends ApiKeysError {
  override readonly name = 'TooManyAttemptsError'

  constructor(readonly retryAfterSeconds: number) {
    super('too_many_attempts')
  }
}

/** Returns what a client is told of a key that is not accepted. */
export function refusalOf(reason: InvalidReason, retryAfterSeconds = 1): ApiKeysError {
  switch (reason) {
    case 'address_not_allowed':
      return new ApiKeysError('address_not_allowed')
    case 'too_many_attempts':
      return new TooManyAttemptsError(retryAfterSeconds)
    default:
      return new InvalidApiKeyError(reason)
  }
}

/** Where a key stands with one of its limits. */
export interface LimitState {
  readonly name: string
  readonly limit: number
  readonly windowSeconds: number
  /** How many uses are left in this window. */
  readonly remaining: number
  /** In how many milliseconds the window ends. */
  readonly resetMs: number
}

/** The key is good, but used too often. */
export class RateLimitedError extends ApiKeysError {
  override readonly name = 'RateLimitedError'

  /** The names of the limits that do not allow it. */
  readonly violated: readonly string[]

  /** When all of them allow it again. */
  readonly retryAfterSeconds: number

  constructor(
    /** All limits of the key. */
    readonly limits: readonly LimitState[],
    /** How many uses this one counts for. */
    readonly cost: number,
  ) {
    super('rate_limited')
    const violated = limits.filter(({ remaining }) => remaining < cost)
    this.violated = violated.map(({ name }) => name)
    this.retryAfterSeconds = Math.max(
      1,
      ...violated.map(({ resetMs }) => Math.ceil(resetMs / 1_000)),
    )
  }
}

/** The key is good, but holds too little. */
export class MissingPermissionError extends ApiKeysError {
  override readonly name = 'MissingPermissionError'

  constructor(
    /** The permissions that the route names. */
    readonly needed: readonly string[],
    /** Those among them that the key does not hold. */
    readonly missing: readonly string[],
  ) {
    super('missing_permission')
  }
}

/** The input breaks rules; `errors` lists every one of them. */
export class InvalidInputError extends ApiKeysError {
  override readonly name = 'InvalidInputError'

  constructor(
    readonly errors: readonly InputFault[],
    options?: ErrorOptions,
  ) {
    super('invalid_input', options, summarize(errors))
  }
}

/** For logs, where `errors` may not be shown. Messages read on from what they are about; `#` is the input as a whole. */
function summarize([first, ...others]: readonly InputFault[]): string {
  const faults = first ? [`${first.pointer === '#' ? 'it' : first.pointer} ${first.message}`] : []
  if (others.length > 0) faults.push(`and ${others.length} more`)
  return [refusals.invalid_input[1], faults.join(', ')].join(': ')
}

/** The path is known, the method is not. */
export class MethodNotAllowedError extends ApiKeysError {
  override readonly name = 'MethodNotAllowedError'

  constructor(readonly allowed: readonly string[]) {
    super('method_not_allowed')
  }
}
