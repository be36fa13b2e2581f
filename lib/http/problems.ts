import { STATUS_CODES, type ServerResponse } from 'node:http'

import {
  InvalidInputError,
  MethodNotAllowedError,
  MissingPermissionError,
  RateLimitedError,
  TooManyAttemptsError,
  type ApiKeysError,
  type ErrorCode,
  type Refusal,
} from '../errors'
import { createInterner } from '../keys/interner'
import { fieldsOf } from './rate-limit-fields'

interface Answer {
  status: number
  /** The error code of the challenge (RFC 6750, section 3.1); `null` for a challenge without one. */
  challenge?: 'invalid_request' | 'invalid_token' | 'insufficient_scope' | null
  headers?: Record<string, string>
}

/** What HTTP answers to every refusal. A new code does not compile until it has its row here. */
const answers: Record<ErrorCode, Answer> = {
  missing_credential: { status: 401, challenge: null },
  not_signed_in: { status: 401, challenge: null },
  malformed_credential: { status: 400, challenge: 'invalid_request' },
  multiple_credentials: { status: 400, challenge: 'invalid_request' },
  invalid_api_key: { status: 401, challenge: 'invalid_token' },
  address_not_allowed: { status: 403 },
  missing_permission: { status: 403, challenge: 'insufficient_scope' },
  rate_limited: { status: 429 },
  too_many_attempts: { status: 429 },
  not_an_admin: { status: 403 },
  api_key_not_allowed: { status: 403 },
  cross_site_request: { status: 403 },
  api_key_not_found: { status: 404 },
  method_not_allowed: { status: 405 },
  api_key_suspended: { status: 409 },
  api_key_revoked: { status: 409 },
  too_many_api_keys: { status: 409 },
  audit_trail_not_intact: { status: 409 },
  unsupported_media_type: {
    status: 415,
    headers: { Accept: 'application/json', 'Accept-Encoding': 'gzip, deflate' },
  },
  malformed_json: { status: 400 },
  body_too_large: { status: 413 },
  invalid_input: { status: 422 },
  limiter_unavailable: { status: 503, headers: { 'Retry-After': '1' } },
  grantable_unavailable: { status: 503, headers: { 'Retry-After': '1' } },
  too_many_lookups: { status: 503, headers: { 'Retry-After': '1' } },
  database_unavailable: { status: 503, headers: { 'Retry-After': '1' } },
}

/** Adds to an error what HTTP makes of it. */
export function toRefusal(error: ApiKeysError, realm: string): Refusal {
  const { status, challenge, headers } = answers[error.code]

  return Object.assign(error, {
    status,
    headers: {
      ...headers,
      ...(challenge !== undefined && {
        'WWW-Authenticate': formatChallenge(error, challenge, realm),
      }),
      ...((error instanceof RateLimitedError || error instanceof TooManyAttemptsError) && {
        'Retry-After': String(error.retryAfterSeconds),
      }),
      ...(error instanceof RateLimitedError && fieldsOf(error.limits, error.limits)),
      ...(error instanceof MethodNotAllowedError && { Allow: error.allowed.join(', ') }),
    },
    expose: true as const,
  })
}

/** A challenge as in RFC 6750, section 3. Only the realm can hold characters that need a quoted-pair. */
function formatChallenge(
  error: ApiKeysError,
  code: (Answer['challenge'] & {}) | null,
  realm: string,
): string {
  let challenge = bareChallenges.of(realm)
  if (code) challenge += `, error="${code}"`
  if (error instanceof MissingPermissionError) challenge += `, scope="${error.needed.join(' ')}"`

  return challenge
}

/** By the realm, of which an app has one. */
const bareChallenges = createInterner(
  (realm) => `Bearer realm="${realm.replaceAll(/["\\]/g, '\\$&')}"`,
)

/**
 * Answers with a problem document (RFC 9457). Its `type` is the default, about:blank, so that `title` is the status's
 * own phrase; a program branches on `code`.
 */
export function sendProblem(res: ServerResponse, refusal: Refusal) {
  const { status, headers, code, message } = refusal
  const problem = {
    title: STATUS_CODES[status],
    status,
    detail: message,
    code,
    ...(refusal instanceof MissingPermissionError && { missing: refusal.missing }),
    ...(refusal instanceof RateLimitedError && { 'violated-policies': refusal.violated }),
    ...(refusal instanceof InvalidInputError && { errors: refusal.errors }),
  }
  // As text: test doubles of a response show no Buffer.
  const body = JSON.stringify(problem)

  res.statusCode = status
  setFields(res, headers)
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Content-Type', 'application/problem+json')
  res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}

/** Sets fields of a response, if it is still to be sent. */
export function setFields(res: ServerResponse | undefined, fields: Refusal['headers']) {
  if (!res || res.headersSent) return
  for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
}
