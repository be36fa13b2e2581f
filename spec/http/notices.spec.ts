import { once } from 'node:events'
import type { Server } from 'node:http'

import express from 'express'
import passport from 'passport'
import type { Transaction } from 'sequelize'
import request from 'supertest'

import type { ApiKeyNotices } from '../../lib'
import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

let database: Database
let apiKeys: TestApiKeys
let server: Server
/** What was told of since a spec began, in order. */
let told: [name: string, notice: unknown][]
let stopListening: (() => void)[]

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database)
  const strategies = new passport.Passport()
  strategies.use(apiKeys.strategy)
  const app = createTestApp(apiKeys, (app) => {
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
    app.get('/passport', strategies.authenticate('api-key'), (_req, res) => {
      res.json([])
    })
  })
  server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterAll(async () => {
  server.close()
  await database.drop()
})

beforeEach(() => {
  told = []
  stopListening = []
})

afterEach(() => {
  for (const stop of stopListening) stop()
})

function listenTo(...names: (keyof ApiKeyNotices)[]) {
  for (const name of names) {
    stopListening.push(apiKeys.on(name, (notice) => told.push([name, notice])))
  }
}

const as = (user: string) => request.agent(server).set('X-User', user)

const get = (path: string, plainTextKey: string) =>
  request(server).get(path).set('Authorization', `Bearer ${plainTextKey}`)

