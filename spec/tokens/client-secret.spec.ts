import express, { type Express } from 'express'

import type { Options, TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { vectors } from '../support/imported-keys'
import { forgeKey } from '../support/keys'
import { sendRaw } from '../support/raw-http'
import { until } from '../support/until'
import { useWorld } from '../support/world'

/** What the rest of an app finds in the headers of a request, after its answer. */
const seen: string[] = []

function addTokens(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use((req, res, next) => {
    // Node makes this view of the headers when it is first read.
    expect(req.headersDistinct).toBeDefined()
    res.on('finish', () => {
      seen.push(JSON.stringify([req.headers, req.rawHeaders, req.headersDistinct]))
    })
    next()
  })
  app.use('/oauth', keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK' } }))
}

const { apiKeys, http, rows, createKey, createProcess } = useWorld({
  documented: { tokenRouter: '/oauth' },
  routes: addTokens,
})

let gateway: string

beforeAll(async () => {
  const { plainTextKey } = await createKey({ permissions: ['EXECUTE_BLOCK'] })
  gateway = plainTextKey
})

beforeEach(() => {
  seen.length = 0
})

/** Encodes a text as the strictest clients do: every character but letters and digits. */
function encode(text: string) {
  return text.replaceAll(/[^A-Za-z0-9]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).toUpperCase()
    return `%${code.padStart(2, '0')}`
  })
}

function basic(credentials: string, scheme = 'Basic') {
  return { Authorization: `${scheme} ${Buffer.from(credentials).toString('base64')}` }
}

const asClient = (secret: string) => basic(`gateway:${secret}`)

function introspect(headers: Record<string, string>, token = gateway, to = http) {
  return to.set(headers).post('/oauth/introspect').type('form').send({ token })
}

