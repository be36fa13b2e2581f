import type { ServerResponse } from 'node:http'

import { RateLimitedError, type ApiKeysError, type LimitState } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { NamedLimit } from '../keys/limits'
import { fieldsOf, setFields } from '../limits/fields'
import type { Consumption, Use } from '../limits/memory'
import type { RateLimiter } from '../limits/rate-limiter'
import type { MaybePromise } from '../options'
import type { UsageRecorder } from '../usage/recorder'
import { AcceptedKey, type VerifiedApiKey } from '../verification/verified-key'
import { withoutStack } from './answer'
import type { Accepted } from './caller'

/** The part that counts requests towards the limits of their keys. */
export type RateLimits = ReturnType<typeof createRateLimits>

interface RateLimitsParts {
  rateLimiter: RateLimiter
  /** Counts a use of a good key as refused by a limit. */
  noteRateLimited: UsageRecorder['noteRateLimited']
  emitter: Pick<Emitter, 'emit' | 'hasListener'>
}

/**
 * Counts requests towards the limits of their keys, and writes the state of the limits on the responses. A key's own limits replace
 * the app's limits of the same names: see `limitsOf` in keys/limits.ts.
 */
export function createRateLimits({ rateLimiter, noteRateLimited, emitter }: RateLimitsParts) {
  /** Lets a request pass. A later guard may still refuse it, and so its use is reported when it ends. */
  function pass({ apiKey, caller }: Accepted): null {
    if (emitter.hasListener('verified')) {
      const address = caller.ip
      caller.reportOnce(() => emitter.emit('verified', { apiKey, address }))
    }
    return null
  }

  function settle(
    accepted: Accepted,
    { limits, cost }: Use,
    consumption: Consumption,
  ): ApiKeysError | null {
    const { apiKey, caller } = accepted
    if (!consumption.isAllowed) {
      noteRateLimited(apiKey, caller)
      return rateLimited(consumption, cost)
    }
    caller.countedUses += cost
    showState(caller.response, limits, consumption)
    return pass(accepted)
  }

  return {
    /**
     * Counts a request for as many uses as it costs, less the uses that it was counted for before. Returns the refusal if that is
     * too much, `null` if the request may pass: at once if the counts are in this process.
     */
    countRequest(accepted: Accepted, cost: number): MaybePromise<ApiKeysError | null> {
      const { apiKey, caller } = accepted
      const key = AcceptedKey.rowOf(apiKey)
      const { limits } = key.policy
      const due = cost - caller.countedUses
      if (limits.length === 0 || due <= 0) return pass(accepted)

      const use = { key, limits, cost: due }
      const consumption = rateLimiter.consume(use)
      return consumption instanceof Promise
        ? consumption.then((consumption) => settle(accepted, use, consumption))
        : settle(accepted, use, consumption)
    },

    /** Counts further uses, and returns the state of the limits. Throws a `RateLimitedError` if that is too much. */
    async consume(
      apiKey: VerifiedApiKey,
      cost: number,
      res: ServerResponse | undefined,
    ): Promise<readonly LimitState[]> {
      const key = AcceptedKey.rowOf(apiKey)
      const { limits } = key.policy
      if (limits.length === 0) return []

      const consumption = await rateLimiter.consume({ key, limits, cost })
      if (!consumption.isAllowed) {
        if (AcceptedKey.isOne(apiKey)) noteRateLimited(apiKey, AcceptedKey.callerOf(apiKey))
        throw rateLimited(consumption, cost)
      }
      showState(res, limits, consumption)
      return consumption.limits
    },
  }
}

function rateLimited({ limits }: Consumption, cost: number): ApiKeysError {
  const error = withoutStack(() => new RateLimitedError(limits, cost))
  error.headers = { ...error.headers, ...fieldsOf(limits, limits) }
  return error
}

function showState(
  res: ServerResponse | undefined,
  limits: readonly NamedLimit[],
  { limits: states }: Consumption,
) {
  if (states.length > 0) setFields(res, fieldsOf(limits, states))
}
