import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import { isNativeError } from 'node:util/types'

import {
  AlreadyCreatedError,
  ApiKeysError,
  challengeOf,
  InvalidInputError,
  MissingPermissionError,
  RateLimitedError,
  TooManyApiKeysError,
  type ErrorCode,
} from '../errors'
import { setFields } from '../limits/fields'
import type { Settings } from '../read-options'

/** The part that answers refusals. */
export type Answers = ReturnType<typeof createAnswers>

/**
 * Answers refusals for one app: with its realm, and in its own way if it has an `onRefusal`. Without that, `send` answers them, by default
 * with problem documents. The challenge names the scheme by which a client authenticates.
 */
export function createAnswers(
  { realm, onRefusal }: Pick<Settings, 'realm' | 'onRefusal'>,
  send = sendProblem,
  scheme: 'Bearer' | 'Basic' = 'Bearer',
) {
  // Only the realm can hold characters that need a quoted-pair.
  const bareChallenge = `${scheme} realm="${realm.replaceAll(/["\\]/g, '\\$&')}"`

  /** Adds the challenge to the header fields of a refusal (RFC 6750, section 3). */
  function withChallenge(error: ApiKeysError): ApiKeysError {
    const code = challengeOf(error.code)
    // A challenge of Basic belongs to a 401, and does not say why.
    if (code === undefined || (scheme === 'Basic' && error.status !== 401)) return error

    let challenge = bareChallenge
    if (code !== null && scheme === 'Bearer') challenge += `, error="${code}"`
    if (error instanceof MissingPermissionError) challenge += `, scope="${error.needed.join(' ')}"`
    error.headers = { ...error.headers, 'WWW-Authenticate': challenge }
    return error
  }

  /** Returns a failure in the form that Express takes: an error, with status and header fields if it is a refusal. */
  function toError(failure: unknown): Error {
    return failure instanceof ApiKeysError ? withChallenge(failure) : ensureError(failure)
  }

  /** Answers a refusal, or lets the app answer it. Passes all other failures on to the app. */
  function refuse(
    failure: unknown,
    req: IncomingMessage,
    res: ServerResponse,
    next: (error?: unknown) => void,
  ) {
    const error = toError(failure)
    // The app may have answered already, for example with a time-out, or have given the guard nothing that can answer.
    const isOurs =
      error instanceof ApiKeysError && !res.headersSent && typeof res.end === 'function'
    if (!isOurs) return next(error)
    if (!onRefusal) return send(res, error)

    const answerByApp = async () => onRefusal(error, req, res, next)
    answerByApp().catch((failure: unknown) => next(toError(failure)))
  }

  return { refuse, toError, withChallenge }
}

/** The problem types of refusals that have a registered one (draft-ietf-httpapi-ratelimit-headers-10). */
const problemTypes: Partial<Record<ErrorCode, string>> = {
  rate_limited: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
  too_many_attempts: 'https://iana.org/assignments/http-problem-types#abnormal-usage-detected',
}

/**
 * Answers with a problem document (RFC 9457). A refusal without a registered type has the default, about:blank, and so the
 * phrase of its status for a title. Programs branch on `code`.
 */
function sendProblem(res: ServerResponse, refusal: ApiKeysError) {
  sendRefusal(res, refusal, 'application/problem+json', problemOf(refusal))
}

/** Answers a refusal with its status, its header fields and a body. */
export function sendRefusal(
  res: ServerResponse,
  { status, headers }: ApiKeysError,
  type: string,
  json: object,
) {
  // As text, because test doubles of a response show no Buffer.
  const body = JSON.stringify(json)

  res.statusCode = status
  setFields(res, headers)
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Content-Type', type)
  res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}

/** Returns the problem document of a refusal. */
export function problemOf(refusal: ApiKeysError) {
  const { status, code, message } = refusal
  const type = problemTypes[code]
  return {
    ...(type !== undefined && { type }),
    title: STATUS_CODES[status],
    status,
    detail: message,
    code,
    ...(refusal instanceof MissingPermissionError && {
      missing: refusal.missing,
      ...(refusal.anyOf && { anyOf: refusal.anyOf }),
    }),
    ...(refusal instanceof RateLimitedError && { 'violated-policies': refusal.violated }),
    ...(refusal instanceof AlreadyCreatedError && { apiKey: refusal.apiKey }),
    ...((refusal instanceof InvalidInputError || refusal instanceof TooManyApiKeysError) && {
      errors: refusal.errors,
    }),
  }
}

/**
 * Returns a failure as an error. `next()` with nothing, or with the text 'route' or 'router', lets a request pass in
 * Express. A promise of the app that rejects with such a value must not open a guard.
 */
export function ensureError(failure: unknown): Error {
  // Node's own errors are no instances of the `Error` of another realm, such as Jest's.
  if (failure instanceof Error || isNativeError(failure)) return failure

  return new Error('express-api-keys: a function of the app failed without an Error', {
    cause: failure,
  })
}

/**
 * Makes the refusal of a request without a stack trace. The trace would say nothing about the request, and costs more than all
 * else that a refusal takes.
 */
export function withoutStack<Refused extends ApiKeysError>(make: () => Refused): Refused {
  const { stackTraceLimit } = Error
  // If Node runs with `--frozen-intrinsics`, this changes nothing.
  Reflect.set(Error, 'stackTraceLimit', 0)
  try {
    return make()
  } finally {
    Reflect.set(Error, 'stackTraceLimit', stackTraceLimit)
  }
}
