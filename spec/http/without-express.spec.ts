import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

import request from 'supertest'

import { bearer } from '../support/http'
import { useWorld } from '../support/world'

const { apiKeys, createKey } = useWorld({
  options: {
    limits: { burst: { limit: 5, windowSeconds: 3_600 } },
    maxFailedAttemptsPerMinute: 3,
    lastUsedResolutionMs: 0,
  },
})

type Handler = (req: IncomingMessage, res: ServerResponse) => void

/** A server of Node alone, whose requests do not have their responses. */
function createGuardedServer(handle: Handler) {
  const guard = apiKeys.requirePermission('READ_GRAPH')
  return createServer((req, res) => {
    guard(req, res, (error) => {
      if (error === undefined) return handle(req, res)
      res.statusCode = 500
      res.end()
    })
  })
}

describe('a guard without Express', () => {
  it('reports the limits of the key on the response that it was given', async () => {
    const server = createGuardedServer((req, res) => {
      void apiKeys.consume(req, 2).then(() => res.end())
    })
    const { plainTextKey } = await createKey()
    const send = () => request(server).get('/').set(bearer(plainTextKey))

    const first = await send()
    const second = await request(createGuardedServer((_req, res) => res.end()))
      .get('/')
      .set(bearer(plainTextKey))

    expect(first.headers['ratelimit-policy']).toBe('"burst";q=5;w=3600')
    expect(first.headers.ratelimit).toMatch(/^"burst";r=2;t=\d+$/)
    expect(second.headers.ratelimit).toMatch(/^"burst";r=1;t=\d+$/)
  })

  it('knows the address of the connection', async () => {
    const server = createGuardedServer((req, res) => res.end(apiKeys.getApiKey(req).userId))
    const { apiKey, plainTextKey } = await createKey({ allowedIps: ['127.0.0.1'] })

    const answer = await request(server).get('/').set(bearer(plainTextKey))
    await apiKeys.flush()

    expect(answer.text).toBe('alice')
    expect((await apiKeys.get(apiKey.id)).lastUsedFrom).toBe('127.0.0.1')
  })

  it('refuses, and counts failures by address', async () => {
    const server = createGuardedServer((_req, res) => res.end())
    const denied: unknown[] = []
    const stop = apiKeys.on('denied', ({ address }) => denied.push(address))
    const statuses: number[] = []
    for (let attempt = 0; attempt < 4; attempt++) {
      const sent = request(server).get('/').set(bearer('agpt_nonsense'))
      statuses.push((await sent).status)
    }
    stop()

    expect(statuses).toEqual([401, 401, 401, 429])
    expect(denied).toEqual(Array.from({ length: 4 }, () => '127.0.0.1'))
  })
})
