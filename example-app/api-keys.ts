import { createApiKeys, type AnyRequest } from 'express-api-keys'

import type { Database } from './database'
import { ownedBy } from './organizations'

/** The option of guards for routes that also take test keys, because they change nothing. */
export const forTrials = { environment: ['live', 'test'] } as const

/** The option of guards for routes about one graph. A key that is bound to other graphs is refused. */
export const forGraph = {
  resource: (req: AnyRequest) => ({ graph: req.params.id }),
}

export type AppApiKeys = ReturnType<typeof createAppApiKeys>

/** Sets up the library for this app. Everything the library needs to know about the app is here. */
export function createAppApiKeys(
  { sequelize, User, Organization, Graph }: Database,
  secret: string,
) {
  return createApiKeys({
    sequelize,
    environments: { live: 'agpt', test: 'agpt_test' },
    acceptedEnvironments: ['live'],
    permissions: {
      EXECUTE_GRAPH: 'Execute graphs',
      READ_GRAPH: 'Read graphs',
      EXECUTE_BLOCK: 'Execute blocks',
      READ_BLOCK: 'Read blocks',
      EVERYTHING: { description: 'Do everything', implies: '*' },
    },
    limits: {
      burst: { limit: 60, windowSeconds: 60 },
      daily: { limit: 5_000, windowSeconds: 24 * 60 * 60 },
    },
    resources: {
      // Keys are bound to graphs of their owner.
      graph: async (ids, owner, { transaction = null }) => {
        const where = { id: [...ids], ...ownedBy(owner) }
        const graphs = await Graph.count({ where, transaction })
        return graphs === ids.length
      },
    },
    secrets: [secret],
    currentUser: (req) => req.user,
    isAdmin: (user) => user.admin,
    // Administrators see these names beside the ids.
    ownerNames: async (owners) => {
      const idsOf = (kind: 'user' | 'organization') =>
        owners.filter(({ type }) => type === kind).map(({ id }) => id)
      const users = await User.findAll({ where: { id: idsOf('user') } })
      const organizations = await Organization.findAll({ where: { id: idsOf('organization') } })
      return [
        ...users.map(({ id, username: name }) => ({ type: 'user' as const, id, name })),
        ...organizations.map(({ id, name }) => ({ type: 'organization' as const, id, name })),
      ]
    },
    users: { table: 'users', column: 'id', type: 'uuid' },
    organizations: { table: 'organizations', column: 'id', type: 'text' },
  })
}
