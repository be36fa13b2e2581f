import type { ServerResponse } from 'node:http'

import { RateLimitedError, type ApiKeysError, type LimitState } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { NamedLimit } from '../keys/limits'
import type { MaybePromise } from '../options'
import type { Consumption, Use } from '../limits/memory'
import type { RateLimiter } from '../limits/rate-limiter'
import type { UsageRecorder } from '../usage/recorder'
import { AcceptedKey, type VerifiedApiKey } from '../verification/verified-key'
import { withoutStack } from './answer'
import { fieldsOf, setFields } from '../limits/fields'
import type { RequestBearer } from './request-memory'

/** Has the uses of keys counted, and the responses say where the keys stand. */
export interface Charges {
  /**
   * Counts a request for as many uses as it costs, less those that it was counted for before. Returns why it may not pass,
   * `null` if it may: at once where nothing has to be waited for.
   */
  charge(payer: Payer, cost: number): MaybePromise<ApiKeysError | null>
  /** Counts further uses, and returns where the key stands. Throws a `RateLimitedError` where that is too much. */
  consume(
    apiKey: VerifiedApiKey,
    cost: number,
    res: ServerResponse | undefined,
  ): Promise<readonly LimitState[]>
}

/** Whose use is counted. */
interface Payer {
  apiKey: VerifiedApiKey
  bearer: RequestBearer
}

interface ChargesParts {
  rateLimiter: RateLimiter
  /** Counts a use of a good key as refused by a limit. */
  noteRateLimited: UsageRecorder['noteRateLimited']
  emitter: Pick<Emitter, 'emit' | 'isHeard'>
}

export function createCharges({ rateLimiter, noteRateLimited, emitter }: ChargesParts): Charges {
  /** Lets a request pass. A later guard may still refuse it, and so its use is reported when it ends. */
  function pass({ apiKey, bearer }: Payer): null {
    if (emitter.isHeard('verified')) {
      const address = bearer.ip
      bearer.whenAccepted(() => emitter.emit('verified', { apiKey, address }))
    }
    return null
  }

  function settle(
    payer: Payer,
    { limits, cost }: Use,
    consumption: Consumption,
  ): ApiKeysError | null {
    const { apiKey, bearer } = payer
    if (!consumption.isAllowed) {
      noteRateLimited(apiKey, bearer)
      return rateLimited(consumption, cost)
    }
    bearer.notePaid(cost)
    tell(bearer.response, limits, consumption)
    return pass(payer)
  }

  return {
    charge(payer, cost) {
      const { apiKey, bearer } = payer
      const key = AcceptedKey.rowOf(apiKey)
      const { limits } = key.policy
      const due = bearer.owes(cost)
      if (limits.length === 0 || due === 0) return pass(payer)

      const use = { key, limits, cost: due }
      const consumption = rateLimiter.consume(use)
      return consumption instanceof Promise
        ? consumption.then((consumption) => settle(payer, use, consumption))
        : settle(payer, use, consumption)
    },

    async consume(apiKey, cost, res) {
      const key = AcceptedKey.rowOf(apiKey)
      const { limits } = key.policy
      if (limits.length === 0) return []

      const consumption = await rateLimiter.consume({ key, limits, cost })
      if (!consumption.isAllowed) {
        if (AcceptedKey.isOne(apiKey)) noteRateLimited(apiKey, AcceptedKey.bearerOf(apiKey))
        throw rateLimited(consumption, cost)
      }
      tell(res, limits, consumption)
      return consumption.limits
    },
  }
}

function rateLimited({ limits }: Consumption, cost: number): ApiKeysError {
  const error = withoutStack(() => new RateLimitedError(limits, cost))
  error.headers = { ...error.headers, ...fieldsOf(limits, limits) }
  return error
}

function tell(
  res: ServerResponse | undefined,
  limits: readonly NamedLimit[],
  { limits: states }: Consumption,
) {
  if (states.length > 0) setFields(res, fieldsOf(limits, states))
}
