import type { Request } from 'express'

import { createOptionChecks, show } from '../../models/option-checks'
import { noOwnerId } from '../database/failures'
import { ApiKeysError, InvalidInputError } from '../errors'
import { isListOfNames } from '../keys/grantable'
import type { AnyId, Owner } from '../keys/owner'
import type { ChangeOptions } from '../lifecycle/types'
import type { MaybePromise, SignedInUser } from '../options'
import type { Guard } from './guards'
import type { AnyRequest } from './guard-options'
import { createOwnedRoutes } from './owner-routes'
import { addressOf } from './key-routes'
import { createRouter, type RouterParts } from './router'

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
       * The permissions that the user may give. The user can neither create a key, nor add to a key, nor rotate a key that may do more.
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

/** The access of a user, as it was checked. */
interface Member {
  owner: Owner
  isReadOnly: boolean
  mayGive: readonly string[] | undefined
}

const { refuseUnknownNames } = createOptionChecks('router')

/** Checks the options of `router`, and returns the function of the app that they have. */
export function readRouterOptions(options: unknown, { settings }: Pick<RouterParts, 'settings'>) {
  if (options === undefined) return undefined
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`router: the options must be an object, got ${show(options)}`)
  }
  refuseUnknownNames(options, ['organization'])
  const { organization } = options as { organization?: unknown }
  if (organization === undefined) return undefined
  if (typeof organization !== 'function') {
    throw new TypeError(`router: organization must be a function, got ${show(organization)}`)
  }
  if (settings.idTypes.organization === undefined) {
    throw new TypeError('router: organization needs the option organizations of createApiKeys')
  }
  return organization as NonNullable<RouterOptions['organization']>
}

/** Makes the router with which members manage the keys of their organization, whoever made them. */
export function createOrganizationRouter(
  parts: RouterParts,
  organization: NonNullable<RouterOptions['organization']>,
): Guard {
  const { currentUser } = parts.settings
  if (!currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }
  const members = new WeakMap<Request, Member>()

  function memberOf(req: Request): Member {
    const member = members.get(req)
    if (!member) throw new ApiKeysError('organization_not_found')
    return member
  }

  const routes = createOwnedRoutes(parts, {
    ownerOf: ({ req }) => memberOf(req).owner,
    mayGiveOf: ({ req }) => memberOf(req).mayGive,
    optionsOf(call): ChangeOptions {
      const { owner, mayGive } = memberOf(call.req)
      const actor = { type: 'user', id: call.userId } as const
      return { owner, actor, ...(mayGive && { mayGive }), ...addressOf(call) }
    },
  })
  return createRouter(parts, currentUser, routes, {
    async enter(req, user, isChange) {
      const access = await organization(req as unknown as AnyRequest, user)
      const member = readAccess(access, parts)
      if (!member) throw new ApiKeysError('organization_not_found')
      if (isChange && member.isReadOnly) throw new ApiKeysError('read_only')
      members.set(req, member)
    },
    // An app that does not name the type of its ids leaves it to the database to read them.
    explain: (error) =>
      error instanceof InvalidInputError && error.errors[0] === noOwnerId
        ? new ApiKeysError('organization_not_found')
        : error,
  })
}

/** Returns the access of a user; `null` for none, and for an id that no organization can have. */
function readAccess(access: unknown, { parse }: Pick<RouterParts, 'parse'>): Member | null {
  if (access === null || access === undefined) return null

  const { id, readOnly = false, permissions } = isObject(access) ? access : { id: access }
  if (!['string', 'number', 'bigint'].includes(typeof id)) {
    throw new TypeError(`router: organization must return an id, or { id }, got ${show(access)}`)
  }
  if (typeof readOnly !== 'boolean') {
    throw new TypeError('router: readOnly of organization must be true or false')
  }
  if (permissions !== undefined && !isListOfNames(permissions)) {
    throw new TypeError('router: permissions of organization must be a list of permissions')
  }
  const organizationId = parse.readOrganizationId(id)
  if (organizationId === undefined) return null
  const owner: Owner = { type: 'organization', id: organizationId }
  return { owner, isReadOnly: readOnly, mayGive: permissions }
}

function isObject(
  access: unknown,
): access is { id?: unknown; readOnly?: unknown; permissions?: unknown } {
  return typeof access === 'object' && access !== null
}
