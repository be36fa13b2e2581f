import { createOptionChecks, show } from '../../models/option-checks'
import type { Demand } from '../http/demand'
import type { AnyApp, App, EnvironmentOption, If } from '../keys/app'
import type { Resources } from '../keys/resources'
import type { MaybePromise } from '../options'
import type { VerifiedApiKey } from '../verification/verified-key'

/** The options of `tokenRouter`: which endpoints there are, and who may introspect keys. */
export interface TokenRouterOptions<A extends App = AnyApp> {
  /** Answers `POST /introspect` to callers whose own key has a permission. */
  introspect?: IntrospectOptions<A> | undefined
  /**
   * Takes `POST /revoke`, with which everyone who knows a key can end it.
   *
   * @default true
   */
  revoke?: boolean | undefined
}

/** The options of `POST /introspect`. */
export type IntrospectOptions<A extends App = AnyApp> = IntrospectBasics<A> &
  EnvironmentOption<A['environment']>

interface IntrospectBasics<A extends App> {
  /** The permission that the key of the caller needs, or a demand as that of a guard. */
  permission: Demand<A['permission']>
  /**
   * Returns true if a caller may see a key. It gets the key of the caller, and the answer. If it returns anything else, the answer is that of
   * an unknown key. Without it, a caller sees the keys of all owners.
   */
  mayIntrospect?(
    caller: VerifiedApiKey<A>,
    introspection: Introspection<A>,
  ): MaybePromise<boolean | null | undefined>
  /**
   * Counts each introspection that shows a key as a use of that key, as if the key was sent to a guard. Its limits are not charged.
   *
   * @default false
   */
  countUse?: boolean | undefined
}

/** The answer about a key that may be used (RFC 7662, section 2.2). */
export type Introspection<A extends App = AnyApp> = IntrospectionBasics & {
  /** The owner of the key. */
  owner: A['owner']
} & If<A['environment'], { environment: A['environment'] }> &
  If<
    A['resource'],
    {
      /** The ids to which the key is bound, by the types of resources. A key that is not bound has no such member. */
      resources?: Resources<A['resource']>
    }
  >

interface IntrospectionBasics {
  active: true
  token_type: 'Bearer'
  /** The permissions of the key, with a space between them. A key whose owner holds none of them has no such member. */
  scope?: string
  /** The id of the key. */
  client_id: string
  /** The id of the key. */
  jti: string
  /** The owner of the key: the id of a user, or the kind and the id, for example `organization:acme`. */
  sub: string
  /** When the key was created, in seconds since 1970. */
  iat: number
  /** When the key expires, in seconds since 1970. A key that does not expire has no such member. */
  exp?: number
}

const { check, refuseUnknownNames } = createOptionChecks('tokenRouter')

/** Applies the defaults of the options, and refuses nonsense. The demand for a permission is checked by its guard. */
export function readTokenOptions(given: unknown) {
  const options = asObject('the options', given === undefined ? {} : given)
  refuseUnknownNames(options, ['introspect', 'revoke'])
  const { introspect, revoke = true } = options as TokenRouterOptions
  check('revoke', typeof revoke === 'boolean', 'must be true or false', revoke)
  if (!revoke && introspect === undefined) {
    throw new TypeError('tokenRouter: there is nothing to answer without introspect and revoke')
  }
  return { introspect: introspect === undefined ? undefined : readIntrospect(introspect), revoke }
}

function readIntrospect(given: unknown) {
  const options = asObject('introspect', given)
  const known = ['permission', 'mayIntrospect', 'countUse', 'environment']
  refuseUnknownNames(options, known, 'introspect.')
  const { permission, environment, ...others } = options as IntrospectOptions & {
    environment?: string | readonly string[]
  }
  const { mayIntrospect, countUse = false } = others
  check('introspect.permission', permission !== undefined, 'must name a permission')
  const isFunction = mayIntrospect === undefined || typeof mayIntrospect === 'function'
  check('introspect.mayIntrospect', isFunction, 'must be a function', mayIntrospect)
  check('introspect.countUse', typeof countUse === 'boolean', 'must be true or false', countUse)
  return { permission, environment, mayIntrospect, countUse }
}

function asObject(name: string, given: unknown): object {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) return given
  throw new TypeError(`tokenRouter: ${name} must be an object, got ${show(given)}`)
}
