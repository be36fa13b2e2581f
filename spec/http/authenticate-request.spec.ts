import express, { type NextFunction, type Request, type Response } from 'express'
import request from 'supertest'

import { ApiKeysError, type RequestDenied } from '../../lib'
import { countVerifications, createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, databaseAway, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
let plainTextKey: string

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database)
  plainTextKey = (await apiKeys.create(newKey())).plainTextKey
})

afterAll(async () => {
  await databaseAway.drop()
  await database.drop()
})

const bearer = (key: string) => ({ Authorization: `Bearer ${key}` })

/** An app whose handler asks by itself, as the code does that tsoa or a GraphQL server calls. */
function createApp(keys: TestApiKeys, options?: Parameters<TestApiKeys['authenticateRequest']>[1]) {
  const app = express()
  app.get('/', (req, res, next) => {
    keys
      .authenticateRequest(req, options)
      .then(({ userId }) => res.json({ userId, user: req.user, headers: req.headers }))
      .catch(next)
  })
  app.use((error: unknown, _req: Request, res: Response, next: NextFunction) => {
    if (!(error instanceof ApiKeysError)) return next(error)
    res.status(error.statusCode).set(error.headers).json({ code: error.code })
  })
  return app
}

describe('authenticateRequest', () => {
  it('resolves to the key of a request, which is as behind a guard', async () => {
    const answer = await request(createApp(apiKeys, { permissions: 'READ_GRAPH' }))
      .get('/')
      .set(bearer(plainTextKey))

    expect(answer.body).toMatchObject({ userId: 'alice', user: { id: 'alice' } })
    expect(answer.text).not.toContain(plainTextKey)
  })

  it('demands no permission unless it is told to', async () => {
    for (const options of [undefined, {}, { permissions: [] }]) {
      const answer = await request(createApp(apiKeys, options)).get('/').set(bearer(plainTextKey))
      expect(answer.status).toBe(200)
    }
  })

  it.each([
    ['no key', () => ({}), 401, 'missing_credential', 'Bearer realm="api"'],
    [
      'a wrong key',
      () => bearer('agpt_x'),
      401,
      'invalid_api_key',
      'Bearer realm="api", error="invalid_token"',
    ],
    [
      'a key that lacks a permission',
      () => bearer(plainTextKey),
      403,
      'missing_permission',
      'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH EXECUTE_GRAPH"',
    ],
  ])('rejects with the refusal of %s', async (_, headers, status, code, challenge) => {
    const denied: RequestDenied[] = []
    const stop = apiKeys.on('denied', (notice) => denied.push(notice))
    const app = createApp(apiKeys, { permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })

    const answer = await request(app).get('/').set(headers())
    stop()

    expect(answer.status).toBe(status)
    expect(answer.body).toEqual({ code })
    expect(answer.headers['www-authenticate']).toBe(challenge)
    expect(denied.map(({ error }) => error.code)).toEqual([code])
  })

  it('rejects with the refusal where the database is away', async () => {
    const answer = await request(createApp(createTestApiKeys(databaseAway)))
      .get('/')
      .set(bearer(plainTextKey))

    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
  })

  it('counts towards the limits of the key, for as much as it costs', async () => {
    const keys = createTestApiKeys(database, { limits: { burst: { limit: 5, windowSeconds: 60 } } })
    const created = await keys.create(newKey())
    const send = () =>
      request(createApp(keys, { cost: 3 }))
        .get('/')
        .set(bearer(created.plainTextKey))

    const [first, second] = [await send(), await send()]

    expect(first.headers.ratelimit).toMatch(/^"burst";r=2;/)
    expect([second.status, second.body.code]).toEqual([429, 'rate_limited'])
  })

  it('verifies a request once, whatever else asks', async () => {
    const app = express()
    app.get('/', apiKeys.authenticate(), async (req, res) => {
      await apiKeys.authenticateRequest(req)
      res.json(await apiKeys.authenticateRequest(req, { permissions: ['READ_GRAPH'] }))
    })
    const before = await countVerifications(apiKeys)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body.userId).toBe('alice')
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('rejects mistakes of the program with a TypeError', async () => {
    const req = { headers: {} } as Request

    for (const options of [
      { permissions: 'READ_GRAPHS' as 'READ_GRAPH' },
      { permission: 'READ_GRAPH' } as object,
      { cost: -1 },
    ]) {
      await expect(apiKeys.authenticateRequest(req, options)).rejects.toThrow(TypeError)
    }
  })
})
