import { createApiKeys } from 'express-api-keys'
import type { Sequelize } from 'sequelize'

/** The option of guards for routes that also take test keys, because they change nothing. */
export const forTrials = { environment: ['live', 'test'] } as const

export type AppApiKeys = ReturnType<typeof createAppApiKeys>

/** Sets up the library for this app. Everything the library needs to know about the app is here. */
export function createAppApiKeys(sequelize: Sequelize, secret: string) {
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
    secrets: [secret],
    currentUser: (req) => req.user,
    isAdmin: (user) => user.admin,
    users: { table: 'users', column: 'id', type: 'uuid' },
  })
}
