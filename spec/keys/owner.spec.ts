import type { Request } from 'express'

import { createApiKeys, type ApiKeyNotices, type Owner } from '../../lib'
import { createTestApp } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createHttp } from '../support/http'
import { expectProblem } from '../support/problem'

const uuid = '7d444840-9dc0-11d1-b245-5ffdce74fad2'
const organization = { type: 'organization', id: uuid } as const
const service = { type: 'service', id: 'importer' } as const
const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH'] as const

let database: Database
let apiKeys: ReturnType<typeof createInstance>

function createInstance() {
  const created = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions,
    users: { table: 'users', type: 'integer' },
    organizations: { table: 'organizations', type: 'uuid' },
    services: true,
    undoMinutes: 60,
    currentUser: (req: Request) => ({ id: Number(req.get('X-User')) }),
    isAdmin: () => true,
  })
  database.closeFirst(created)
  return created
}

beforeAll(async () => {
  database = await createDatabase('empty')
  // A user 0 could be taken for the owner of every key without a user.
  await database.connect().query(`
    CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (0), (7);
    CREATE TABLE organizations (id uuid PRIMARY KEY); INSERT INTO organizations VALUES ('${uuid}')`)
  apiKeys = createInstance()
  await apiKeys.migrate()
})

afterAll(() => database.drop())

const noticeNames: readonly (keyof ApiKeyNotices)[] = [
  'created',
  'updated',
  'permissions_changed',
  'suspended',
  'reactivated',
  'rotated',
  'rotation_ended',
  'revoked',
  'unrevoked',
  'owner_suspended',
  'owner_reactivated',
  'verified',
  'denied',
  'expiring',
]

/** Collects the owners that all notices name. */
function listen() {
  const named = new Map<string, Owner[]>()
  for (const name of noticeNames) {
    apiKeys.on(name, (notice) => named.set(name, [...(named.get(name) ?? []), ...ownersIn(notice)]))
  }
  return named
}

/** Returns all owners within a value, and fails on any other name of a user. */
function ownersIn(value: unknown): Owner[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, inner]: [string, unknown]) => {
    expect(name).not.toBe('userId')
    return name === 'owner' ? [inner as Owner] : ownersIn(inner)
  })
}

describe.each([organization, service])('a key of an owner of the type $type', (owner) => {
  it('names this owner and no user, wherever it is shown', async () => {
    const notices = listen()
    const input = { owner, name: 'CI', permissions }
    const { apiKey, plainTextKey } = await apiKeys.create(input)
    const { id } = apiKey
    const http = createHttp(() =>
      createTestApp(apiKeys, (app) =>
        app.get('/graphs', apiKeys.requirePermission('EXECUTE_GRAPH')),
      ),
    )

    const shown: unknown[] = [
      apiKey,
      await apiKeys.verify(plainTextKey),
      await apiKeys.update(id, { name: 'Night' }),
      await apiKeys.setPermissions(id, ['READ_GRAPH']),
      await apiKeys.suspend(id),
      await apiKeys.reactivate(id),
      await apiKeys.rotate(id),
      await apiKeys.endRotation(id),
    ]
    await apiKeys.suspendOwner(owner)
    await apiKeys.reactivateOwner(owner)
    const { plainTextKey: secret } = await apiKeys.rotate(id)
    expect((await http.with(secret).get('/graphs')).status).toBe(403)
    expect(await apiKeys.verify(secret)).toMatchObject({ valid: true })
    await database.connect().query(
      `UPDATE api_keys SET created_at = now() - interval '30 days', expires_at = now() + interval '12 hours'
        WHERE id = '${id}'`,
    )
    expect(await apiKeys.announceExpiring()).toBe(1)
    await apiKeys.flush()
    const admin = http.as('0')
    shown.push(
      await apiKeys.get(id),
      (await admin.get(`/admin/api-keys/${id}`)).body,
      (await admin.post('/admin/api-keys', { ...input, owner })).body,
      (await apiKeys.createMany([input])).apiKeys,
      await apiKeys.list(),
      (await admin.get('/admin/api-keys')).body,
      await apiKeys.events({ apiKeyId: id }),
      (await admin.get(`/admin/api-keys/events?apiKeyId=${id}`)).body,
      (await admin.get(`/admin/api-keys/usage?apiKeyId=${id}`)).body,
      await apiKeys.totalUsage({ apiKeyId: id }),
      await apiKeys.revoke(id),
      await apiKeys.unrevoke(id),
    )

    for (const each of shown) {
      const owners = ownersIn(each)
      expect(owners).not.toEqual([])
      for (const named of owners) expect([organization, service]).toContainEqual(named)
    }
    expect(new Set(notices.keys())).toEqual(new Set(noticeNames))
    for (const named of notices.values()) {
      expect(named).not.toEqual([])
      for (const each of named) expect(each).toEqual(owner)
    }
  })

  it('is not found under any user, nor counted for one', async () => {
    const { apiKey } = await apiKeys.create({ owner, name: 'CI', permissions: ['READ_GRAPH'] })
    const http = createHttp(() => createTestApp(apiKeys))

    for (const userId of [0, 7]) {
      const user = { type: 'user', id: userId } as const
      expect(await apiKeys.list({ userId })).toEqual({ apiKeys: [], nextCursor: null })
      expect(await apiKeys.events({ userId })).toEqual({ events: [], nextCursor: null })
      expect(await apiKeys.totalUsage({ userId })).toMatchObject({ keys: [] })
      expect(await apiKeys.countRevocable(user)).toEqual({ keys: 0 })
      expect(await apiKeys.revokeAll(user)).toEqual({ keys: 0 })
      const own = http.as(String(userId))
      expect((await own.get('/api-keys')).body.apiKeys).toEqual([])
      expectProblem(await own.get(`/api-keys/${apiKey.id}`), 'api_key_not_found')
      const refused = apiKeys.get(apiKey.id, { userId })
      await expect(refused).rejects.toMatchObject({ code: 'api_key_not_found' })
    }
    expect((await apiKeys.get(apiKey.id)).status).toBe('ACTIVE')
  })
})
