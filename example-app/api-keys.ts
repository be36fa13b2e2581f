import { createApiKeys, type AnyRequest } from 'express-api-keys'

import type { Database } from './database'

/** The option of guards for routes that also take test keys, because they change nothing. */
export const forTrials = { environment: ['live', 'test'] } as const

/** The option of guards for routes about one graph. A key that is bound to other graphs is refused. */
export const forGraph = {
  resource: (req: AnyRequest) => ({ graph: req.params.id }),
}

export type AppApiKeys = ReturnType<typeof createAppApiKeys>

/** Sets up the library for this app. Everything the library needs to know about the app is here. */
export function createAppApiKeys({ sequelize, Graph }: Database, secret: string) {
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
    resources: {
      // Users bind keys to their own graphs.
      graph: async (ids, { id: userId }, { transaction = null }) => {
        const graphs = await Graph.count({ where: { id: [...ids], userId }, transaction })
        return graphs === ids.length
      },
    },
    secrets: [secret],
    currentUser: (req) => req.user,
    isAdmin: (user) => user.admin,
    users: { table: 'users', column: 'id', type: 'uuid' },
  })
}
