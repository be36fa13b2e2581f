import { STATUS_CODES } from 'node:http'

import type { NextFunction, Request, Response } from 'express'
import { ApiKeysError } from 'express-api-keys'
import { ConnectionError } from 'sequelize'

/** A request that this app refuses, with the status and the sentence of the answer. */
export class Problem extends Error {
  override name = 'Problem'

  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail)
  }
}

/** The last route: refuses every request that no route before it has answered. */
export function refuseUnknownPath(req: Request): never {
  throw new Problem(404, `There is no ${req.method} ${req.path} here`)
}

/** The last middleware: answers errors as problem documents (RFC 9457), like the library. */
export function answerProblem(error: unknown, _req: Request, res: Response, next: NextFunction) {
  if (res.headersSent) return next(error)

  const { status, detail } = explain(error)
  // Only the stack, because some errors carry the request's body or the values of a query.
  if (status === 500) console.error(error instanceof Error ? error.stack : error)
  if (error instanceof ApiKeysError) res.set(error.headers)
  const problem = { title: STATUS_CODES[status], status, detail }
  res.status(status).type('application/problem+json').send(JSON.stringify(problem))
}

function explain(error: unknown): { status: number; detail: string } {
  if (error instanceof ConnectionError) return { status: 503, detail: 'Try again in a moment' }
  // Passport passes on what the library could not decide, such as an outage of the database.
  if (error instanceof ApiKeysError) return { status: error.status, detail: error.message }

  // Express, its parsers and Passport set a status if the client is to blame.
  const status = error instanceof Error && 'status' in error ? Number(error.status) : 500
  if (status === 401) return { status, detail: 'The credentials are missing or wrong' }
  if (error instanceof Error && status >= 400 && status < 500) {
    return { status, detail: error.message }
  }
  return { status: 500, detail: 'Something went wrong on our side' }
}
