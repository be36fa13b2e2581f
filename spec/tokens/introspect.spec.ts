import type { Express } from 'express'

import type { ApiKeysError, TokenRouterOptions } from '../../lib'
import type { Options, TestApiKeys, TestApp } from '../support/app'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { forgeKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

type Introspect = NonNullable<TokenRouterOptions<TestApp>['introspect']>

/** A key needs the permission EXECUTE_BLOCK to introspect keys. */
const addTokens =
  (wishes: Partial<Introspect> = {}) =>
  (app: Express, keys: TestApiKeys) => {
    app.set('trust proxy', 'loopback')
    app.use(
      '/oauth',
      keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK', ...wishes } as never }),
    )
  }

const { apiKeys, http, rows, statements, createKey, createProcess } = useWorld({
  documented: { tokenRouter: '/oauth' },
  routes: addTokens(),
})

/** The key of the server that introspects other keys. */
let gateway: string

beforeAll(async () => {
  gateway = (await createGateway()).plainTextKey
})

function createGateway(keys = apiKeys) {
  return keys.create({ userId: 'gateway', name: 'Gateway', permissions: ['EXECUTE_BLOCK'] })
}

interface Wishes {
  key?: string
  to?: typeof http
  type?: string
}

/** Introspects a token, or sends a body of its own. */
function introspect(body: string | Record<string, string>, wishes: Wishes = {}) {
  const { key = gateway, to = http, type = 'form' } = wishes
  return to.with(key).post('/oauth/introspect').type(type).send(body)
}

/** The number of statements that read rows for verification, and the number of those that read records. */
function reads() {
  const records = statements.all.filter((sql) => sql.includes('AS json FROM'))
  return [statements.lookUps().length, records.length]
}

const inactive = '{"active":false}'

describe('POST /introspect', () => {
  it('says what a key may do', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { apiKey, plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'CI',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      expiresAt,
    })

    const answer = await introspect({ token: plainTextKey })

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      active: true,
      scope: 'READ_GRAPH EXECUTE_GRAPH',
      client_id: apiKey.id,
      token_type: 'Bearer',
      exp: Math.floor(expiresAt.getTime() / 1_000),
      iat: Math.floor(apiKey.createdAt.getTime() / 1_000),
      sub: 'alice',
      jti: apiKey.id,
      owner: { type: 'user', id: 'alice' },
    })
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(answer.headers['cache-control']).toBe('private, max-age=1')
    expect(answer.headers).not.toHaveProperty('etag')
  })

  it('leaves the end out for a key that does not expire', async () => {
    const { plainTextKey } = await createKey()

    expect((await introspect({ token: plainTextKey })).body).not.toHaveProperty('exp')
  })

  it('says until when an old secret works', async () => {
    const { id, plainTextKey } = await createKey()
    const { apiKey } = await apiKeys.rotate(id, { gracePeriodSeconds: 60 })
    const worksUntil = apiKey.previousSecret?.worksUntil.getTime() ?? 0

    const { body } = await introspect({ token: plainTextKey })

    expect(body).toMatchObject({ active: true, exp: Math.floor(worksUntil / 1_000), jti: id })
  })

  it('answers alike for every token that may not be used, to the byte', async () => {
    const expired = await createKey()
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    const owned = await createKey({ userId: 'olga' })
    await apiKeys.suspendOwner({ type: 'user', id: 'olga' })
    const rotated = await createKey()
    await apiKeys.rotate(rotated.id, { gracePeriodSeconds: 0 })
    const deleted = await createKey()
    await rows(`DELETE FROM api_keys WHERE id = '${deleted.id}'`)
    const good = await createKey()
    const tokens = [
      (await createKey({ status: 'REVOKED' })).plainTextKey,
      (await createKey({ status: 'SUSPENDED' })).plainTextKey,
      ...[expired, owned, rotated, deleted].map(({ plainTextKey }) => plainTextKey),
      (await createKey({ allowedIps: ['203.0.113.7'] })).plainTextKey,
      forgeKey(),
      `${good.plainTextKey}x`,
      'x',
      'eyJhbGciOiJub25lIn0.e30.',
      'x'.repeat(30_000),
    ]

    for (const token of tokens) {
      const { status, text, headers } = await introspect({ token })

      const { date: _, connection: __, ...others } = headers
      expect([status, text, others]).toEqual([
        200,
        inactive,
        {
          'x-powered-by': 'Express',
          'content-type': 'application/json; charset=utf-8',
          'content-length': '16',
          'cache-control': 'private, max-age=1',
        },
      ])
    }
  })

  it('honours the addresses of a key by the address that the caller names', async () => {
    const { plainTextKey: token } = await createKey({ allowedIps: ['203.0.113.0/24'] })

    expect((await introspect({ token, ip: '203.0.113.7' })).body.active).toBe(true)
    expect((await introspect({ token, ip: '[::ffff:203.0.113.7]:4711' })).body.active).toBe(true)
    expect((await introspect({ token, ip: '198.51.100.7' })).text).toBe(inactive)
    expect((await introspect({ token, ip: 'nonsense' })).body.error).toBe('invalid_request')
  })

  it('says so at once if this process has revoked the key', async () => {
    const { id, plainTextKey: token } = await createKey()
    expect((await introspect({ token })).body.active).toBe(true)

    await apiKeys.revoke(id)

    expect((await introspect({ token })).text).toBe(inactive)
  })

  it('says so at once if the owner of a key is suspended', async () => {
    const { plainTextKey: token } = await createKey({ userId: 'oscar' })
    expect((await introspect({ token })).body.active).toBe(true)

    await apiKeys.suspendOwner({ type: 'user', id: 'oscar' })

    expect((await introspect({ token })).text).toBe(inactive)
  })

  it('says so in every process once a revocation is known everywhere', async () => {
    const { id, plainTextKey: token } = await createKey()
    const others = [1, 2].map(() => createProcess({}, addTokens()).http)
    const answersOf = () => Promise.all(others.map((to) => introspect({ token }, { to })))
    for (const { body } of await answersOf()) expect(body.active).toBe(true)

    await apiKeys.revoke(id, { everywhere: true })

    for (const { text } of await answersOf()) expect(text).toBe(inactive)
  })

  it('lets no answer be kept longer than the key lasts', async () => {
    const { http: slow } = createProcess({ maxStalenessMs: 600_000 }, addTokens())
    const { plainTextKey: lasting } = await createKey()
    const { plainTextKey: ending } = await createKey({
      expiresAt: new Date(Date.now() + 500_000),
    })
    const maxAgeOf = async (token: string) => {
      const { headers } = await introspect({ token }, { to: slow })
      return Number(headers['cache-control']?.replace('private, max-age=', ''))
    }

    expect(await maxAgeOf(lasting)).toBe(600)
    expect(await maxAgeOf(ending)).toBeLessThanOrEqual(500)
    expect(await maxAgeOf('x')).toBe(600)
  })

  it('takes a key that is deleted meanwhile for unknown', async () => {
    // This process does not learn of the deletion by itself before the answer.
    const options = { maxStalenessMs: 600_000, listen: false }
    const slow = createProcess(options, addTokens())
    const { id, plainTextKey: token } = await createKey()
    expect((await slow.apiKeys.verify(token)).valid).toBe(true)

    await rows(`DELETE FROM api_keys WHERE id = '${id}'`)

    expect((await introspect({ token }, { to: slow.http })).text).toBe(inactive)
  })

  it('names the resources to which a key is bound', async () => {
    const bound = createProcess({ resources: { graph: true } } as never, addTokens())
    const create = async (resources: object | null) => {
      const key = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'], resources }
      return (await bound.apiKeys.create(key as never)).plainTextKey
    }
    const introspectBound = async (resources: object | null) =>
      (await introspect({ token: await create(resources) }, { to: bound.http })).body

    expect((await introspectBound({ graph: ['7', '8'] })).resources).toEqual({ graph: ['7', '8'] })
    expect(await introspectBound(null)).not.toHaveProperty('resources')
  })

  it('asks the database once about a key in use', async () => {
    const { plainTextKey: token } = await createKey()
    await introspect({ token })
    const before = reads()

    for (let time = 0; time < 5; time++) await introspect({ token })

    expect(reads()).toEqual(before)
    expect(Math.min(...before)).toBeGreaterThan(0)
  })

  it('counts no use, and nothing towards a limit, unless the app wants uses counted', async () => {
    const limits = { burst: { limit: 2, windowSeconds: 3_600 } }
    const caller = await createGateway()
    const limited = createProcess({ limits }, addTokens())
    await limited.apiKeys.update(
      caller.apiKey.id,
      { limits: { burst: null } },
      {
        actor: { type: 'system' },
      },
    )
    const { id, plainTextKey: token } = await createKey()
    const wishes = { key: caller.plainTextKey, to: limited.http }

    for (let time = 0; time < 5; time++) {
      expect((await introspect({ token }, wishes)).body.active).toBe(true)
    }
    await limited.apiKeys.flush()

    expect((await apiKeys.usage(id)).totals.accepted).toBe(0)
    expect((await apiKeys.get(id)).lastUsedAt).toBeNull()

    const hiding = createProcess({}, addTokens({ countUse: true, mayIntrospect: () => false }))
    await introspect({ token }, { to: hiding.http })
    await hiding.apiKeys.flush()
    expect((await apiKeys.usage(id)).totals.accepted).toBe(0)

    const counting = createProcess({ limits }, addTokens({ countUse: true }))
    await introspect({ token, ip: '203.0.113.7' }, { ...wishes, to: counting.http })
    await counting.apiKeys.flush()

    expect((await apiKeys.usage(id)).totals.accepted).toBe(1)
    expect(await apiKeys.get(id)).toMatchObject({
      lastUsedAt: expect.any(Date),
      lastUsedFrom: '203.0.113.7',
    })
  })

  it('is the first use of a new secret only if the app wants uses counted', async () => {
    const { id, plainTextKey: old } = await createKey()
    const wish = { gracePeriodSeconds: 0, activate: 'on-first-use' } as const
    const { plainTextKey: token } = await apiKeys.rotate(id, wish)

    expect((await introspect({ token })).body).toMatchObject({ active: true, jti: id })
    expect((await apiKeys.get(id)).pendingRotation).not.toBeNull()
    expect((await introspect({ token: old })).body.active).toBe(true)

    const counting = createProcess({}, addTokens({ countUse: true }))
    expect((await introspect({ token }, { to: counting.http })).body.active).toBe(true)
    await until(async () => (await apiKeys.get(id)).pendingRotation === null)
    await until(async () => (await introspect({ token: old })).text === inactive)
    expect((await introspect({ token })).body.active).toBe(true)
  })

  it('counts a use of the key of the caller', async () => {
    const { apiKey, plainTextKey: key } = await createGateway()

    await introspect({ token: 'x' }, { key })
    await apiKeys.flush()

    expect((await apiKeys.usage(apiKey.id)).totals.accepted).toBe(1)
  })

  it('shows the key of the caller to itself', async () => {
    expect((await introspect({ token: gateway })).body).toMatchObject({ scope: 'EXECUTE_BLOCK' })
  })

  it('has the permissions that the owner of the key holds as well', async () => {
    const granted: Record<string, string[]> = { alice: ['READ_GRAPH'], gateway: ['EXECUTE_BLOCK'] }
    const options: Options = { grantable: ({ id }) => (granted[id] ?? []) as never }
    const narrow = createProcess(options, addTokens())
    const { plainTextKey: token } = await createKey({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })
    const { plainTextKey: poor } = await createKey({ userId: 'bob' })

    expect((await introspect({ token }, { to: narrow.http })).body.scope).toBe('READ_GRAPH')
    const { body } = await introspect({ token: poor }, { to: narrow.http })
    expect(body).toMatchObject({ active: true, sub: 'bob' })
    expect(body).not.toHaveProperty('scope')
  })

  it('answers 503 if that cannot be known', async () => {
    const options: Options = {
      grantable: ({ id }) =>
        id === 'gateway' ? ['EXECUTE_BLOCK'] : Promise.reject(new Error('no roles')),
    }
    const without = createProcess(options, addTokens())
    const { plainTextKey: token } = await createKey()

    const { status, headers, body } = await introspect({ token }, { to: without.http })

    expect([status, body.error, body.code]).toEqual([
      503,
      'temporarily_unavailable',
      'grantable_unavailable',
    ])
    expect(headers['retry-after']).toBe('1')
  })

  it('answers 503 while the database is away, and takes garbage for what it is', async () => {
    // A process whose own caller is known cannot be had without a database: the guard answers 503 before.
    const away = createProcess({ sequelize: databaseAway.connect() }, addTokens())

    const { status, body } = await introspect({ token: forgeKey() }, { to: away.http })

    expect([status, body.code]).toEqual([503, 'database_unavailable'])
    expect((await introspect({ token: 'x' }, { to: away.http, key: 'agpt_x' })).status).toBe(401)
  })

  it('names users apart from all others, whatever their ids are', async () => {
    const services = createProcess(
      { services: true as never, organizations: {} as never },
      addTokens(),
    )
    const create = services.apiKeys.create as unknown as (
      input: object,
    ) => ReturnType<typeof apiKeys.create>
    const owners = [
      [{ type: 'user', id: 'alice' }, 'alice'],
      [{ type: 'organization', id: 'acme' }, 'organization:acme'],
      [{ type: 'service', id: 'nightly' }, 'service:nightly'],
      [{ type: 'user', id: 'organization:acme' }, 'user:organization:acme'],
      [{ type: 'user', id: 'user:alice' }, 'user:user:alice'],
    ] as const

    for (const [owner, sub] of owners) {
      const { plainTextKey: token } = await create({
        owner,
        name: 'CI',
        permissions: ['READ_GRAPH'],
      })
      expect((await introspect({ token }, { to: services.http })).body).toMatchObject({
        owner,
        sub,
      })
    }
  })
})

