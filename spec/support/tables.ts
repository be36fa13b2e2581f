import { randomUUID } from 'node:crypto'

import type { Sequelize } from 'sequelize'

import { createApiKeys, type StorageOptions } from '../../lib'
import type { World } from './world'

/** The names of all tables of the library, in order. */
export const ourTables = [
  'api_key_audit_head',
  'api_key_bounds',
  'api_key_changes',
  'api_key_event_seals',
  'api_key_events',
  'api_key_expiry_notices',
  'api_key_log_lock',
  'api_key_migrations',
  'api_key_origins',
  'api_key_requests',
  'api_key_retired_secrets',
  'api_key_revisions',
  'api_key_salts',
  'api_key_suspended_owners',
  'api_key_unsealed_events',
  'api_key_usage',
  'api_key_usage_writers',
  'api_key_user_changes',
  'api_keys',
]

/** The tables of the library in a schema, as `listTables` names them. */
export function tablesIn(schema: string) {
  return ourTables.map((table) => `${schema}.${table}`)
}

/** Lists all tables of the database with their schema, without the tables of Postgres itself. */
export async function listTables({ rows }: Pick<World, 'rows'>) {
  const tables = await rows<{ name: string }>(
    `SELECT schemaname || '.' || tablename AS name FROM pg_tables
      WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY name`,
  )
  return tables.map(({ name }) => name)
}

/** Creates an instance with any storage options, and with a connection of its own unless `sequelize` is given. */
export function createInstance(
  { database }: Pick<World, 'database'>,
  options: StorageOptions = {},
  sequelize: Sequelize = database.connect(),
) {
  const apiKeys = createApiKeys({
    sequelize,
    keyPrefix: 'agpt',
    permissions: ['READ_GRAPH'],
    ...options,
  })
  database.closeFirst(apiKeys)
  return apiKeys
}

/** An instance with any storage options. */
export type Instance = ReturnType<typeof createInstance>

/** Creates a role without rights, and connects as that role. */
export async function createRole({ database, sequelize }: World, attributes = '') {
  const role = `spec_${randomUUID().replaceAll('-', '')}`
  await sequelize.query(`CREATE ROLE ${role} ${attributes}`)
  return { role, connection: database.connect({ dialectOptions: { options: `-c role=${role}` } }) }
}

/** Uses every part of the library as `userId`, and returns the owner that the database then has. */
export async function useEverything(apiKeys: Instance, userId: string | number) {
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId,
    name: 'Deployment',
    permissions: ['READ_GRAPH'],
  })
  const verdict = await apiKeys.verify(plainTextKey)
  await apiKeys.flush()
  const { feed, revision } = await apiKeys.health()
  await apiKeys.update(apiKey.id, { description: 'of the graphs' }, { userId })
  await apiKeys.suspend(apiKey.id, { userId })
  await apiKeys.reactivate(apiKey.id, { userId })
  const listed = await apiKeys.list({ userId, text: 'graphs', permission: 'READ_GRAPH' })
  const revoked = await apiKeys.revokeAll({ type: 'user', id: userId })
  const { events } = await apiKeys.events({ userId })
  const { totals } = await apiKeys.usage(apiKey.id, {}, { userId })
  const { keys } = await apiKeys.totalUsage({ userId })
  const after = await apiKeys.health()
  await apiKeys.close()

  expect(feed).toBe('following')
  expect(after.revision).toBeGreaterThan(revision ?? Infinity)
  const { owner } = apiKey
  expect(owner.type).toBe('user')
  expect(verdict).toMatchObject({ valid: true, apiKey: { owner } })
  expect(listed.apiKeys).toMatchObject([{ id: apiKey.id, lastUsedAt: expect.any(Date) }])
  expect(revoked).toEqual({ keys: 1 })
  expect(totals).toEqual({ accepted: 1, denied: 0, rateLimited: 0 })
  expect(keys).toEqual([{ apiKeyId: apiKey.id, owner, ...totals }])
  expect(events.map((event) => [event.action, event.owner])).toEqual([
    ['revoked', owner],
    ['reactivated', owner],
    ['suspended', owner],
    ['updated', owner],
    ['created', owner],
  ])
  return owner.id
}

/** Inserts a row of SQL expressions, by column. */
export function insert({ sequelize }: World, table: string, values: Record<string, string>) {
  const columns = Object.keys(values).join(', ')
  return sequelize.query(
    `INSERT INTO ${table} (${columns}) VALUES (${Object.values(values).join(', ')})`,
  )
}