describe('on', () => {
  it('tells of every change over HTTP, with what was before, who did it and why', async () => {
    listenTo('created', 'updated', 'permissions_changed', 'suspended', 'reactivated')
    listenTo('rotated', 'rotation_ended', 'revoked')

    const { body } = await as('alice')
      .post('/api-keys')
      .send({ name: 'CI', permissions: ['READ_GRAPH'] })
    const path = `/api-keys/${body.apiKey.id}`
    await as('alice').patch(path).send({ name: 'Build' })
    await as('alice')
      .put(`${path}/permissions`)
      .send({ permissions: ['READ_BLOCK'] })
    await as('admin').post(`/admin${path}/suspend`).send({ reason: 'leaked' })
    await as('alice').post(`${path}/reactivate`)
    const rotated = await as('alice').post(`${path}/rotate`)
    await as('alice').delete(`${path}/rotation`)
    await as('alice').delete(path)

    expect(told.map(([name]) => name)).toEqual([
      'created',
      'updated',
      'permissions_changed',
      'suspended',
      'reactivated',
      'rotated',
      'rotation_ended',
      'revoked',
    ])
    expect(told[0]).toEqual([
      'created',
      {
        apiKey: expect.objectContaining({ id: body.apiKey.id, name: 'CI', status: 'ACTIVE' }),
        before: null,
        actor: { type: 'user', id: 'alice' },
        reason: null,
      },
    ])
    expect(told[3]).toEqual([
      'suspended',
      {
        apiKey: expect.objectContaining({ status: 'SUSPENDED' }),
        before: expect.objectContaining({ status: 'ACTIVE' }),
        actor: { type: 'admin', id: 'admin' },
        reason: 'leaked',
      },
    ])
    const text = JSON.stringify(told)
    expect(text).not.toContain(body.plainTextKey)
    expect(text).not.toContain(rotated.body.plainTextKey)
    expect(text).not.toMatch(/[0-9a-f]{64}/)
  })

  it('tells of what changed nothing, or was refused, not at all', async () => {
    const { apiKey } = await apiKeys.create(newKey())
    await apiKeys.revoke(apiKey.id)
    listenTo('revoked', 'suspended', 'updated')

    await apiKeys.revoke(apiKey.id)
    await apiKeys.suspend(apiKey.id).catch(() => {})
    await apiKeys.update(apiKey.id, { name: 'Other' }).catch(() => {})

    expect(told).toEqual([])
  })

  it('tells of each key that is revoked with all others of its user', async () => {
    const ids = []
    for (const name of ['one', 'two', 'three']) {
      ids.push((await apiKeys.create(newKey({ userId: 'carol', name }))).apiKey.id)
    }
    listenTo('revoked')

    await apiKeys.revokeAll('carol')

    const revoked = told.map(([, notice]) => (notice as ApiKeyNotices['revoked']).apiKey.id)
    expect(revoked.toSorted()).toEqual(ids.toSorted())
  })

  it('waits for the transaction of the caller', async () => {
    const { apiKey } = await apiKeys.create(newKey())
    listenTo('suspended')
    const sequelize = database.connect()
    const transaction = await sequelize.transaction()

    await apiKeys.suspend(apiKey.id, { transaction })
    expect(told).toEqual([])
    await transaction.commit()

    expect(told).toHaveLength(1)
  })

  it.each(['outer', 'inner'])(
    'tells of nothing when the %s transaction is rolled back',
    async (which) => {
      const { apiKey } = await apiKeys.create(newKey())
      listenTo('suspended', 'revoked')
      const sequelize = database.connect()
      const outer = await sequelize.transaction()
      const inner: Transaction = await sequelize.transaction({ transaction: outer })

      await apiKeys.suspend(apiKey.id, { transaction: inner })
      await (which === 'inner' ? inner.rollback() : inner.commit())
      await (which === 'outer' ? outer.rollback() : outer.commit())

      expect(told).toEqual([])
      expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'ACTIVE' })
    },
  )

  it('tells of requests that are denied, and why, which the client is not told', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey({ permissions: ['READ_BLOCK'] }))
    listenTo('denied')

    await get('/graphs', plainTextKey)
    await apiKeys.revoke(apiKey.id)
    await get('/graphs', plainTextKey)
    await get('/passport', plainTextKey)
    await get('/graphs', 'agpt_nonsense')
    await request(server).get('/graphs')

    const notices = told.map(([, notice]) => notice as ApiKeyNotices['denied'])
    expect(notices.map(({ error, reason }) => [error.code, reason])).toEqual([
      ['missing_permission', null],
      ['invalid_api_key', 'revoked'],
      ['invalid_api_key', 'revoked'],
      ['invalid_api_key', 'malformed'],
      ['missing_credential', null],
    ])
    const holder = { id: apiKey.id, userId: 'alice' }
    // Also of a key that is no longer good: an app that lists such requests shows whose it was.
    expect(notices.map(({ apiKey }) => apiKey)).toEqual([holder, holder, holder, null, null])
    expect(notices[0]).toMatchObject({ address: '127.0.0.1' })
    expect(JSON.stringify(notices)).not.toContain(plainTextKey)
  })

  it('tells of keys that are accepted, once per request, while somebody listens', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await get('/graphs', plainTextKey)
    listenTo('verified')

    await get('/graphs', plainTextKey)

    expect(told).toEqual([
      ['verified', { apiKey: expect.objectContaining({ id: apiKey.id }), address: '127.0.0.1' }],
    ])
    for (const stop of stopListening) stop()
    await get('/graphs', plainTextKey)
    expect(told).toHaveLength(1)
  })

  it('tells of uses that usage calls accepted, whatever guards refuse them later', async () => {
    const keys = createTestApiKeys(database, {
      limits: { burst: { limit: 5, windowSeconds: 3_600 } },
    })
    const app = express()
    app.use(keys.authenticate({ cost: 0 }))
    app.get('/graphs', keys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.end()
    })
    app.get('/blocks', keys.requirePermission('READ_BLOCK'))
    app.get('/costly', async (req, res) => {
      await keys.consume(req, 99).catch(() => {})
      res.end()
    })
    const { apiKey, plainTextKey } = await keys.create(newKey())
    const verified: unknown[] = []
    keys.on('verified', (notice) => verified.push(notice))
    const paths = [...Array.from({ length: 7 }, () => '/graphs'), '/blocks', '/costly']

    for (const path of paths) {
      await request(app).get(path).set('Authorization', `Bearer ${plainTextKey}`)
    }
    await keys.verify(plainTextKey)
    await keys.flush()

    const { totals } = await keys.usage(apiKey.id)
    expect(totals).toEqual({ accepted: 6, denied: 1, rateLimited: 3 })
    expect(verified).toHaveLength(6)
  })

  it('tells of a secret that is used after its time', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })
    listenTo('retired_secret_used')

    await get('/graphs', plainTextKey)
    await get('/graphs', plainTextKey)

    expect(told).toEqual([['retired_secret_used', { apiKeyId: apiKey.id }]])
  })

  it('gives listeners a copy, which they cannot change', async () => {
    const { apiKey } = await apiKeys.create(newKey())
    stopListening.push(
      apiKeys.on('updated', (notice) => {
        told.push(['updated', Object.isFrozen(notice) && Object.isFrozen(notice.apiKey)])
        Reflect.deleteProperty(notice.apiKey, 'permissions')
      }),
    )

    const changed = await apiKeys.update(apiKey.id, { name: 'Other' })

    expect(told).toEqual([['updated', true]])
    expect(changed.permissions).toEqual(['READ_GRAPH'])
  })

  it('lets no listener break a request, a change or another listener', async () => {
    stopListening.push(
      apiKeys.on('verified', () => {
        throw new Error('broken')
      }),
      apiKeys.on('revoked', () => Promise.reject(new Error('rejected'))),
      apiKeys.on('error', () => {
        throw new Error('breaks at failures, too')
      }),
    )
    listenTo('verified', 'revoked', 'error')
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())

    const answer = await get('/graphs', plainTextKey)
    await apiKeys.revoke(apiKey.id)

    expect(answer.status).toBe(200)
    await until(() => told.length === 4)
    expect(told.map(([name, notice]) => [name, (notice as { notice?: string }).notice])).toEqual(
      expect.arrayContaining([
        ['verified', undefined],
        ['error', 'verified'],
        ['revoked', undefined],
        ['error', 'revoked'],
      ]),
    )
  })

  it('refuses names that there are not, and listeners that are none', () => {
    expect(() => apiKeys.on('revokd' as 'revoked', () => {})).toThrow(
      'on: there is no notice "revokd". Did you mean revoked?',
    )
    expect(() => apiKeys.on('toString' as 'revoked', () => {})).toThrow(TypeError)
    expect(() => apiKeys.on('revoked', undefined as never)).toThrow('on: needs a function to call')
  })
})