describe('a client that sends a key as its secret', () => {
  it.each<[string, () => Record<string, string>]>([
    ['as it is', () => asClient(gateway)],
    ['encoded as in forms', () => asClient(encode(gateway))],
    ['with the scheme in capitals', () => basic(`gateway:${gateway}`, 'BASIC')],
    ['without an id', () => basic(`:${gateway}`)],
    ['with any id', () => basic(`${encode('my gateway: 1')}:${gateway}`)],
  ])('introspects: %s', async (_, headers) => {
    const { status, body } = await introspect(headers())

    expect([status, body.active]).toEqual([200, true])
  })

  it('leaves no more of the key in the headers than lists show', async () => {
    await introspect(asClient(gateway))
    await http.set(asClient(gateway)).post('/oauth/revoke').type('form').send({ token: 'x' })
    await introspect(asClient(forgeKey()))

    expect(seen).toHaveLength(3)
    for (const headers of seen) {
      expect(headers.match(/Bearer agpt_\w{6}\.\.\./g)).toHaveLength(3)
      expect(headers).not.toContain('Basic')
    }
  })

  it.each([
    ['a key that does not exist', () => asClient(forgeKey()), 'invalid_api_key'],
    ['a text that begins like a key', () => asClient('agpt_x'), 'invalid_api_key'],
    ['another secret', () => asClient('secret'), 'missing_credential'],
    ['no secret', () => asClient(''), 'missing_credential'],
    ['a key in place of the id', () => basic(`${gateway}:`), 'missing_credential'],
    ['no colon', () => basic(gateway), 'missing_credential'],
    ['a wrong encoding', () => asClient(`%${gateway}`), 'missing_credential'],
    ['no base64', () => ({ Authorization: 'Basic <>' }), 'missing_credential'],
    ['nothing', () => ({ Authorization: 'Basic ' }), 'missing_credential'],
  ])('is refused with %s', async (_, headers, code) => {
    const answer = await introspect(headers())

    expect([answer.status, answer.body.error, answer.body.code]).toEqual([
      401,
      'invalid_client',
      code,
    ])
    expect(answer.headers['www-authenticate']).toBe('Basic realm="api"')
    expect(answer.headers['content-type']).toBe('application/json')
  })

  it.each<[string, () => string]>([
    ['a wrong encoding behind it', () => `${gateway}%`],
    ['a line break behind it', () => `${gateway}\nX-Other: 1`],
    ['a space behind it', () => `${gateway} `],
    ['a letter that is not ASCII behind it', () => `${gateway}é`],
  ])('is refused with a key and %s, and leaves nothing of it in the headers', async (_, secret) => {
    const { status, body } = await introspect(asClient(secret()))

    expect([status, body.error, body.code]).toEqual([
      400,
      'invalid_request',
      'malformed_credential',
    ])
    expect(seen).toEqual([expect.not.stringContaining('Basic')])
    expect(seen[0]?.match(/"Bearer agpt_\w{6}\.\.\."/g)).toHaveLength(3)
  })

  it.each<[string, () => [string, string]]>([
    ['Basic twice', () => [asClient(gateway).Authorization, asClient(forgeKey()).Authorization]],
    [
      'another secret, then the key',
      () => [asClient('x').Authorization, asClient(gateway).Authorization],
    ],
    ['a token, then the key', () => ['Bearer a.b.c', asClient(gateway).Authorization]],
    [
      'the key as a token, then as a secret',
      () => [`Bearer ${gateway}`, asClient(gateway).Authorization],
    ],
  ])('is refused with two lines, and leaves nothing of either: %s', async (_, values) => {
    for (const wish of [{ isGuarded: false }, { isGuarded: true }]) {
      const app = express()
      if (wish.isGuarded) app.use(apiKeys.maskKeys(), apiKeys.authenticate({ optional: true }))
      addTokens(app, apiKeys)
      seen.length = 0

      const { status, body } = await sendRaw(app, [
        'POST /oauth/introspect HTTP/1.1',
        ...values().map((value) => `Authorization: ${value}`),
        'Content-Length: 0',
      ])

      expect([status, JSON.parse(body).code]).toEqual([400, 'multiple_credentials'])
      const keys = values().map((value) => value.replace('Basic ', ''))
      const [headers = ''] = seen
      for (const key of keys.filter((key) => key.length > 40)) expect(headers).not.toContain(key)
      expect(headers).not.toContain(gateway)
    }
  })

  it('leaves no key in the headers of a request that no guard reads', async () => {
    await http.set(asClient(gateway)).get('/oauth/introspect')
    await http.set({ Authorization: `Bearer ${gateway}` }).get('/oauth/introspect')
    await introspect({ ...asClient(gateway), 'Sec-Fetch-Site': 'cross-site' })

    expect(seen).toHaveLength(3)
    for (const headers of seen) {
      expect(headers.match(/Bearer agpt_\w{6}\.\.\./g)).toHaveLength(3)
      expect(headers).not.toContain('Basic')
      expect(headers).not.toContain(gateway)
    }
  })

  it('is refused by the permission of its key, without a challenge', async () => {
    const { plainTextKey } = await createKey()

    const { status, body, headers } = await introspect(asClient(plainTextKey))

    expect([status, body.error, body.missing]).toEqual([
      403,
      'insufficient_scope',
      ['EXECUTE_BLOCK'],
    ])
    expect(headers).not.toHaveProperty('www-authenticate')
  })

  it('names the realm of the app', async () => {
    const { http } = createProcess({ realm: 'a "b"' }, addTokens)

    const { headers } = await introspect(asClient('x'), gateway, http)

    expect(headers['www-authenticate']).toBe('Basic realm="a \\"b\\""')
  })

  it('is known behind a guard of the whole app, and behind maskKeys', async () => {
    const { http } = createProcess({}, (app, keys) => {
      app.use(keys.maskKeys(), keys.authenticate({ optional: true }))
      addTokens(app, keys)
    })

    expect((await introspect(asClient(gateway), gateway, http)).body.active).toBe(true)
  })

  it('is refused if it sends a second credential', async () => {
    const headers = { ...asClient(gateway), 'X-API-Key': gateway }
    const { http } = createProcess({ header: 'X-API-Key' }, addTokens)

    const { status, body } = await introspect(headers, gateway, http)

    expect([status, body.error, body.code]).toEqual([
      400,
      'invalid_request',
      'multiple_credentials',
    ])
    expect(seen).toEqual([expect.not.stringContaining(gateway)])
  })

  it('is refused if a guard of the whole app has read another credential before', async () => {
    const headers = { ...asClient(gateway), 'X-API-Key': gateway }
    const { http } = createProcess({ header: 'X-API-Key' }, (app, keys) => {
      app.use(keys.maskKeys(), keys.authenticate({ optional: true }))
      addTokens(app, keys)
    })

    const { status, body } = await introspect(headers, gateway, http)

    expect([status, body.code]).toEqual([400, 'multiple_credentials'])
    expect(seen).toEqual([expect.not.stringContaining(gateway)])
  })

  it('counts towards the limits of its key, and as a use of it', async () => {
    const limits = { burst: { limit: 1, windowSeconds: 3_600 } }
    const limited = createProcess({ limits }, addTokens)
    const { id, plainTextKey } = await createKey({ permissions: ['EXECUTE_BLOCK'] })

    const answers = [
      await introspect(asClient(plainTextKey), gateway, limited.http),
      await introspect(asClient(plainTextKey), gateway, limited.http),
    ]

    expect(answers.map(({ status, body }) => [status, body.error])).toEqual([
      [200, undefined],
      [429, 'temporarily_unavailable'],
    ])
    await limited.apiKeys.flush()
    expect((await apiKeys.usage(id)).totals).toMatchObject({ accepted: 1, rateLimited: 1 })
  })

  it('counts as a failed attempt of its address', async () => {
    const strict = createProcess({ maxFailedAttemptsPerMinute: 2 }, addTokens)
    const from = { 'X-Forwarded-For': '203.0.113.20' }
    const statuses = []
    for (let count = 0; count < 4; count++) {
      const headers = { ...asClient(`agpt_${count}`), ...from }
      statuses.push((await introspect(headers, gateway, strict.http)).status)
    }

    expect(statuses).toEqual([401, 401, 429, 429])
  })

  it('gets no wrong answer without the database', async () => {
    const { http } = createProcess({ sequelize: databaseAway.connect() }, addTokens)

    const { status, body } = await introspect(asClient(forgeKey()), gateway, http)

    expect([status, body.error]).toEqual([503, 'temporarily_unavailable'])
  })
})

