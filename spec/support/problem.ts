import { STATUS_CODES } from 'node:http'

import { ApiKeysError, InvalidInputError, type ErrorCode, type InputFault } from '../../lib'

/** The challenges that are always the same. The challenge of `missing_permission` names the permissions. */
const challenges: Partial<Record<ErrorCode, string>> = {
  missing_credential: 'Bearer realm="api"',
  not_signed_in: 'Bearer realm="api"',
  malformed_credential: 'Bearer realm="api", error="invalid_request"',
  multiple_credentials: 'Bearer realm="api", error="invalid_request"',
  invalid_api_key: 'Bearer realm="api", error="invalid_token"',
}

interface Answer {
  status: number
  headers: Record<string, string>
  body: unknown
}

/**
 * Expects an answer to be the refusal of a code, by its status, its challenge and `Cache-Control`. The problem document
 * has only the `extra` members besides. `refusals.spec.ts` checks the sentence of each code.
 *
 * @example
 * expectProblem(answer, 'missing_permission', { missing: ['READ_BLOCK'] })
 */
export function expectProblem(answer: Answer, code: ErrorCode, extra: object = {}) {
  const { status, message } = new ApiKeysError(code)

  expect(answer.body).toEqual({
    title: STATUS_CODES[status],
    status,
    detail: message,
    code,
    ...extra,
  })
  expect(answer.status).toBe(status)
  expect(answer.headers['content-type']).toBe('application/problem+json')
  expect(answer.headers['cache-control']).toBe('no-store')
  if (code !== 'missing_permission') {
    expect(answer.headers['www-authenticate']).toBe(challenges[code])
  }
}

/**
 * Expects an answer to name the faults of its input, in this order.
 *
 * @example
 * expectFaults(answer, { '#/name': 'is required' })
 */
export function expectFaults(answer: Answer, faults: Record<string, string>) {
  const errors: InputFault[] = Object.entries(faults).map(([pointer, message]) => ({
    pointer,
    message,
  }))

  expectProblem(answer, 'invalid_input', { detail: new InvalidInputError(errors).message, errors })
}
