import type { ServerResponse } from 'node:http'

import { RateLimitedError, type ApiKeysError, type LimitState } from '../errors'
import type { NamedLimit } from '../keys/limits'
import { fieldsOf, setFields } from '../limits/fields'
import type { Consumption } from '../limits/memory'
import type { RateLimiter } from '../limits/rate-limiter'
import type { MaybePromise } from '../options'
import type { UsageRecorder } from '../usage/recorder'
import type { Acceptance } from '../verification/verified-key'
import { withoutStack } from './answer'
import type { Accepted } from './caller'

/** The part that counts requests towards the limits of their keys. */
export type RateLimits = ReturnType<typeof createRateLimits>

/**
 * Counts requests towards the limits of their keys, and writes the state of the limits on the responses. A key's own limits replace
 * the app's limits of the same names: see `limitsOf` in keys/limits.ts.
 */
export function createRateLimits(
  rateLimiter: RateLimiter,
  { noteRateLimited }: Pick<UsageRecorder, 'noteRateLimited'>,
) {
  return {
    /**
     * Counts a request for as many uses as it costs, less the uses that it was counted for before. Returns the refusal if that is
     * too much, `null` if the request may pass: at once if the counts are in this process.
     */
    countRequest(accepted: Accepted, cost: number): MaybePromise<ApiKeysError | null> {
      const { row } = accepted.key
      const due = cost - accepted.caller.countedUses
      if (due <= 0) return null

      const consumption = rateLimiter.consume({ key: row, limits: row.policy.limits, cost: due })
      return consumption instanceof Promise
        ? consumption.then((consumption) => settle(accepted, due, consumption))
        : settle(accepted, due, consumption)
    },

    /** Counts further uses, and returns the state of the limits. Throws a `RateLimitedError` if that is too much. */
    async consume(
      { row, caller }: Acceptance,
      cost: number,
      res: ServerResponse | undefined,
    ): Promise<readonly LimitState[]> {
      const { limits } = row.policy
      if (limits.length === 0) return []

      const consumption = await rateLimiter.consume({ key: row, limits, cost })
      if (!consumption.isAllowed) {
        noteRateLimited(row, caller)
        throw rateLimited(consumption, cost)
      }
      showState(res, limits, consumption)
      return consumption.limits
    },
  }
}

function settle({ key, caller }: Accepted, cost: number, consumption: Consumption) {
  if (!consumption.isAllowed) return rateLimited(consumption, cost)
  caller.countedUses += cost
  showState(caller.response, key.row.policy.limits, consumption)
  return null
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
