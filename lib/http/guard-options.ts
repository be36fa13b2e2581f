import type { IncomingMessage, ServerResponse } from 'node:http'

import { createOptionChecks, show } from '../../models/option-checks'
import type { EnvironmentOption, If } from '../keys/app'
import type { RequestedResources } from '../keys/resources'
import type { AppRequest } from '../options'
import type { Demand } from './demand'

/** The options of the guards that demand permissions. */
export type GuardOptions<
  Environment extends string = never,
  Resource extends string = never,
> = GuardBasics &
  EnvironmentOption<Environment> &
  If<Resource, { resource?: ResourceOf<Resource> | null | undefined }>

/**
 * Returns the ids of the resources that a request is about, by their types. A key that is bound to resources needs an id of each type to
 * which it is bound. It is asked about such keys alone.
 *
 * It is a method, so that an app can name the type of its own requests.
 */
export type ResourceOf<Resource extends string> = {
  resource(req: AnyRequest): RequestedResources<Resource>
}['resource']

/** A request behind a route: what Express 4 and 5 have in common, with the parameters of the path. */
export type AnyRequest = AppRequest & {
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, unknown>>
  readonly body: unknown
}

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
  /**
   * Puts the caller on the request as `req.auth`, from which the transports of `@modelcontextprotocol/sdk` hand it to tools as `authInfo`. It
   * has no plain-text key.
   *
   * @default false
   */
  mcp?: boolean | undefined
}

/** The options of `authenticate`. */
export type AuthenticateOptions<
  Environment extends string = never,
  Resource extends string = never,
> = GuardOptions<Environment, Resource> & {
  /**
   * Lets a request through that carries no key of ours: nothing, or a token that the app understands.
   *
   * @default false
   */
  optional?: boolean | undefined
}

/** The options of `authenticateRequest`. */
export type RequestOptions<
  Permission extends string = string,
  Environment extends string = never,
  Resource extends string = never,
> = RequestBasics<Permission> &
  EnvironmentOption<Environment> &
  If<Resource, { resource?: RequestedResources<Resource> | null | undefined }>

interface RequestBasics<Permission extends string> {
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
export function checkOptions(caller: string, options: object, known: readonly string[]) {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(
      `${caller}: the options must be an object. Name several permissions in a list.`,
    )
  }
  createOptionChecks(caller).refuseUnknownNames(options, known)
  const { optional = false, orSignedIn = false, mcp = false, cost } = options as AuthenticateOptions
  for (const [name, value] of Object.entries({ optional, orSignedIn, mcp })) {
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

/** Refuses a value that is no request. */
export function refuseOther(caller: string, given: unknown) {
  if (typeof given === 'object' && given !== null) return
  throw new TypeError(`${caller}: takes a request, got ${show(given)}`)
}
