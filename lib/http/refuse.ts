import { isNativeError } from 'node:util/types'

import type { NextFunction, Request, Response } from 'express'

import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { Settings } from '../options'
import { sendProblem, toRefusal } from './problems'

/** Answers a refusal, or has the app answer it; passes on to the app what is no refusal of ours. */
export type Refuse = (failure: unknown, req: Request, res: Response, next: NextFunction) => void

export function createRefuse({ realm, onRefusal }: Pick<Settings, 'realm' | 'onRefusal'>): Refuse {
  return function refuse(failure, req, res, next) {
    if (!(failure instanceof ApiKeysError)) return next(ensureError(failure))

    const refusal = toRefusal(failure, realm)
    // The app has answered meanwhile, with a time-out say, and there is nothing left to answer.
    if (res.headersSent) return next(refusal)
    if (!onRefusal) return sendProblem(res, refusal)

    // An async function, so that `onRefusal` may be one too: its rejection reaches the app as a throw does.
    async function answer() {
      await onRefusal?.(refusal, req, res, next)
    }
    answer().catch((error: unknown) => next(toError(error, realm)))
  }
}

/** Tells whoever listens of a request that is refused. */
export function tellOfDenial(
  emitter: Pick<Emitter, 'emit' | 'isHeard'>,
  failure: unknown,
  req: Request,
) {
  if (!(failure instanceof ApiKeysError) || !emitter.isHeard('denied')) return

  emitter.emit('denied', {
    apiKey: req.apiKey ? { id: req.apiKey.id, userId: req.apiKey.userId } : null,
    error: failure,
    reason: failure instanceof InvalidApiKeyError ? failure.reason : null,
    address: req.ip,
  })
}

/** Gives a failure the form in which Express takes it: an error, and a refusal its status and headers. */
export function toError(failure: unknown, realm: string): Error {
  return failure instanceof ApiKeysError ? toRefusal(failure, realm) : ensureError(failure)
}

/**
 * Makes sure that a failure is an error. To Express, `next()` with nothing, and with the text 'route' or 'router', means
 * that a request may pass: a promise of the app's that rejects with such must not open a guard.
 */
export function ensureError(failure: unknown): Error {
  // Node's own are no instances of the `Error` of another realm, such as Jest's.
  if (failure instanceof Error || isNativeError(failure)) return failure

  return new Error('express-api-keys: a function of the app failed without an Error', {
    cause: failure,
  })
}

type Functions = Record<string, (...args: never[]) => Promise<unknown>>

/** Has the errors of functions carry what Express's error handler reads, so that an app may pass them to `next`. */
export function withRefusals<Group extends Functions>(functions: Group, realm: string): Group {
  const wrapped = Object.entries(functions).map(([name, call]) => [
    name,
    async (...args: never[]) => {
      try {
        return await call(...args)
      } catch (error) {
        throw error instanceof ApiKeysError ? toRefusal(error, realm) : error
      }
    },
  ])

  // Each function has its name and type again.
  return Object.fromEntries(wrapped) as Group
}