describe('the caller', () => {
  it.each([
    ['without a key', () => ({}), 401, 'invalid_client', 'Bearer realm="api"'],
    [
      'with a key of nobody',
      () => bearer(forgeKey()),
      401,
      'invalid_token',
      'Bearer realm="api", error="invalid_token"',
    ],
    [
      'with a JWT',
      () => bearer('a.b.c'),
      401,
      'invalid_token',
      'Bearer realm="api", error="invalid_token"',
    ],
    [
      'with two keys',
      () => ({ Authorization: `Bearer ${gateway}, Bearer ${gateway}` }),
      400,
      'invalid_request',
      'Bearer realm="api", error="invalid_request"',
    ],
  ])('%s is refused, and learns nothing', async (_, headersOf, status, error, challenge) => {
    const { plainTextKey: token } = await createKey()

    const answer = await http
      .set(headersOf())
      .post('/oauth/introspect')
      .type('form')
      .send({ token })

    expect(answer.status).toBe(status)
    expect(answer.headers['www-authenticate']).toBe(challenge)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toMatchObject({ error, error_description: answer.body.detail, status })
    expect(answer.body).not.toHaveProperty('active')
  })

  it('without the permission is refused, even about its own key', async () => {
    const { plainTextKey } = await createKey()

    const answer = await introspect({ token: plainTextKey }, { key: plainTextKey })

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="EXECUTE_BLOCK"',
    )
    expect(answer.body).toMatchObject({ error: 'insufficient_scope', missing: ['EXECUTE_BLOCK'] })
  })

  it('is limited like every other key', async () => {
    const limited = createProcess(
      { limits: { burst: { limit: 1, windowSeconds: 3_600 } } },
      addTokens(),
    )
    const { plainTextKey: key } = await createGateway()

    expect((await introspect({ token: 'x' }, { key, to: limited.http })).status).toBe(200)
    const { status, body, headers } = await introspect({ token: 'x' }, { key, to: limited.http })

    expect([status, body.code]).toEqual([429, 'rate_limited'])
    expect(headers).toHaveProperty('retry-after')
  })

  it('sees the keys that the app lets it see, and no others', async () => {
    const asked: unknown[] = []
    const answers: Record<string, unknown> = {
      alice: true,
      bob: 'yes',
      carol: 1,
      dave: false,
      erin: null,
    }
    const choosy = createProcess(
      {},
      addTokens({
        mayIntrospect: async (caller, { owner }) => {
          asked.push([caller.userId, owner.id])
          return answers[owner.id] as boolean
        },
      }),
    )

    for (const userId of Object.keys(answers)) {
      const { plainTextKey: token } = await createKey({ userId })
      const { body } = await introspect({ token }, { to: choosy.http })
      expect([userId, body.active]).toEqual([userId, userId === 'alice'])
    }
    expect(asked).toEqual(Object.keys(answers).map((userId) => ['gateway', userId]))

    // About a key that is not good, the app is not asked.
    await introspect(
      { token: (await createKey({ status: 'REVOKED' })).plainTextKey },
      { to: choosy.http },
    )
    expect(asked).toHaveLength(5)
  })

  it('gets the error handler of the app if that function fails', async () => {
    const failing = createProcess(
      {},
      addTokens({
        mayIntrospect: () => {
          throw new Error('no rules today')
        },
      }),
    )
    const { plainTextKey: token } = await createKey()

    const { status, body } = await introspect({ token }, { to: failing.http })

    expect([status, body]).toEqual([500, { app: 'no rules today' }])
  })

  it('is refused over plain HTTP if the app refuses that, and its key is revoked', async () => {
    const strict = createProcess({ insecureTransport: 'revoke' }, addTokens())
    const { apiKey, plainTextKey } = await createGateway()
    const { plainTextKey: token } = await createKey()
    const isRevoked = new Promise((resolve) => strict.apiKeys.on('revoked', resolve))

    const { status, body } = await strict.http
      .set({ ...bearer(plainTextKey), 'X-Forwarded-Proto': 'http' })
      .post('/oauth/introspect')
      .type('form')
      .send({ token })

    expect([status, body.error, body.code]).toEqual([403, 'invalid_request', 'insecure_transport'])
    await isRevoked
    expect((await apiKeys.get(apiKey.id)).status).toBe('REVOKED')
  })
})

