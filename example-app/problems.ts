import { STATUS_CODES } from 'node:http'

import type { NextFunction, Request, Response } from 'express'
import { ConnectionError } from 'sequelize'

import { ExecutionError } from './run-block'

/** A request that this app refuses, with the status and the sentence that it answers. */
export class Problem extends Error {
  override name = 'Problem'

  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail)
  }
}

/** The last route: whatever came this far, nobody knows. */
export function refuseUnknownPath(req: Request): never {
  throw new Problem(404, `There is no ${req.method} ${req.path} here`)
}

/** The last middleware: answers errors as problem documents (RFC 9457), the format of the library too. */
export function answerProblem(error: unknown, _req: Request, res: Response, next: NextFunction) {
  if (res.headersSent) return next(error)

  const { status, detail } = explain(error)
  // The stack and nothing more: some errors carry the request's body or the query's values.
  if (status === 500) console.error(error instanceof Error ? error.stack : error)
  if (status === 503) res.set('Retry-After', '1')
  const title = STATUS_CODES[status]
  res
    .status(status)
    .type('application/problem+json')
    .send(JSON.stringify({ title, status, detail }))
}

function explain(error: unknown): { status: number; detail: string } {
  if (error instanceof Problem) return { status: error.status, detail: error.message }
  if (error instanceof ExecutionError) return { status: 422, detail: error.message }
  if (isOutage(error)) return { status: 503, detail: 'Try again in a moment' }

  // Express, its parsers and Passport say so when the client is to blame.
  const status = error instanceof Error && 'status' in error ? Number(error.status) : 500
  if (status === 401) return { status, detail: 'The credentials are wrong' }
  if (error instanceof SyntaxError && status === 400) {
    return { status, detail: 'The body is not valid JSON' }
  }
  if (error instanceof Error && status >= 400 && status < 500) {
    return { status, detail: error.message }
  }
  return { status: 500, detail: 'Something went wrong on our side' }
}

/** Whether the database is out of reach, for Sequelize or for the session store's own pool. */
function isOutage(error: unknown): boolean {
  if (error instanceof ConnectionError) return true
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ECONN')
}
