import { raw, type Request, type Response } from 'express'

import { ApiKeysError } from '../errors'
import { bodyLimits } from '../http/json-body'

const parseRaw = raw({ limit: bodyLimits.usual, type: () => true })

/**
 * Returns the parameters of a form (RFC 6749, appendix B). A parameter may be there once, and one without a value counts as left out (RFC
 * 6749, section 3.2). Parameters of the query do not count, because addresses are logged.
 */
export async function readForm(req: Request, res: Response): Promise<Map<string, string>> {
  if (!req.is('application/x-www-form-urlencoded')) throw malformed()
  if (Number(req.headers['content-length']) > bodyLimits.usual) throw tooLarge()
  await new Promise<void>((resolve, reject) => {
    parseRaw(req, res, (error?: unknown) => (error ? reject(explain(error)) : resolve()))
  })
  const body: unknown = req.body
  // The body has a key. No later part of the app needs it.
  req.body = undefined
  const parameters = new Map<string, string>()
  for (const [name, value] of parametersOf(body)) {
    if (typeof value !== 'string' || parameters.has(name)) throw malformed()
    parameters.set(name, value)
  }
  for (const [name, value] of parameters) if (value === '') parameters.delete(name)
  return parameters
}

/** Returns the token that a request is about. */
export function tokenOf(parameters: ReadonlyMap<string, string>): string {
  const token = parameters.get('token')
  if (token === undefined) throw malformed()
  return token
}

/** Returns the refusal of a request that is not made as it should be. */
export function malformed(): ApiKeysError {
  return new ApiKeysError('malformed_token_request')
}

/** Returns names and values of a body: its bytes, or what a parser of the app has made of it. That parser makes lists of repeated names. */
function parametersOf(body: unknown): Iterable<[string, unknown]> {
  if (typeof body === 'string' || Buffer.isBuffer(body)) return new URLSearchParams(String(body))
  return Object.entries(Object(body))
}

/** Replaces an error of the parser, because it holds the body. */
function explain(error: unknown): unknown {
  const { status } = Object(error) as { status?: unknown }
  if (status === 413) return tooLarge()
  return typeof status === 'number' && status < 500 ? malformed() : error
}

function tooLarge(): ApiKeysError {
  return new ApiKeysError('body_too_large')
}
