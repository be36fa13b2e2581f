import type { IncomingMessage, ServerResponse } from 'node:http'
import { isNativeError } from 'node:util/types'

import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { Settings } from '../options'
import type { Authenticator } from './authentication'
import { sendProblem, toRefusal } from './problems'

/** Answers a refusal, or has the app answer it; passes on to the app what is no refusal of ours. */
export type Refuse = (
  failure: unknown,
  req: IncomingMessage,
  res: ServerResponse,
  next: (error?: unknown) => void,
) => void

export function createRefuse({ realm, onRefusal }: Pick<Settings, 'realm' | 'onRefusal'>): Refuse {
  return function refuse(failure, req, res, next) {
    if (!(failure instanceof ApiKeysError)) return next(ensureError(failure))

    const refusal = toRefusal(failure, realm)
    // The app has answered meanwhile, for example with a time-out, or gave the guard nothing that can answer.
    if (res.headersSent || typeof res.end !== 'function') return next(refusal)
    if (!onRefusal) return sendProblem(res, refusal)

    // An async function, so that `onRefusal` may be one too: its rejection reaches the app as a throw does.
    async function answer() {
      await onRefusal?.(refusal, req, res, next)
    }
    answer().catch((error: unknown) => next(toError(error, realm)))
  }
}

interface Denials {
  emitter: Pick<Emitter, 'emit' | 'isHeard'>
  authenticator: Pick<Authenticator, 'recall'>
}

/** Reports a request that is refused to the listeners of `denied`. */
export function tellOfDenial(
  { emitter, authenticator }: Denials,
  failure: unknown,
  req: IncomingMessage,
) {
  if (!(failure instanceof ApiKeysError) || !emitter.isHeard('denied')) return

  const bearer = authenticator.recall(req)
  const apiKey = bearer?.accepted?.apiKey ?? bearer?.refused
  emitter.emit('denied', {
    apiKey: apiKey ? { id: apiKey.id, userId: apiKey.userId } : null,
    error: failure,
    reason: failure instanceof InvalidApiKeyError ? failure.reason : null,
    address: bearer?.ip ?? null,
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
