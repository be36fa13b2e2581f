import type { Database } from './database'

/** A page to which this app leads. */
export interface Place {
  href: string
  /** Its name in the navigation. */
  name: string
  title: string
  about: string
}

const tryKey: Place = {
  href: '/try',
  name: 'Try a key',
  title: 'Try a key',
  about: 'Send it to a guarded route, and see status, headers and body of the answer',
}

const ownKeys: Place = {
  href: '/settings/api-keys',
  name: 'Your keys',
  title: 'Your API keys',
  about: 'Create keys, see how they are used, revoke them',
}

const allKeys: Place = {
  href: '/admin/settings/api-keys',
  name: 'All keys',
  title: 'The keys of all owners',
  about: 'Manage them, suspend owners, verify the audit trail, see usage and health',
}

/** Makes the function that finds the pages for a user: those of keys that the user may see, and the page that tries a key. */
export function createPlaces({ Membership, Organization }: Database) {
  return async function findPlaces(user: Express.User | undefined): Promise<Place[]> {
    if (!user) return [tryKey]

    const memberships = await Membership.findAll({ where: { userId: user.id } })
    const ids = memberships.map(({ organizationId }) => organizationId)
    const organizations = await Organization.findAll({ where: { id: ids }, order: ['name'] })
    const managed = new Set(
      memberships.filter(({ isManager }) => isManager).map((each) => each.organizationId),
    )
    const ofOrganizations = organizations.map(({ id, name }) => ({
      href: `/organizations/${encodeURIComponent(id)}/settings/api-keys`,
      name: `Keys of ${name}`,
      title: `API keys of ${name}`,
      about: managed.has(id)
        ? 'Shared by its members; you manage them'
        : 'Shared by its members; you see them, and change none',
    }))
    return [ownKeys, ...ofOrganizations, ...(user.admin ? [allKeys] : []), tryKey]
  }
}
