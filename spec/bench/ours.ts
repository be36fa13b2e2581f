import { createRequire } from 'node:module'
import { join } from 'node:path'

import type * as Library from 'express-api-keys'
import type * as SequelizeLibrary from 'sequelize'

import { keyPrefix } from './keys'

/** The folder of the project, which has a build of the library in `dist`. */
export const thisBuild = join(__dirname, '../..')

/** The permissions of the apps. Keys of the bench have the first. */
type Name = 'READ_GRAPH' | 'EXECUTE_GRAPH'

export interface OurOptions {
  url: string
  permissions?: Readonly<Record<Name, string | Library.PermissionDescription<Name>>>
  secrets?: readonly string[]
  cacheSize?: number
  limits?: Library.Limits
  maxFailedAttemptsPerMinute?: number
}

/** The built library in an app, with the default options. */
export function openOurs(options: OurOptions) {
  return openBuild({ ...options, build: thisBuild }).apiKeys
}

/** The library of any folder that has a build, on a pool of so many connections. */
export function openBuild({
  url,
  build,
  connections = 10,
  permissions,
  ...options
}: OurOptions & { build: string; connections?: number }) {
  const load = createRequire(join(build, 'package.json'))
  const { Sequelize } = load('sequelize') as typeof SequelizeLibrary
  const { createApiKeys } = load('./dist/lib/index.js') as typeof Library
  const sequelize = new Sequelize(url, { logging: false, pool: { max: connections } })
  const apiKeys = createApiKeys({
    sequelize,
    keyPrefix,
    permissions: permissions ?? (['READ_GRAPH', 'EXECUTE_GRAPH'] as const),
    ...options,
  })
  return { apiKeys, sequelize }
}
