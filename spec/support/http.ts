import type { Server } from 'node:http'

import type { Express } from 'express'
import request, { type Response, type Test } from 'supertest'

const methods = ['get', 'head', 'options', 'post', 'put', 'patch', 'delete'] as const

export type Method = (typeof methods)[number]

type Send = (path: string, body?: string | object) => Test

/** Sends requests to an app. The second argument of `get` is the query. */
export type Caller = Record<Method, Send>

export interface Http extends Caller {
  /** Sends as a user who is signed in. */
  as(user: string): Caller
  /** Sends with an API key. */
  with(key: string): Caller
  /** Sends with these headers. */
  set(headers: Record<string, string>): Caller
  /** Returns the same callers for another app. */
  to(app: Express): Http
}

/** Makes the callers of an app, which `target` returns, or of the server that it listens on. */
export function createHttp(
  target: () => Express | Server,
  check?: (method: Method, path: string, answer: Response) => void,
): Http {
  const callerWith = (headers: Record<string, string>) =>
    Object.fromEntries(
      methods.map((method): [Method, Send] => [
        method,
        (path, body) => {
          const sent = request(target())[method](path).set(headers)
          if (check) sent.expect((answer) => check(method, path, answer))
          if (body === undefined) return sent
          return method === 'get' ? sent.query(body) : sent.send(body)
        },
      ]),
    ) as Caller

  return {
    ...callerWith({}),
    as: (user) => callerWith({ 'X-User': user }),
    with: (key) => callerWith(bearer(key)),
    set: callerWith,
    to: (app) => createHttp(() => app),
  }
}

/** The header that carries a key. */
export function bearer(key: string) {
  return { Authorization: `Bearer ${key}` }
}
