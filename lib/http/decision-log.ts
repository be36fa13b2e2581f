import type { ServerResponse } from 'node:http'

import createDebug from 'debug'

import {
  ApiKeysError,
  InvalidApiKeyError,
  MissingPermissionError,
  RateLimitedError,
} from '../errors'
import type { ImportedKeys } from '../importing/imported-keys'
import { createKeyMask, type SecretFormat } from '../keys/secret'
import type { MaybePromise } from '../options'
import type { Caller } from './caller'
import { maskToken } from './imported-tokens'
import type { GuardedRequest } from './request'

const log = createDebug('express-api-keys:http')

/** Returns the refusal of a request; `null` if the request may pass. With a cached key it returns at once. */
export type Check = (
  req: GuardedRequest,
  res: ServerResponse | undefined,
) => MaybePromise<ApiKeysError | null>

/** The part that prints a line for each decision, if `DEBUG` asks for it. */
export type DecisionLog = ReturnType<typeof createDecisionLog>

interface DecisionLogParts {
  format: Pick<SecretFormat, 'markers'>
  /** `undefined` in an app without imported keys. */
  imported: Pick<ImportedKeys, 'hasShape'> | undefined
  authenticator: { recall(req: object): Caller | undefined }
}

/**
 * Makes the part that prints decisions. `DEBUG` is read once, when the instance is made, so that decisions cost nothing unless they are
 * printed. A line has no secret: keys in the path are masked, and the query is left out.
 */
export function createDecisionLog({ format, imported, authenticator }: DecisionLogParts) {
  const { enabled } = log
  const maskKeys = createKeyMask(format)

  function maskPath(path: string): string {
    const masked = maskKeys(path)
    if (imported === undefined) return masked
    // The keys of other systems have no marker, so each part of the path is compared with their shapes.
    const parts = masked.split('/')
    return parts.map((part) => (imported.hasShape(decode(part)) ? maskToken(part) : part)).join('/')
  }

  function print(req: GuardedRequest, demand: string, refusal: unknown) {
    const { method, url = '' } = req
    // Express keeps the whole path here, also behind a router.
    const { originalUrl = url } = req as { originalUrl?: string }
    const [path = ''] = originalUrl.split('?', 1)
    const caller = authenticator.recall(req)
    const id = caller?.accepted?.key.row.id ?? caller?.refused?.id
    const key = id === undefined ? 'no key' : `key ${id}`
    const decision = refusal === null ? 'passes' : `refused: ${describeFailure(refusal)}`
    log('%s %s %s; %s; %s', method, maskPath(path), demand, key, decision)
  }

  return {
    /** True if decisions are printed. */
    enabled,

    /** Prints the decision about a request. The refusal is `null` if the request passes. */
    print,

    /** Returns a check that prints its decisions; the same check if nothing is printed. */
    follow(check: Check, demand: string): Check {
      if (!enabled) return check

      function settle(req: GuardedRequest, refusal: ApiKeysError | null) {
        print(req, demand, refusal)
        return refusal
      }
      function fail(req: GuardedRequest, error: unknown): never {
        print(req, demand, error)
        throw error
      }
      return function printingCheck(req, res) {
        try {
          const refusal = check(req, res)
          if (!(refusal instanceof Promise)) return settle(req, refusal)
          return refusal.then(
            (refusal) => settle(req, refusal),
            (error: unknown) => fail(req, error),
          )
        } catch (error) {
          return fail(req, error)
        }
      }
    },
  }
}

/** Returns a part of a path as clients mean it, or as it is if it cannot be decoded. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Returns the code of a refusal, and the details that its code leaves out. It has no secret. */
export function describeRefusal(error: ApiKeysError): string {
  if (error instanceof InvalidApiKeyError) return `${error.code} (${error.reason})`
  if (error instanceof MissingPermissionError) return `${error.code} (${error.missing.join(', ')})`
  if (error instanceof RateLimitedError) return `${error.code} (${error.violated.join(', ')})`
  return error.code
}

function describeFailure(failure: unknown): string {
  if (failure instanceof ApiKeysError) return `${failure.status} ${describeRefusal(failure)}`
  // An error of the app may have anything in its message.
  return `the app threw ${failure instanceof Error ? failure.name : typeof failure}`
}
