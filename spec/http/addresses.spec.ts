import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, request as sendRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'

import express, { type Express } from 'express'
import request from 'supertest'

import type { RequestDenied } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { readmeBlocks } from '../support/readme'
import { useWorld } from '../support/world'

const { createProcess } = useWorld()
const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
let apiKeys: TestApiKeys

beforeEach(() => {
  ;({ apiKeys } = createProcess({ lastUsedResolutionMs: 0, maxFailedAttemptsPerMinute: 3 }))
})

afterAll(() => emitWarning.mockRestore())

/** Makes an app with this setting of `trust proxy`. */
function createApp(trustProxy: unknown) {
  const app = express().set('trust proxy', trustProxy)
  return app.get('/', apiKeys.authenticate(), (_req, res) => {
    res.end()
  })
}

const get = (app: Express, key: string, forwardedFor = '') =>
  request(app).get('/').set('Authorization', `Bearer ${key}`).set('X-Forwarded-For', forwardedFor)

/** The codes of all warnings until now. */
const warningCodes = () =>
  emitWarning.mock.calls.map(([, options]) => (options as { code: string }).code)

describe('the address of a client', () => {
  it('is not read again for a key that may come from anywhere', async () => {
    const { apiKeys } = createProcess({ lastUsedResolutionMs: 3_600_000 })
    const { plainTextKey } = await apiKeys.create(newKey())
    let reads = 0
    const app = express()
    app.use((req, _res, next) => {
      Object.defineProperty(req, 'ip', {
        get() {
          reads++
          return '203.0.113.7'
        },
      })
      next()
    })
    app.get('/', apiKeys.authenticate(), (_req, res) => {
      res.end()
    })
    await get(app, plainTextKey).expect(200)
    const first = reads

    await get(app, plainTextKey).expect(200)

    expect(first).toBeGreaterThan(0)
    expect(reads).toBe(first)
  })

  it.each([
    ['203.0.113.7', '203.0.113.7:52311'],
    ['2001:db8::1', '[2001:db8::1]:4711'],
    ['2001:db8::2', '[2001:db8::2]'],
    ['203.0.113.8', '::ffff:203.0.113.8'],
  ])('%s is the same for policies, usage and events, sent as %s', async (address, sent) => {
    const app = createApp(1)
    const denied: RequestDenied[] = []
    apiKeys.on('denied', (notice) => denied.push(notice))
    const bound = await apiKeys.create(newKey({ allowedIps: [address] }))
    const elsewhere = await apiKeys.create(newKey({ allowedIps: ['198.51.100.1'] }))

    const passed = await get(app, bound.plainTextKey, sent)
    const refused = await get(app, elsewhere.plainTextKey, sent)
    await apiKeys.flush()

    expect([passed.status, refused.body.code]).toEqual([200, 'address_not_allowed'])
    expect((await apiKeys.get(bound.apiKey.id)).lastUsedFrom).toBe(address)
    expect(denied).toMatchObject([{ address }])
  })

  it('is counted for failed attempts, whatever its port', async () => {
    const app = createApp(1)
    const codes: string[] = []
    for (let port = 2000; port < 2005; port++) {
      codes.push((await get(app, 'agpt_nonsense', `203.0.113.9:${port}`)).body.code)
    }
    const other = await get(app, 'agpt_nonsense', '203.0.113.10:2000')

    expect(codes.slice(2)).toEqual(['invalid_api_key', 'too_many_attempts', 'too_many_attempts'])
    expect(other.body.code).toBe('invalid_api_key')
  })

  it('is counted together with all addresses that cannot be read', async () => {
    const app = createApp(1)
    for (const sent of ['unknown', '_hidden', 'nonsense']) await get(app, 'agpt_nonsense', sent)
    const folder = await mkdtemp(join(tmpdir(), 'addresses-'))
    const server = createServer(app).listen(join(folder, 'socket'))
    await once(server, 'listening')

    const sent = sendRequest({
      socketPath: join(folder, 'socket'),
      headers: { Authorization: 'Bearer agpt_nonsense' },
    }).end()
    const [{ statusCode }] = await once(sent, 'response')
    sent.destroy()
    server.close()
    await rm(folder, { recursive: true })

    expect(statusCode).toBe(429)
    expect((await get(app, 'agpt_nonsense', '203.0.113.11')).status).toBe(401)
  })

  it('may be given to functions as it comes', async () => {
    const { plainTextKey, apiKey } = await apiKeys.create(newKey({ allowedIps: ['203.0.113.7'] }), {
      address: '203.0.113.7:52311',
    })

    expect(await apiKeys.verify(plainTextKey, { ip: '203.0.113.7:52311' })).toMatchObject({
      valid: true,
    })
    expect((await apiKeys.events({ apiKeyId: apiKey.id })).events).toMatchObject([
      { address: '203.0.113.7' },
    ])
  })

  it('causes a warning if it cannot be known and a key needs it', async () => {
    const { plainTextKey } = await apiKeys.create(newKey({ allowedIps: ['203.0.113.7'] }))

    expect((await get(createApp(1), plainTextKey, 'unknown')).status).toBe(403)

    expect(warningCodes()).toContain('API_KEYS_ADDRESS_UNKNOWN')
  })
})

describe('README, "Behind proxies"', () => {
  const setting = String(readmeBlocks('ts').find((block) => block.includes('trust proxy')))
  const real = '198.51.100.7'
  const forged = '203.0.113.7'

  /** Uses a key with an address that is not the client's, but that the client claims. */
  async function claim(app: Express) {
    const { plainTextKey, apiKey } = await apiKeys.create(newKey({ allowedIps: [forged, real] }))
    const { status } = await get(app, plainTextKey, `${forged}, ${real}`)
    await apiKeys.flush()
    return { status, lastUsedFrom: (await apiKeys.get(apiKey.id)).lastUsedFrom }
  }

  it('has a setting by which the app sees the address that the proxy has seen', async () => {
    const app = createApp(false)
    runInNewContext(setting, { app })

    expect(await claim(app)).toEqual({ status: 200, lastUsedFrom: real })
    expect(warningCodes()).not.toContain('API_KEYS_TRUST_PROXY')
  })

  it('describes addresses without the setting', async () => {
    expect(await claim(createApp(false))).toMatchObject({ status: 403 })
  })

  it('describes addresses with true, which causes one warning', async () => {
    const app = createApp(true)

    expect(await claim(app)).toEqual({ status: 200, lastUsedFrom: forged })
    await claim(createApp(true))
    expect(warningCodes().filter((code) => code === 'API_KEYS_TRUST_PROXY')).toHaveLength(1)
  })
})
