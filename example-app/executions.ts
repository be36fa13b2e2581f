import type { Request } from 'express'

import { isJsonObject, type JsonObject } from './json'
import { Problem } from './problems'

/**
 * Answers the inputs of an execution, `{ "inputs": { "name": "Ada" } }`, from a body that `json()` has
 * parsed. No body is no inputs.
 */
export function readInputs(req: Pick<Request, 'is' | 'body'>): JsonObject {
  // False for a form or a text, which would else pass for no body; `null` for none.
  if (req.is('json') === false) throw new Problem(415, 'Send Content-Type: application/json')

  const body: unknown = req.body ?? {}
  const inputs = isJsonObject(body) ? (body.inputs ?? {}) : undefined
  if (!isJsonObject(inputs)) {
    throw new Problem(422, 'Send a JSON object such as { "inputs": { "name": "Ada" } }')
  }
  return inputs
}

const LONGEST_PACE_MS = 60_000

/** Answers how long each step of a run is to take, `{ "paceMs": 5000 }`; one second unless the body says so. */
export function readPace({ body }: Pick<Request, 'body'>): number {
  const paceMs: unknown = isJsonObject(body) ? (body.paceMs ?? 1_000) : 1_000
  if (typeof paceMs !== 'number' || !(paceMs >= 0 && paceMs <= LONGEST_PACE_MS)) {
    throw new Problem(422, `paceMs must be a number from 0 to ${LONGEST_PACE_MS}`)
  }
  return paceMs
}
