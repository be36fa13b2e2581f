/** The error code of a challenge (RFC 6750, section 3.1); `null` for a challenge without one. */
type Challenge = 'invalid_request' | 'invalid_token' | 'insufficient_scope' | null

type Status = 400 | 403 | 404 | 405 | 409 | 412 | 413 | 415 | 422 | 429 | 503

/** A 401 always has a challenge (RFC 9110, section 15.5.2). */
type Refusal =
  | readonly [status: 401, sentence: string, Challenge]
  | readonly [status: Status, sentence: string, Challenge?]

/** Every refusal, by its code: the status that HTTP answers, the sentence that says what to do, and the challenge. */
export const refusals = {
  insecure_transport: [403, 'This needs HTTPS. Replace a key that was sent over plain HTTP.'],
  missing_credential: [
    401,
    'This needs an API key. Send it in the header: Authorization: Bearer <key>.',
    null,
  ],
  malformed_credential: [
    400,
    'The API key is sent in a wrong form. Send it in the header: Authorization: Bearer <key>.',
    'invalid_request',
  ],
  multiple_credentials: [
    400,
    'The request carries more than one credential. Send exactly one.',
    'invalid_request',
  ],
  invalid_api_key: [
    401,
    'The API key is not valid. It is unknown, revoked, suspended or expired.',
    'invalid_token',
  ],
  address_not_allowed: [403, 'The API key may not be used from this address.'],
  environment_not_allowed: [403, 'API keys of this environment may not be used here.'],
  resource_not_allowed: [403, 'The API key may not be used for this resource.'],
  rate_limited: [
    429,
    'The API key is used too often. Wait as long as the header Retry-After says.',
  ],
  too_many_attempts: [
    429,
    'Too many failed attempts from this address. Wait as long as the header Retry-After says.',
  ],
  missing_permission: [
    403,
    'The API key does not have the permission that this needs.',
    'insufficient_scope',
  ],
  not_signed_in: [401, 'Sign in first.', null],
  not_an_admin: [403, 'Only an administrator may do this.'],
  read_only: [403, 'You may see these API keys, but not change them.'],
  exceeds_access: [403, 'The API key may do more than you may, so you may only restrict it.'],
  api_key_not_allowed: [
    403,
    'API keys are not managed with an API key. Sign in instead, and send no key.',
  ],
  cross_site_request: [403, 'A request from another site may not change anything here.'],
  organization_not_found: [404, 'There is no such organization.'],
  api_key_not_found: [404, 'There is no such API key.'],
  precondition_failed: [412, 'API keys have no ETag here, so If-Match is never met. Leave it out.'],
  method_not_allowed: [
    405,
    'This method is not allowed here. The header Allow names the allowed methods.',
  ],
  api_key_suspended: [409, 'The API key is suspended. Reactivate it first.'],
  api_key_expired: [
    409,
    'The API key has expired. Give it a later expiresAt first, or reactivate it if it was unused.',
  ],
  api_key_revoked: [409, 'The API key is revoked, and stays so. Create a new one.'],
  api_key_exposed: [409, 'The API key was exposed, and stays refused. Create a new one.'],
  unknown_environment: [409, 'The API key has an environment that is gone. Create a new one.'],
  already_created: [
    409,
    'A request with this Idempotency-Key was carried out before. If you do not have its secret, rotate the API key.',
  ],
  request_under_way: [
    409,
    'A request with this Idempotency-Key is being carried out. Try again shortly.',
  ],
  idempotency_key_reused: [
    422,
    'This Idempotency-Key belongs to a request with other input. Send another one.',
  ],
  malformed_idempotency_key: [
    400,
    'Idempotency-Key must be 1 to 255 printable ASCII characters in quotes, for example "8e03978e". Letters, digits, - and _ need no quotes.',
  ],
  owner_suspended: [409, 'The owner of the API key is suspended. Reactivate the owner first.'],
  too_many_api_keys: [409, 'The owner has as many API keys as are allowed. Revoke one first.'],
  owner_has_api_keys: [409, 'The owner has API keys that are not revoked. Revoke them first.'],
  audit_trail_not_intact: [
    409,
    'The audit trail was altered at its end. Verify it to see the faults.',
  ],
  unsupported_media_type: [
    415,
    'The body must be JSON in UTF-8, with the header: Content-Type: application/json.',
  ],
  malformed_json: [400, 'The body is not valid JSON.'],
  body_too_large: [413, 'The body is larger than 32 kB.'],
  invalid_input: [422, 'The input breaks the rules'],
  invalid_signature: [403, 'The signature of the report is not valid.'],
  invalid_report_token: [401, 'The token of the report is not valid.', 'invalid_token'],
  malformed_report: [400, 'The report does not have the form that is taken here.'],
  unsupported_token_type: [
    400,
    'A token of the report has a type that is not taken here. The keys among its tokens are refused all the same.',
  ],
  too_many_reports: [
    429,
    'Too many reports from this address. Wait as long as the header Retry-After says.',
  ],
  malformed_token_request: [
    400,
    'The body must be a form, application/x-www-form-urlencoded, with the parameter token, and each parameter once.',
  ],
  report_unverifiable: [503, 'The report cannot be checked at the moment. Send it again shortly.'],
  limiter_unavailable: [
    503,
    'The limits of the API key cannot be checked at the moment. Try again shortly.',
  ],
  grantable_unavailable: [
    503,
    'The permissions of the owner of the API key cannot be checked at the moment. Try again shortly.',
  ],
  too_many_lookups: [503, 'Too many unknown API keys from this address. Try again shortly.'],
  database_unavailable: [
    503,
    'API keys cannot be checked or changed at the moment. Try again shortly.',
  ],
} as const satisfies Record<string, Refusal>

/** The code of a refusal, to branch on. Codes are stable; sentences may change. */
export type ErrorCode = keyof typeof refusals

/** Returns the error code of the challenge that a refusal comes with; `undefined` if it has no challenge. */
export function challengeOf(code: ErrorCode): Challenge | undefined {
  const [, , challenge]: Refusal = refusals[code]
  return challenge
}

/** The error codes that OAuth clients read (RFC 6749, sections 4.1.2.1 and 5.2; RFC 6750, section 3.1). */
export type OAuthError = NonNullable<Challenge> | 'invalid_client' | 'temporarily_unavailable'

/** Returns the error code of OAuth for a refusal. A client that authenticates by its secret has sent no token. */
export function oauthErrorOf(code: ErrorCode, scheme: 'Bearer' | 'Basic'): OAuthError {
  const [status]: Refusal = refusals[code]
  if (status === 429 || status === 503) return 'temporarily_unavailable'
  if (status === 401 && scheme === 'Basic') return 'invalid_client'
  return challengeOf(code) ?? (status === 401 ? 'invalid_client' : 'invalid_request')
}
