import express, { type Express, type Request } from 'express'

import { createApiKeys, type ApiKeys, type ApiKeysOptions, type App } from '../../lib'
import type { Database } from './database'

/** The options that differ between releases of an app. */
type Release = Pick<
  ApiKeysOptions<string, { id: string }, 'text'>,
  'permissions' | 'formerPermissions' | 'grantable' | 'grantableMaxAgeMs' | 'secrets'
>

/** Any names may be permissions in one of the releases. */
export type AnyRelease = ApiKeys<App & { permission: string; environment: never; resource: never }>

/** The API keys of one release of an app, whose users sign in as the users of `createTestApiKeys`. */
export function createRelease(database: Database, release: Release): AnyRelease {
  const options: object = {
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    currentUser: (req: Request) => {
      const id = req.get('X-User')
      return id ? { id } : undefined
    },
    isAdmin: ({ id }: { id: string }) => id.startsWith('admin'),
    ...release,
  }
  // The compiler sees no names of permissions in a list that differs from release to release.
  const apiKeys = createApiKeys(options as never) as unknown as AnyRelease
  database.closeFirst(apiKeys)
  return apiKeys
}

/** Makes the app of a release. `/use/0` demands the first of some permissions, and answers with the permissions of the key. */
export function createReleaseApp(apiKeys: AnyRelease, demanded: readonly string[]): Express {
  const app = express()
  app.use('/api-keys', apiKeys.router())
  app.use('/admin/api-keys', apiKeys.adminRouter())
  for (const [index, permission] of demanded.entries()) {
    app.get(`/use/${index}`, apiKeys.requirePermission(permission), (req, res) => {
      res.json(apiKeys.getApiKey(req).permissions)
    })
  }
  return app
}
