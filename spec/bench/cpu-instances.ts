import type * as Library from 'express-api-keys'
import { Sequelize } from 'sequelize'

import type { BuildName, InstanceName } from './cpu-variants'
import { inventTokens, keyPrefix, tokensFileOf, writeTokens } from './keys'

/* The instances of the library in the apps of the part `cpu`, and their keys. */

const { DATABASE_URL: url = '', SECRET: secret = '', FOLDER: folder = '' } = process.env
const { AGAINST: against = '', BUILD } = process.env

/** The build that this process measures. */
const build: BuildName = BUILD === 'other' ? 'other' : 'this'

const keyCount = 100

/** Never reached. */
const limits = {
  burst: { limit: 1_000_000_000, windowSeconds: 60 },
  monthly: { limit: 1_000_000_000, windowSeconds: 30 * 86_400 },
}

/** Returns the file of the tokens with which an app is asked. */
export function tokensOf(tokens: string): string {
  return tokensFileOf(folder, build, tokens)
}

/** Opens an instance of the library of this build, on tables of its own. It connects with its first request. */
export function openInstance(name: InstanceName): Library.AnyApiKeys {
  const permissions = ['READ_GRAPH'] as const
  switch (name) {
    case 'plain':
      return library().createApiKeys({ ...optionsOf(name), permissions })
    case 'keyed':
      return library().createApiKeys({ ...optionsOf(name), permissions, secrets: [secret] })
    case 'bound':
      return library().createApiKeys({ ...optionsOf(name), permissions, limits })
    case 'others':
      return openOthers()
  }
}

/** Opens the instance of an app with every kind of owner, permission and binding. */
export function openOthers() {
  return library().createApiKeys({
    ...optionsOf('others'),
    permissions: {
      READ_GRAPH: 'Read graphs',
      EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_GRAPH'] },
    },
    organizations: { table: 'organizations', type: 'integer' },
    resources: { graph: true },
  })
}

/** The library of this build. */
function library(): typeof Library {
  // A build of another checkout has the same functions, or the bench fails here.
  return require(build === 'this' ? 'express-api-keys' : against) as typeof Library
}

function optionsOf(name: InstanceName) {
  return {
    sequelize: new Sequelize(url, { logging: false, pool: { max: 5 } }),
    keyPrefix,
    schema: `${build}_${name}`,
    maxFailedAttemptsPerMinute: Infinity,
    // The polls of the processes that wait are to disturb the measured process as little as possible.
    maxStalenessMs: 30_000,
  }
}

/**
 * Makes the tables and the keys of all instances by means of the build itself, because builds may differ in their tables. Returns the
 * instances that the build has.
 */
export async function fillTables(): Promise<InstanceName[]> {
  for (const name of ['plain', 'keyed', 'bound'] as const) await fill(name)
  await writeTokens(tokensOf('garbage'), inventTokens(keyCount))
  await writeTokens(tokensOf('none'), [''])
  try {
    await fillOthers()
    return ['plain', 'keyed', 'bound', 'others']
  } catch (error) {
    if (build === 'this') throw error
    return ['plain', 'keyed', 'bound']
  }
}

async function fill(name: 'plain' | 'keyed' | 'bound') {
  const apiKeys = openInstance(name)
  await apiKeys.migrate()
  const bounds = {
    expiresAt: new Date(Date.now() + 86_400_000),
    allowedIps: ['203.0.113.0/24', '127.0.0.0/8'],
    metadata: { plan: 'gold' },
  }
  const keys: string[] = []
  for (let made = 0; made < keyCount; made++) {
    const { plainTextKey } = await apiKeys.create({
      userId: `user-${made}`,
      name: 'Deployment',
      permissions: ['READ_GRAPH'],
      ...(name === 'bound' && bounds),
    })
    keys.push(plainTextKey)
  }
  await writeTokens(tokensOf(name), keys)
  await apiKeys.close()
}

async function fillOthers() {
  await new Sequelize(url, { logging: false }).query(
    `CREATE TABLE IF NOT EXISTS organizations (id integer PRIMARY KEY);
     INSERT INTO organizations SELECT generate_series(0, ${keyCount - 1}) ON CONFLICT DO NOTHING`,
  )
  const apiKeys = openOthers()
  await apiKeys.migrate()
  const graph = Array.from({ length: 100 }, (_, index) => String(index + 1))
  const wishes = {
    organization: (id: number) => ({
      owner: { type: 'organization', id } as const,
      permissions: ['READ_GRAPH'] as const,
    }),
    implied: (id: number) => ({
      owner: { type: 'user', id: `user-${id}` } as const,
      permissions: ['EXECUTE_GRAPH'] as const,
    }),
    resources: (id: number) => ({
      owner: { type: 'user', id: `user-${id}` } as const,
      permissions: ['READ_GRAPH'] as const,
      resources: { graph },
    }),
  }
  for (const [name, wish] of Object.entries(wishes)) {
    const keys: string[] = []
    for (let made = 0; made < keyCount; made++) {
      const { plainTextKey } = await apiKeys.create({ name: 'Deployment', ...wish(made) })
      keys.push(plainTextKey)
    }
    await writeTokens(tokensOf(name), keys)
  }
  await apiKeys.close()
}