describe('a client that sends a key of another system as its secret', () => {
  it.each(Object.entries(vectors).filter(([name]) => /^(better-auth|sanctum|adonis)$/.test(name)))(
    'introspects, and the key is masked: %s',
    async (_, { source, key, row }) => {
      const importing = createProcess({ imports: [source] }, addTokens)
      await importing.apiKeys.importKeys(source.name, [
        { ...row, userId: 'alice', permissions: ['EXECUTE_BLOCK'] },
      ])

      const encoded = await introspect(asClient(encode(key)), gateway, importing.http)
      const asItIs = await introspect(asClient(key), gateway, importing.http)

      expect([encoded.body.active, asItIs.body.active]).toEqual([true, true])
      for (const headers of seen) {
        expect(headers).not.toContain('Basic')
        expect(headers).not.toContain(key)
        expect(headers).toContain(`Bearer ${key.slice(0, 6)}...`)
      }
    },
  )
})

async function failToAnswer(): Promise<boolean> {
  throw new Error('no list')
}

describe('a page of another site', () => {
  it.each([{ 'Sec-Fetch-Site': 'cross-site' }, { Origin: 'https://evil.example' }])(
    'is refused if the browser sends a secret that it has kept: %j',
    async (from) => {
      const { id, plainTextKey } = await createKey({ permissions: ['EXECUTE_BLOCK'] })

      const { status, body } = await introspect({ ...asClient(plainTextKey), ...from })

      expect([status, body.error, body.code]).toEqual([
        403,
        'invalid_request',
        'cross_site_request',
      ])
      await apiKeys.flush()
      expect((await apiKeys.usage(id)).totals.accepted).toBe(0)
    },
  )

  it('may ask if the app trusts it', async () => {
    const trusting = createProcess({ trustedOrigins: ['https://admin.example'] }, addTokens)
    const headers = { Origin: 'https://admin.example', 'Sec-Fetch-Site': 'cross-site' }

    const { body } = await introspect({ ...asClient(gateway), ...headers }, gateway, trusting.http)

    expect(body.active).toBe(true)
  })

  it('is answered by the app if the app cannot say whom it trusts', async () => {
    const { http } = createProcess({ trustedOrigins: failToAnswer }, addTokens)

    const headers = { ...asClient(gateway), Origin: 'https://admin.example' }

    expect((await introspect(headers, gateway, http)).status).toBe(500)
  })
})

const createStrict = (options: Options) => createProcess(options, addTokens).http

describe('over plain HTTP', () => {
  const overHttp = { 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'http' }

  it.each(['/oauth/introspect', '/oauth/revoke'])('is refused at %s, and masked', async (path) => {
    const strict = createStrict({ insecureTransport: 'refuse' })

    const { status, body } = await strict.set({ ...asClient(gateway), ...overHttp }).post(path)

    expect([status, body.code]).toEqual([403, 'insecure_transport'])
    expect(seen.join()).toContain(`${gateway.slice(0, 'agpt_'.length + 6)}...`)
    expect(seen.join()).not.toContain('Basic')
  })

  it('loses its key if the app wants that', async () => {
    const strict = createStrict({ insecureTransport: 'revoke' })
    const { id, plainTextKey } = await createKey({ permissions: ['EXECUTE_BLOCK'] })

    const answer = await introspect({ ...asClient(plainTextKey), ...overHttp }, gateway, strict)

    expect(answer.status).toBe(403)
    await until(async () => {
      const [row] = await rows(`SELECT status FROM api_keys WHERE id = '${id}'`)
      return row?.status === 'REVOKED'
    })
  })
})

describe('POST /revoke', () => {
  it('takes a client with a secret, and goes by the key of the body alone', async () => {
    for (const secret of [gateway, forgeKey(), 'secret']) {
      const { id, plainTextKey } = await createKey()

      const sent = http.set(asClient(secret)).post('/oauth/revoke').type('form')
      expect((await sent.send({ token: plainTextKey })).status).toBe(200)

      expect((await apiKeys.get(id)).status).toBe('REVOKED')
    }
    expect((await introspect(asClient(gateway))).body.active).toBe(true)
  })
})
