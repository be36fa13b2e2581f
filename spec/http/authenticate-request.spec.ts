import express, { type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError, type RequestDenied } from '../../lib'
import { countVerifications, type TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { newKey } from '../support/keys'
import { bearer } from '../support/http'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld()

let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

/** An app whose handler calls `authenticateRequest`, like code behind tsoa or a GraphQL server. */
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
  it('resolves to the key of a request, and leaves the request as a guard does', async () => {
    const answer = await http
      .to(createApp(apiKeys, { permissions: 'READ_GRAPH' }))
      .with(plainTextKey)
      .get('/')

    expect(answer.body).toMatchObject({ userId: 'alice', user: { id: 'alice' } })
    expect(answer.text).not.toContain(plainTextKey)
  })

  it('demands no permission by default', async () => {
    for (const options of [undefined, {}, { permissions: [] }]) {
      const answer = await http.to(createApp(apiKeys, options)).with(plainTextKey).get('/')
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

    const answer = await http.to(app).get('/').set(headers())
    stop()

    expect(answer.status).toBe(status)
    expect(answer.body).toEqual({ code })
    expect(answer.headers['www-authenticate']).toBe(challenge)
    expect(denied.map(({ error }) => error.code)).toEqual([code])
  })

  it('rejects with the refusal if the database is unreachable', async () => {
    const answer = await http
      .to(createApp(createProcess({ sequelize: databaseAway.connect() }).apiKeys))
      .get('/')
      .set(bearer(plainTextKey))

    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
  })

  it('counts towards the limits of the key by its cost', async () => {
    const keys = createProcess({ limits: { burst: { limit: 5, windowSeconds: 60 } } }).apiKeys
    const created = await keys.create(newKey())
    const send = () =>
      http
        .to(createApp(keys, { cost: 3 }))
        .with(created.plainTextKey)
        .get('/')

    const [first, second] = [await send(), await send()]

    expect(first.headers.ratelimit).toMatch(/^"burst";r=2;/)
    expect([second.status, second.body.code]).toEqual([429, 'rate_limited'])
  })

  it('verifies a request once, also beside guards', async () => {
    const app = express()
    app.get('/', apiKeys.authenticate(), async (req, res) => {
      await apiKeys.authenticateRequest(req)
      res.json(await apiKeys.authenticateRequest(req, { permissions: ['READ_GRAPH'] }))
    })
    const before = await countVerifications(apiKeys)

    const answer = await http.to(app).with(plainTextKey).get('/')

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
