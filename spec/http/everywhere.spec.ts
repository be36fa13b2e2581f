import request from 'supertest'

import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKey } from '../support/keys'

const boundMs = 200

let database: Database
let apiKeys: TestApiKeys
let app: ReturnType<typeof createTestApp>

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, { maxStalenessMs: boundMs })
  app = createTestApp(apiKeys)
})

afterAll(() => database.drop())

describe('?everywhere=true', () => {
  it.each<[string, 'delete' | 'post' | 'put', string, object | undefined]>([
    ['a revocation', 'delete', '', undefined],
    ['a suspension', 'post', '/suspend', { reason: 'leaked' }],
    ['a change of permissions', 'put', '/permissions', { permissions: ['READ_BLOCK'] }],
  ])(
    'has an administrator wait with %s until the bound has passed',
    async (_, method, path, body) => {
      const { id } = await createKey(apiKeys)

      const before = performance.now()
      const agent = request.agent(app).set('X-User', 'admin')
      const response = await agent[method](`/admin/api-keys/${id}${path}?everywhere=true`).send(
        body,
      )

      expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
      expect(response.status).toBe(200)
      expect(response.body).toEqual(JSON.parse(JSON.stringify(await apiKeys.get(id))))
    },
  )

  it('has an administrator wait with the end of a rotation', async () => {
    const { id } = await createKey(apiKeys)
    await apiKeys.rotate(id)

    const before = performance.now()
    const response = await request(app)
      .delete(`/admin/api-keys/${id}/rotation?everywhere=true`)
      .set('X-User', 'admin')

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toMatchObject({ id, previousSecret: null })
  })

  it('has an administrator wait with the revocation of what nobody uses', async () => {
    const { id } = await createKey(apiKeys)
    await database
      .connect()
      .query(`UPDATE api_keys SET created_at = now() - interval '9 days' WHERE id = '${id}'`)

    const before = performance.now()
    const response = await request(app)
      .post('/admin/api-keys/revoke-unused?everywhere=true')
      .set('X-User', 'admin')
      .send({ unusedForDays: 8 })

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toEqual({ revoked: 1 })
  })

  it('has an administrator wait with the revocation of all keys of a user', async () => {
    await createKey(apiKeys, { userId: 'bob' })

    const before = performance.now()
    const response = await request(app)
      .post('/admin/api-keys/revoke-all?everywhere=true')
      .set('X-User', 'admin')
      .send({ userId: 'bob' })

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toEqual({ revoked: 1 })
  })

  it('is for administrators', async () => {
    const { id } = await createKey(apiKeys)

    const response = await request(app)
      .delete(`/api-keys/${id}?everywhere=true`)
      .set('X-User', 'alice')

    expect(response.status).toBe(422)
    expect(response.body.errors).toEqual([
      { pointer: '#/everywhere', message: 'is for administrators' },
    ])
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each(['yes', '', '1', 'true&everywhere=true'])('is refused as %j', async (value) => {
    const { id } = await createKey(apiKeys)

    const response = await request(app)
      .delete(`/admin/api-keys/${id}?everywhere=${value}`)
      .set('X-User', 'admin')

    expect(response.status).toBe(422)
    expect(response.body.errors).toEqual([
      { pointer: '#/everywhere', message: 'must be true or false' },
    ])
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each<[string, 'delete' | 'patch' | 'post', string, object, string]>([
    ['mistyped', 'delete', '?everywere=true', {}, '#/everywere'],
    [
      'of a change that needs no waiting',
      'patch',
      '?everywhere=true',
      { name: 'B' },
      '#/everywhere',
    ],
    ['of a reactivation', 'post', '/reactivate?everywhere=true', {}, '#/everywhere'],
    ['of a rotation', 'post', '/rotate?everywhere=true', {}, '#/everywhere'],
  ])('is refused where it would go unheeded: %s', async (_, method, path, body, pointer) => {
    const { id } = await createKey(apiKeys)
    const before = await apiKeys.get(id)

    for (const [mount, user] of [
      ['/admin/api-keys', 'admin'],
      ['/api-keys', 'alice'],
    ] as const) {
      const agent = request.agent(app).set('X-User', user)
      const response = await agent[method](`${mount}/${id}${path}`).send(body)

      expect(response.status).toBe(422)
      expect(response.body.errors).toMatchObject([{ pointer }])
    }
    expect(await apiKeys.get(id)).toEqual(before)
  })

  it('may be false', async () => {
    const { id } = await createKey(apiKeys)

    const response = await request(app)
      .delete(`/admin/api-keys/${id}?everywhere=false`)
      .set('X-User', 'admin')

    expect(response.body).toMatchObject({ status: 'REVOKED' })
  })
})
