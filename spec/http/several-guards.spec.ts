import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'

import { countVerifications, createEchoApp } from '../support/app'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey } = useWorld()

/** A key of alice, which may read graphs and blocks. */
let plainTextKey: string
let id: string

beforeAll(async () => {
  const created = await createKey({
    permissions: ['READ_GRAPH', 'READ_BLOCK'],
    expiresAt: '2099-01-01T00:00:00Z',
  })
  plainTextKey = created.plainTextKey
  id = created.id
})

/** The callers of an app whose handler shows its request behind these middlewares. */
function createApp(...middlewares: RequestHandler[]) {
  return http.to(createEchoApp(...middlewares))
}

describe('a second guard', () => {
  it('decides from the result of the first guard, without a second look-up', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true }),
      apiKeys.requirePermission('READ_GRAPH'),
      express().use(apiKeys.requirePermission({ any: ['READ_BLOCK', 'EXECUTE_BLOCK'] })),
      apiKeys.authenticate(),
    )
    const before = await countVerifications(apiKeys)

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('may demand a permission that the first guard did not', async () => {
    const app = createApp(
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.requirePermission('EXECUTE_GRAPH'),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(403)
    expect(answer.body.missing).toEqual(['EXECUTE_GRAPH'])
  })

  it('refuses a request that an optional first guard let through', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }), apiKeys.authenticate())

    const nothing = await app.get('/')
    const jwt = await app.with('a.b.c').get('/')

    expect(nothing.body.code).toBe('missing_credential')
    expect(jwt.body.code).toBe('invalid_api_key')
  })

  it('decides from the result of the first guard, even if the app has replaced req.apiKey', async () => {
    const app = createApp(
      apiKeys.authenticate(),
      (req: Request, _res: Response, next: NextFunction) => {
        const { signal, metadata } = apiKeys.getApiKey(req)
        req.apiKey = { ...apiKeys.getApiKey(req), signal, metadata }
        next()
      },
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
  })

  it('ignores a req.apiKey that the app has made up', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true }),
      (req: Request, _res: Response, next: NextFunction) => {
        const { signal } = new AbortController()
        req.apiKey = {
          id,
          owner: { type: 'user', id: 'bob' },
          userId: 'bob',
          name: 'x',
          permissions: ['READ_GRAPH'],
          expiresAt: null,
          metadata: {},
          signal,
        }
        next()
      },
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await app.get('/')

    expect(answer.status).toBe(401)
  })
})
