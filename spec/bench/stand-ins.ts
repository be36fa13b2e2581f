import { readFileSync } from 'node:fs'

import type { Request, Response } from 'express'

/** The user that a key in a Map stands for. */
export interface MapEntry {
  id: string
  permissions: string[]
}

/** Reads a file of tokens into a Map, like an app without a database. */
export function readMap(tokens: string): Map<string, MapEntry> {
  const known = readFileSync(tokens, 'latin1').split('\n')
  return new Map(known.map((token, id) => [token, { id: String(id), permissions: ['READ_GRAPH'] }]))
}

/** Makes the function with which passport-http-bearer finds a key in a Map. */
export function findInMap(tokens: string) {
  const map = readMap(tokens)

  return function verify(token: string, done: (error: unknown, user: MapEntry | false) => void) {
    done(null, map.get(token) ?? false)
  }
}

/** Gives the exact answer of our guard to a bad key. The bench compares both. */
export function refuseLikeOurs(_req: Request, res: Response) {
  const problem = {
    title: 'Unauthorized',
    status: 401,
    detail: 'The API key is not valid. It is unknown, revoked, suspended or expired.',
    code: 'invalid_api_key',
  }
  const body = Buffer.from(JSON.stringify(problem))

  res.statusCode = 401
  res.setHeader('WWW-Authenticate', 'Bearer realm="api", error="invalid_token"')
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Content-Type', 'application/problem+json')
  res.setHeader('Content-Length', body.length)
  res.end(body)
}
