import type { Request } from 'express'

import { show } from '../../models/option-checks'
import { noOwnerId } from '../database/failures'
import { ApiKeysError, InvalidInputError } from '../errors'
import { isListOfNames } from '../keys/grantable'
import type { Owner } from '../keys/owner'
import type { ChangeOptions } from '../lifecycle/types'
import type { Guard } from './guards'
import type { AnyRequest } from './guard-options'
import { createOwnedRoutes } from './owner-routes'
import { addressOf } from './key-routes'
import { createRouter, type RouterParts } from './router'
import type { RouterOptions } from './access'

/** The access of a user, as it was checked. */
interface Member {
  owner: Owner
  isReadOnly: boolean
  mayGive: readonly string[] | undefined
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
