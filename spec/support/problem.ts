import { STATUS_CODES } from 'node:http'

import { ApiKeysError, InvalidInputError, type ErrorCode, type InputFault } from '../../lib'

interface Answer {
  status: number
  headers: Record<string, string>
  body: unknown
}

/**
 * Expects an answer to be the refusal of a code: its status, its problem document with nothing else but the `extra` members,
 * and that no cache may keep it. `refusals.spec.ts` holds the sentence of each code to the letter.
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
