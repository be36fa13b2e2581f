import type { Request } from 'express'

import { createApiKeys, type ApiKeysOptions } from '../../lib'
import { permissions, signedInUser, type Permission, type User } from './app'
import type { Database } from './database'

type BindingOptions = Partial<
  ApiKeysOptions<Permission, User, 'text', false, false, never, 'graph' | 'project', Request>
>

/** Makes the API keys of an app whose keys can be bound to graphs and projects. */
export function createBindingApiKeys(
  database: Pick<Database, 'connect' | 'closeFirst'>,
  options: BindingOptions = {},
) {
  const apiKeys = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions,
    currentUser: signedInUser,
    isAdmin: (user: User) => user.admin,
    resources: { graph: true, project: true },
    ...options,
  })
  database.closeFirst(apiKeys)
  return apiKeys
}

export type BindingApiKeys = ReturnType<typeof createBindingApiKeys>
