import { STATUS_CODES, type ServerResponse } from 'node:http'

import {
  InvalidInputError,
  MethodNotAllowedError,
  MissingPermissionError,
  RateLimitedError,
  TooManyAttemptsError,
  type ApiKeysError,
  type ErrorCode,
} from '../errors'
import { createInterner } from '../keys/interner'
import { fieldsOf, setFields } from '../limits/fields'

interface Answer {
  /** The error code of the challenge (RFC 6750, section 3.1); `null` for a challenge without one. */
  challenge?: 'invalid_request' | 'invalid_token' | 'insufficient_scope' | null
  headers?: Record<string, string>
  /** The problem type; about:blank unless it is registered. */
  type?: string
}

const problemTypes = 'https://iana.org/assignments/http-problem-types'

/** In seconds; more would be over what timers can, 2^31 milliseconds, and clients would not wait at all. */
const longestRetryAfter = 2_147_483

const tryShortly: Answer = { headers: { 'Retry-After': '1' } }

/** The challenge and the fields with which HTTP answers a refusal, besides its status. */
const answers: Partial<Record<ErrorCode, Answer>> = {
  missing_credential: { challenge: null },
  not_signed_in: { challenge: null },
  malformed_credential: { challenge: 'invalid_request' },
  multiple_credentials: { challenge: 'invalid_request' },
  invalid_api_key: { challenge: 'invalid_token' },
  missing_permission: { challenge: 'insufficient_scope' },
  // draft-ietf-httpapi-ratelimit-headers-10
  rate_limited: { type: `${problemTypes}#quota-exceeded` },
  too_many_attempts: { type: `${problemTypes}#abnormal-usage-detected` },
  unsupported_media_type: {
    headers: { Accept: 'application/json', 'Accept-Encoding': 'gzip, deflate' },
  },
  limiter_unavailable: tryShortly,
  grantable_unavailable: tryShortly,
  too_many_lookups: tryShortly,
  database_unavailable: tryShortly,
}

/** Completes the header fields of an error: a challenge names the realm. */
export function toRefusal(error: ApiKeysError, realm: string): ApiKeysError {
  const { challenge, headers } = answers[error.code] ?? {}

  error.headers = {
    ...headers,
    ...(challenge !== undefined && {
      'WWW-Authenticate': formatChallenge(error, challenge, realm),
    }),
    ...((error instanceof RateLimitedError || error instanceof TooManyAttemptsError) && {
      'Retry-After': String(Math.min(error.retryAfterSeconds, longestRetryAfter)),
    }),
    ...(error instanceof RateLimitedError && fieldsOf(error.limits, error.limits)),
    ...(error instanceof MethodNotAllowedError && { Allow: error.allowed.join(', ') }),
  }
  return error
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
 * Answers with a problem document (RFC 9457). Its `type` is the default, about:blank, but for what a draft registers. So
 * `title` is the status's own phrase; a program branches on `code`.
 */
export function sendProblem(res: ServerResponse, refusal: ApiKeysError) {
  const { status, headers, code, message } = refusal
  const { type } = answers[code] ?? {}
  const problem = {
    ...(type !== undefined && { type }),
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
