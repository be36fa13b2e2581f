import type { Express } from 'express'
import request from 'supertest'

import { sources } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { vectors, withOther, type Vector } from '../support/imported-keys'
import { useWorld } from '../support/world'

function vectorOf(name: string): Vector {
  const vector = vectors[name]
  if (!vector) throw new Error(`There is no vector ${name}`)
  return vector
}

const names = ['better-auth', 'sanctum', 'drf-api-key', 'knox', 'payload', 'medusa', 'gitlab']
const all = names.map(vectorOf)

/** Basic credentials with a user and no password. */
function basic(user: string) {
  return `Basic ${Buffer.from(`${user}:`).toString('base64')}`
}

/** Answers with the headers as a logger behind the guard sees them. */
function routes(app: Express, apiKeys: TestApiKeys) {
  app.get('/seen', apiKeys.authenticate(), (req, res) => {
    res.json({ id: apiKeys.getApiKey(req).id, headers: req.headers, lines: req.rawHeaders })
  })
  app.get('/refused', apiKeys.authenticate({ optional: true }), (req, res) => {
    res.json({ headers: req.headers, lines: req.rawHeaders })
  })
  app.get('/masked', apiKeys.maskKeys(), (req, res) => {
    res.json({ headers: req.headers, lines: req.rawHeaders })
  })
}

describe('a request with an imported key', () => {
  const world = useWorld({ options: { imports: all.map(({ source }) => source) }, routes })

  beforeAll(async () => {
    for (const { source, row } of all) await world.apiKeys.importKeys(source.name, [row])
  })

  const sendings = all.flatMap(({ source, key }) =>
    [
      { authorization: `Bearer ${key}` },
      ...(source.schemes ?? []).map((scheme) => ({
        authorization: scheme === 'Basic' ? basic(key) : `${scheme} ${key}`,
      })),
      ...(source.headers ?? []).map((name) => ({ [name]: key })),
    ].map((headers): [string, string, Record<string, string>] => [source.name, key, headers]),
  )

  it.each(sendings)('of %s is accepted, and masked: %s %j', async (_, key, headers) => {
    const { body, status } = await request(world.app).get('/seen').set(headers)

    expect(status).toBe(200)
    const seen = JSON.stringify(body)
    expect(seen).not.toContain(key)
    expect(seen).not.toContain(Buffer.from(`${key}:`).toString('base64'))
    expect(seen).toContain('...')
  })

  it.each(sendings)(
    'of %s that is wrong is refused, and masked: %s %j',
    async (_, key, headers) => {
      const wrong = withOther(key, key.length - 9)
      const sent = Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [
          name,
          value.startsWith('Basic') ? basic(wrong) : value.replace(key, wrong),
        ]),
      )
      const seen = await request(world.app).get('/masked').set(sent)
      const refused = await request(world.app).get('/seen').set(sent)

      expect(refused.status).toBe(401)
      expect(JSON.stringify(seen.body)).not.toContain(wrong)
    },
  )

  it.each([
    '',
    'Token',
    'Token ',
    'Api-Key x',
    'users API-Key',
    'Basic',
    'Basic %%%',
    'Basic c2s6',
  ])('is not seen in %j', async (authorization) => {
    const { status, body } = await request(world.app).get('/seen').set({ authorization })

    expect([status, body.code]).toEqual([401, 'missing_credential'])
  })

  it('is refused beside another key', async () => {
    const { status, body } = await request(world.app)
      .get('/seen')
      .set({
        authorization: `Bearer ${vectorOf('knox').key}`,
        'x-api-key': vectorOf('better-auth').key,
      })

    expect([status, body.code]).toEqual([400, 'multiple_credentials'])
  })

  it('may not use the routes for keys', async () => {
    const { status } = await request(world.app)
      .get('/api-keys')
      .set({ 'x-user': 'alice', authorization: `Token ${vectorOf('knox').key}` })

    expect(status).toBe(403)
  })

  it('goes on with a key of ours in the same header once it was rotated', async () => {
    const { key, source } = vectorOf('better-auth')
    const { body } = await request(world.app).get('/seen').set({ 'x-api-key': key })
    const { plainTextKey } = await world.apiKeys.rotate(body.id)
    const [name = ''] = source.headers ?? []
    const after = await request(world.app)
      .get('/seen')
      .set({ [name]: plainTextKey })

    expect([after.status, after.body.id]).toEqual([200, body.id])
    expect(JSON.stringify(after.body)).not.toContain(plainTextKey)
  })

  it('is named in the paths that loggers redact', () => {
    expect(world.apiKeys.redactionPaths).toContain('req.headers["x-api-key"]')
    expect(world.apiKeys.redactionPaths).toContain('req.headers["private-token"]')
  })
})

describe('a request to an app without imported keys', () => {
  const world = useWorld({ routes })

  it('is read as before: schemes and headers of other systems are none of ours', async () => {
    const { key } = vectorOf('knox')
    const token = await request(world.app)
      .get('/seen')
      .set({ authorization: `Token ${key}` })
    const header = await request(world.app).get('/seen').set({ 'x-api-key': key })
    const seen = await request(world.app)
      .get('/masked')
      .set({ authorization: `Bearer ${key}` })

    expect([token.body.code, header.body.code]).toEqual([
      'missing_credential',
      'missing_credential',
    ])
    expect(seen.body.headers.authorization).toBe(`Bearer ${key}`)
  })
})

describe('an imported key of an app with environments', () => {
  const world = useWorld()

  it('belongs to the environment of its source', async () => {
    const { key, row } = vectorOf('knox')
    const apiKeys = world.createProcess({
      keyPrefix: undefined,
      environments: { live: 'acme_live', test: 'acme_test' },
      acceptedEnvironments: ['live'],
      imports: [{ ...sources.knox(), environment: 'test' }],
    } as never).apiKeys
    await apiKeys.importKeys('knox', [row])

    expect(await apiKeys.verify(key)).toMatchObject({ code: 'environment_not_allowed' })
    expect(await apiKeys.verify(key, { environment: 'test' } as never)).toMatchObject({
      valid: true,
    })
    const { apiKeys: listed } = await apiKeys.list({ environment: 'test' } as never)
    expect(listed).toMatchObject([{ environment: 'test', source: 'knox' }])
    const { plainTextKey } = await apiKeys.rotate(String(listed[0]?.id))
    expect(plainTextKey).toMatch(/^acme_test_/)
  })
})
