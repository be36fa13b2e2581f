import express, { type RequestHandler } from 'express'
import passport from 'passport'
import request from 'supertest'

import { createTestApiKeys, permissions, type TestApiKeys } from './support/app'
import { createDatabase, type Database } from './support/database'
import { newKey } from './support/keys'

let database: Database
let liveKeys: TestApiKeys
let testKeys: TestApiKeys
const asked: string[] = []

function grantable({ id: userId }: { id: string }) {
  asked.push(userId)
  return permissions
}

beforeAll(async () => {
  database = await createDatabase()
  const sequelize = database.connect()
  liveKeys = createTestApiKeys(database, { sequelize, keyPrefix: 'acme_live', grantable })
  testKeys = createTestApiKeys(database, { sequelize, keyPrefix: 'acme_test', grantable })
})

afterAll(() => database.drop())

const showRequest: RequestHandler = (req, res) => {
  res.json({ userId: req.apiKey?.userId, authorization: req.headers.authorization })
}

describe('two instances in one process, on one schema', () => {
  it('each verify the keys of their own prefix', async () => {
    const live = await liveKeys.create(newKey())
    const test = await testKeys.create(newKey())

    expect(await liveKeys.verify(live.plainTextKey)).toMatchObject({ valid: true })
    expect(await testKeys.verify(test.plainTextKey)).toMatchObject({ valid: true })
    expect(await liveKeys.verify(test.plainTextKey)).toEqual({ valid: false, code: 'malformed' })
    expect(await testKeys.verify(live.plainTextKey)).toEqual({ valid: false, code: 'malformed' })
  })

  it('stand on one request if one prefix is the start of the other: the last underscore decides', async () => {
    const plainKeys = createTestApiKeys(database, { keyPrefix: 'acme' })
    const app = express()
    app.use(plainKeys.authenticate({ optional: true }))
    app.get('/plain', plainKeys.requirePermission('READ_GRAPH'), showRequest)
    app.get('/live', liveKeys.requirePermission('READ_GRAPH'), showRequest)
    const plain = await plainKeys.create(newKey({ userId: 'alice' }))
    const live = await liveKeys.create(newKey({ userId: 'bob' }))

    const answers = [
      await request(app).get('/plain').set('Authorization', `Bearer ${plain.plainTextKey}`),
      await request(app).get('/live').set('Authorization', `Bearer ${live.plainTextKey}`),
      await request(app).get('/plain').set('Authorization', `Bearer ${live.plainTextKey}`),
      await request(app).get('/live').set('Authorization', `Bearer ${plain.plainTextKey}`),
      await request(app).get('/live').set('Authorization', 'Bearer acme_live_cut-off'),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 401, 401, 401])
    expect(answers.slice(0, 2).map(({ body }) => body)).toEqual([
      { userId: 'alice', authorization: `Bearer ${plain.apiKey.prefix}...` },
      { userId: 'bob', authorization: `Bearer ${live.apiKey.prefix}...` },
    ])
  })

  it('stand on one request by strategies of different names', async () => {
    const strategies = new passport.Passport()
    strategies.use(liveKeys.strategy)
    strategies.use('test-api-key', testKeys.strategy)
    const app = express()
    app.get('/', strategies.authenticate(['api-key', 'test-api-key']), (req, res) => {
      res.json(req.user)
    })
    const [live, test] = [
      await liveKeys.create(newKey({ userId: 'alice' })),
      await testKeys.create(newKey({ userId: 'bob' })),
    ]

    for (const { plainTextKey, apiKey } of [live, test]) {
      const response = await request(app).get('/').set('Authorization', `Bearer ${plainTextKey}`)
      expect(response.body).toEqual({ id: apiKey.userId })
    }
  })

  it('share one audit trail, which either verifies', async () => {
    const { apiKey } = await testKeys.create(newKey())
    await testKeys.revoke(apiKey.id)

    const { events } = await testKeys.events({ apiKeyId: apiKey.id })

    expect(events.map(({ action }) => action)).toEqual(['revoked', 'created'])
    expect(await liveKeys.events({ apiKeyId: apiKey.id })).toMatchObject({ events: [] })
    expect(await liveKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('are both notified of a user who was changed, by a call on either', async () => {
    const { plainTextKey } = await testKeys.create(newKey({ userId: 'carol' }))
    await testKeys.verify(plainTextKey)
    asked.length = 0

    await liveKeys.ownerChanged({ type: 'user', id: 'carol' }, { everywhere: true })
    await testKeys.verify(plainTextKey)

    expect(asked).toEqual(['carol'])
  })
})
