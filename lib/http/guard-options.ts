import type { IncomingMessage, ServerResponse } from 'node:http'

import { createOptionChecks, show } from '../../models/option-checks'
import type { Demand } from './demand'

/** The options of the guards that demand permissions. */
export type GuardOptions<
  _Environment extends string = never,
  _Resource extends string = never,
> = GuardBasics

interface GuardBasics {
  /**
   * Also lets a request through that carries no key, if `currentUser(req)` returns a user. It is for routes that both programs and
   * the app's own pages call. Protect these routes against cross-site requests, like all routes that trust a cookie.
   *
   * @default false
   */
  orSignedIn?: boolean | undefined
  /**
   * The number of uses of its key that a request counts for, towards the limits of the key. Behind several guards, the highest
   * cost counts.
   *
   * @default 1
   */
  cost?: number | undefined
}

/** The options of `authenticate`. */
export interface AuthenticateOptions<
  Environment extends string = never,
  Resource extends string = never,
> extends GuardOptions<Environment, Resource> {
  /**
   * Lets a request through that carries no key of ours: nothing, or a token that the app understands.
   *
   * @default false
   */
  optional?: boolean | undefined
}

/** The options of `authenticateRequest`. */
export interface RequestOptions<
  Permission extends string = string,
  _Environment extends string = never,
  _Resource extends string = never,
> {
  /** The permissions that the key must hold. */
  permissions?: Demand<Permission> | undefined
  /**
   * The number of uses of its key that a request counts for, as in the options of a guard.
   *
   * @default 1
   */
  cost?: number | undefined
  /** The response, which gets the `RateLimit` fields. Express keeps it with the request. */
  res?: ServerResponse | undefined
}

/** Refuses an option that would have no effect, for example a second permission in the place of the options. */
export function checkOptions(
  caller: string,
  options: AuthenticateOptions,
  known: readonly string[],
) {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(
      `${caller}: the options must be an object. Name several permissions in a list.`,
    )
  }
  createOptionChecks(caller).refuseUnknownNames(options, known)
  const { optional = false, orSignedIn = false, cost } = options
  for (const [name, value] of Object.entries({ optional, orSignedIn })) {
    if (typeof value !== 'boolean') throw new TypeError(`${caller}: ${name} must be true or false`)
  }
  if (cost !== undefined) checkCost(caller, cost, 0)
}

/** Throws a `TypeError` unless a request can count for that many uses of its key. */
export function checkCost(caller: string, cost: unknown, least: 0 | 1) {
  if (Number.isSafeInteger(cost) && Number(cost) >= least) return
  throw new TypeError(`${caller}: the cost must be a whole number from ${least}, got ${show(cost)}`)
}

/** Refuses a request that Express passes to a function that makes a middleware, because the app has not called it. */
export function refuseRequest(caller: string, given: unknown) {
  const { headers, url } = Object(given) as Partial<IncomingMessage>
  if (typeof headers !== 'object' || typeof url !== 'string') return
  throw new TypeError(
    `apiKeys.${caller} is not a middleware, but returns one. Call it, with its arguments if it takes any: apiKeys.${caller}()`,
  )
}
