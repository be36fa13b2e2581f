import { createOptionChecks, show } from '../../models/option-checks'
import type { AnyId } from '../keys/owner'
import type { MaybePromise, SignedInUser } from '../options'
import type { DocumentOptions } from '../openapi/options'
import type { Settings } from '../read-options'
import type { AnyRequest } from './guard-options'

// These types are among the types of the package, which need no types of Express.

/** The access of a user to the keys of an organization: its id, or the id and limits of the access. Nothing stands for no access. */
export type Access<Permission extends string = string> =
  | AnyId
  | {
      id: AnyId
      /** The name of the organization, for the headings of the pages of `console`. Routers do not need it. */
      name?: string | undefined
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

/** True, or what the document says about the app, for a router that answers `GET /openapi.json`. */
export type OpenApiOption = boolean | DocumentOptions

/** The options of `adminRouter`. */
export interface AdminRouterOptions {
  /**
   * Answers `GET /openapi.json` with the OpenAPI document of the router, to its users alone.
   *
   * @default false
   */
  openApi?: OpenApiOption | undefined
}

/** The options of `router`. */
export interface RouterOptions<
  Permission extends string = string,
  User extends SignedInUser = SignedInUser,
> extends AdminRouterOptions {
  /**
   * Makes the router with which members manage the keys of an organization. Returns the access of a user. A user without access gets the
   * 404 of an organization that does not exist. `req.params` has the parameters of the path at which the router is mounted.
   */
  organization?(req: AnyRequest, user: User): MaybePromise<Access<Permission>>
}

/** Checks the options of `router`, and returns them. */
export function readRouterOptions(
  options: unknown,
  { settings }: { settings: Pick<Settings, 'idTypes'> },
) {
  const { organization, openApi } = readNames('router', options, ['organization', 'openApi'])
  return {
    organization: readOrganization('router', organization, settings),
    openApi: readOpenApi('router', openApi),
  }
}

/** Checks the options of `adminRouter`, and returns them. */
export function readAdminRouterOptions(options: unknown) {
  const { openApi } = readNames('adminRouter', options, ['openApi'])
  return { openApi: readOpenApi('adminRouter', openApi) }
}

function readNames(
  caller: string,
  options: unknown,
  names: readonly string[],
): Record<string, unknown> {
  if (options === undefined) return {}
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`${caller}: the options must be an object, got ${show(options)}`)
  }
  createOptionChecks(caller).refuseUnknownNames(options, names)
  return { ...options }
}

function readOpenApi(caller: string, openApi: unknown): OpenApiOption | undefined {
  if (openApi === undefined || typeof openApi === 'boolean') return openApi
  if (typeof openApi !== 'object' || openApi === null || Array.isArray(openApi)) {
    throw new TypeError(
      `${caller}: openApi must be true, false or { signIn, info }, got ${show(openApi)}`,
    )
  }
  createOptionChecks(caller).refuseUnknownNames(openApi, ['signIn', 'info'], 'openApi.')
  return openApi
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
