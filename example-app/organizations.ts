import type { AnyRequest, OrganizationOwner, UserOwner } from 'express-api-keys'

import type { Database } from './database'

/** The owner of a key in this app. */
export type AppOwner = UserOwner<string> | OrganizationOwner<string>

/** Returns the columns of the rows that belong to the owner of a key. Ids of users and of organizations stand apart. */
export function ownedBy({ type, id }: AppOwner) {
  return type === 'user' ? { userId: id } : { organizationId: id }
}

/** True for a key whose owner has the key of the caller as well. */
export function mayIntrospect(caller: { owner: AppOwner }, key: { owner: AppOwner }): boolean {
  return caller.owner.type === key.owner.type && caller.owner.id === key.owner.id
}

/** Makes the function that returns the access of a user to the keys of the organization in the path. */
export function createMembership({ Membership, Organization }: Database) {
  return async function findAccess(req: AnyRequest, user: { id: string }) {
    const memberships = await Membership.findAll({ where: { userId: user.id } })
    const found = memberships.find(
      ({ organizationId }) => organizationId === req.params.organizationId,
    )

    // Nothing stands for no access: the answer is that of an organization that does not exist.
    if (!found) return undefined

    const organization = await Organization.findByPk(found.organizationId)
    return { id: found.organizationId, name: organization?.name, readOnly: !found.isManager }
  }
}
