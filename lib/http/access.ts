import { createOptionChecks, show } from '../../models/option-checks'
import type { AnyId } from '../keys/owner'
import type { MaybePromise, SignedInUser } from '../options'
import type { Settings } from '../read-options'
import type { AnyRequest } from './guard-options'

// These types are among the types of the package, which need no types of Express.

/** The access of a user to the keys of an organization: its id, or the id and limits of the access. Nothing stands for no access. */
export type Access<Permission extends string = string> =
  | AnyId
  | {
      id: AnyId
      /**
       * Lets the user see keys, and change none.
       *
       * @default false
       */
      readOnly?: boolean | undefined
      /**
       * The permissions that the user may give. The user can neither create a key, nor add to a key, nor rotate a key that may do more. Such
       * a key can be restricted, but not reactivated, and its expiry, addresses and resources stay as they are.
       *
       * @default all permissions that the organization holds
       */
      permissions?: readonly Permission[] | undefined
    }
  | null
  | undefined

/** The options of `router`. */
export interface RouterOptions<
  Permission extends string = string,
  User extends SignedInUser = SignedInUser,
> {
  /**
   * Makes the router with which members manage the keys of an organization. Returns the access of a user. A user without access gets the
   * 404 of an organization that does not exist. `req.params` has the parameters of the path at which the router is mounted.
   */
  organization?(req: AnyRequest, user: User): MaybePromise<Access<Permission>>
}

const { refuseUnknownNames } = createOptionChecks('router')

/** Checks the options of `router`, and returns the function of the app that they have. */
export function readRouterOptions(
  options: unknown,
  { settings }: { settings: Pick<Settings, 'idTypes'> },
) {
  if (options === undefined) return undefined
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`router: the options must be an object, got ${show(options)}`)
  }
  refuseUnknownNames(options, ['organization'])
  const { organization } = options as { organization?: unknown }
  return readOrganization('router', organization, settings)
}

/** Checks the function of the app that returns the access of a user; `undefined` for none. */
export function readOrganization(
  caller: 'router' | 'console',
  organization: unknown,
  { idTypes }: Pick<Settings, 'idTypes'>,
) {
  if (organization === undefined) return undefined
  if (typeof organization !== 'function') {
    throw new TypeError(`${caller}: organization must be a function, got ${show(organization)}`)
  }
  if (idTypes.organization === undefined) {
    throw new TypeError(`${caller}: organization needs the option organizations of createApiKeys`)
  }
  return organization as NonNullable<RouterOptions['organization']>
}
