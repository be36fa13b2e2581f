import type { Request } from 'express'

import { show } from '../../models/option-checks'
import { noOwnerId } from '../database/failures'
import { ApiKeysError, InvalidInputError } from '../errors'
import { isListOfNames } from '../keys/grantable'
import type { Owner } from '../keys/owner'
import type { SignedInUser } from '../options'
import type { RouterOptions } from './access'
import type { AnyRequest } from './guard-options'
import type { RouterParts } from './router'

/** The access of a user to the keys of an owner, as it was checked. */
export interface Member {
  owner: Owner
  /** The name of the organization; `undefined` if the app does not say it. */
  name: string | undefined
  isReadOnly: boolean
  /** The permissions that the user may give to keys; `undefined` for all that the owner may give. */
  mayGive: readonly string[] | undefined
}

/** Makes the check that admits members of an organization. A member who may only read is refused a change. */
export function createMemberCheck(
  caller: 'router' | 'console',
  organization: NonNullable<RouterOptions['organization']>,
  parts: Pick<RouterParts, 'parse'>,
) {
  return async function enter(req: Request, user: SignedInUser, isChange: boolean) {
    // The app's types of Express may be of another version. It is the same request.
    const access = await organization(req as unknown as AnyRequest, user)
    const member = readAccess(caller, access, parts)
    if (!member) throw new ApiKeysError('organization_not_found')
    if (isChange && member.isReadOnly) throw new ApiKeysError('read_only')
    return member
  }
}

/** Returns what to answer in place of an error. An app that does not name the type of its ids leaves it to the database to read them. */
export function explainOwner(error: unknown): unknown {
  return error instanceof InvalidInputError && error.errors[0] === noOwnerId
    ? new ApiKeysError('organization_not_found')
    : error
}

/** Returns the access of a user; `null` for none, and for an id that no organization can have. */
function readAccess(
  caller: string,
  access: unknown,
  { parse }: Pick<RouterParts, 'parse'>,
): Member | null {
  if (access === null || access === undefined) return null

  const { id, name, readOnly = false, permissions } = isObject(access) ? access : { id: access }
  if (!['string', 'number', 'bigint'].includes(typeof id)) {
    throw new TypeError(`${caller}: organization must return an id, or { id }, got ${show(access)}`)
  }
  if (typeof readOnly !== 'boolean') {
    throw new TypeError(`${caller}: readOnly of organization must be true or false`)
  }
  if (name !== undefined && typeof name !== 'string') {
    throw new TypeError(`${caller}: name of organization must be text, got ${show(name)}`)
  }
  if (permissions !== undefined && !isListOfNames(permissions)) {
    throw new TypeError(`${caller}: permissions of organization must be a list of permissions`)
  }
  const organizationId = parse.readOrganizationId(id)
  if (organizationId === undefined) return null
  const owner: Owner = { type: 'organization', id: organizationId }
  return { owner, name, isReadOnly: readOnly, mayGive: permissions }
}

function isObject(
  access: unknown,
): access is { id?: unknown; name?: unknown; readOnly?: unknown; permissions?: unknown } {
  return typeof access === 'object' && access !== null
}