describe('a request of a token endpoint', () => {
  const malformed: [string, string, string][] = [
    ['has no token', 'form', 'token_type_hint=access_token'],
    ['has no body', 'form', ''],
    ['has an empty token', 'form', 'token='],
    ['has a token twice', 'form', 'token=x&token=x'],
    ['has a token and an empty one', 'form', 'token=x&token='],
    ['has another parameter twice', 'form', 'token=x&token_type_hint=a&token_type_hint=b'],
    ['is JSON', 'json', '{"token":"x"}'],
    ['is text', 'text', 'token=x'],
    ['has an object for a token', 'form', 'token[a]=x'],
  ]

  it.each(malformed)('is refused with 400 if it %s', async (_, type, body) => {
    for (const path of ['introspect', 'revoke']) {
      const answer = await http.with(gateway).post(`/oauth/${path}`).type(type).send(body)

      expect([path, answer.status, answer.body.error, answer.body.code]).toEqual([
        path,
        400,
        'invalid_request',
        'malformed_token_request',
      ])
      expect(answer.headers['cache-control']).toBe('no-store')
    }
  })

  it('takes no token from the query', async () => {
    for (const path of ['introspect', 'revoke']) {
      const { status } = await http
        .with(gateway)
        .post(`/oauth/${path}?token=x`)
        .type('form')
        .send('')
      expect(status).toBe(400)
    }
  })

  it('may name a type, and parameters that are not known', async () => {
    const { plainTextKey: token } = await createKey()

    for (const hint of ['access_token', 'refresh_token', 'nonsense', '']) {
      const { body } = await introspect({
        token,
        token_type_hint: hint,
        client_id: 'x',
        resource: 'y',
      })
      expect(body.active).toBe(true)
    }
  })

  it('is refused with 413 if it is over 32 kB, whatever it says about that', async () => {
    for (const path of ['introspect', 'revoke']) {
      const sized = await http
        .with(gateway)
        .post(`/oauth/${path}`)
        .type('form')
        .send(`token=${'x'.repeat(33_000)}`)
      expect([sized.status, sized.body.error]).toEqual([413, 'invalid_request'])

      const chunked = http
        .with(gateway)
        .post(`/oauth/${path}`)
        .type('form')
        .set('Transfer-Encoding', 'chunked')
      chunked.write(`token=${'x'.repeat(33_000)}`)
      expect((await chunked).status).toBe(413)
    }
  })

  it('may have been read by a parser of the app', async () => {
    const { plainTextKey: token } = await createKey()
    const parsers = (await import('express')).default
    for (const parse of [
      parsers.urlencoded({ extended: true }),
      parsers.urlencoded({ extended: false }),
      parsers.text({ type: () => true }),
      parsers.raw({ type: () => true }),
    ]) {
      const parsed = createProcess({}, (app, keys) => {
        app.use(parse)
        addTokens()(app, keys)
      })
      const send = (body: string) => introspect(body, { to: parsed.http })

      expect((await send(`token=${token}`)).body.active).toBe(true)
      expect((await send('token=x&token=y')).status).toBe(400)
      expect((await send('token=')).status).toBe(400)
      expect((await send('__proto__=x&token=y')).text).toBe(inactive)
    }
  })

  it('leaves no key on the request', async () => {
    const seen: unknown[] = []
    const { http } = createProcess({}, (app, keys) => {
      app.use((req, res, next) => {
        res.on('finish', () => seen.push(req.body, req.headers.authorization))
        next()
      })
      addTokens()(app, keys)
    })
    const { plainTextKey: token } = await createKey()

    await introspect({ token }, { to: http })

    expect(seen).toEqual([undefined, expect.not.stringContaining(gateway)])
  })

  it('has an answer of the app if the app answers refusals itself', async () => {
    const own = createProcess(
      {
        onRefusal: (error: ApiKeysError, _req, res) =>
          res.status(error.status).json({ app: error.code }),
      },
      addTokens(),
    )

    expect((await own.http.post('/oauth/introspect')).body).toEqual({ app: 'missing_credential' })
    expect((await own.http.post('/oauth/revoke')).body).toEqual({ app: 'malformed_token_request' })
  })
})
