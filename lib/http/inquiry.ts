import type { ServerResponse } from 'node:http'

import type { ApiKeysError } from '../errors'
import type { MaybePromise } from '../options'
import type { Settings } from '../read-options'
import type { UsageRecorder } from '../usage/recorder'
import type { Authenticator } from './authentication'
import type { Charges } from './rate-limits'
import type { GuardedRequest } from './request'
import type { Authentication, Demand } from './request-memory'

/** Asks if a request may pass. Returns why not, `null` if it may: at once, unless something has to be waited for. */
export type Inquiry = (
  req: GuardedRequest,
  res: ServerResponse | undefined,
) => MaybePromise<ApiKeysError | null>

/** Who may pass besides requests with a good key, and what a request costs. */
interface Terms {
  optional?: boolean | undefined
  orSignedIn?: boolean | undefined
  cost?: number | undefined
}

export interface InquiryParts {
  authenticator: Authenticator
  charges: Charges
  /** Counts a use of a good key as denied. */
  noteDenied: UsageRecorder['noteDenied']
  settings: Pick<Settings, 'currentUser'>
}

/** Makes the inquiry of one guard, by what it demands of a key. */
export function createInquiry(parts: InquiryParts, demand: Demand, terms: Terms): Inquiry {
  const { authenticator, charges, noteDenied, settings } = parts
  const { optional, orSignedIn, cost = 1 } = terms

  function decide(
    req: GuardedRequest,
    authentication: Authentication,
  ): MaybePromise<ApiKeysError | null> {
    if (authentication.kind === 'refused') return authentication.error
    if (authentication.kind === 'accepted') {
      const { apiKey, bearer } = authentication
      const error = demand(apiKey)
      if (error) {
        noteDenied(apiKey, bearer)
        return error
      }
      bearer.add(demand)
      return charges.charge(authentication, cost)
    }

    if (optional === true) return null
    return orSignedIn === true ? unlessSignedIn(req, authentication.error) : authentication.error
  }

  async function unlessSignedIn(req: GuardedRequest, error: ApiKeysError) {
    // The key of another instance may have put its owner there, who has not signed in.
    if (authenticator.carriesKey(req)) return error
    return (await settings.currentUser?.(req)) ? null : error
  }

  return function inquire(req, res) {
    const authentication = authenticator.authenticate(req, res)
    return authentication instanceof Promise
      ? authentication.then((authentication) => decide(req, authentication))
      : decide(req, authentication)
  }
}
