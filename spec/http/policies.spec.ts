import { once } from 'node:events'
import type { Server } from 'node:http'

import request from 'supertest'

import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

const day = 86_400

let database: Database
/** As in the process that answers, and in another one. */
let apiKeys: TestApiKeys
let elsewhere: TestApiKeys
let server: Server

beforeAll(async () => {
  database = await createDatabase()
  const options = { maxLifetimeSeconds: 30 * day, reservedMetadata: ['plan', 'region'] }
  apiKeys = createTestApiKeys(database, options)
  elsewhere = createTestApiKeys(database, options)
  const app = createTestApp(apiKeys, (app) => {
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
      res.json(apiKeys.getApiKey(req).metadata)
    })
  })
  server = app.set('trust proxy', true).listen(0)
  await once(server, 'listening')
})

afterAll(async () => {
  server.close()
  await database.drop()
})

const as = (user: string) => request.agent(server).set('X-User', user)

const inDays = (days: number) => new Date(Date.now() + days * day * 1000).toISOString()

const body = (wishes: object = {}) => ({
  name: 'CI',
  permissions: ['READ_GRAPH'],
  expiresAt: inDays(7),
  ...wishes,
})

/** Metadata of so many bytes. */
function filled(bytes: number) {
  return { a: 'x'.repeat(bytes - '{"a":""}'.length) }
}

async function create(wishes: object = {}, user = 'alice') {
  const answer = await as(user).post('/api-keys').send(body(wishes))
  expect(answer.status).toBe(201)
  return answer.body as { apiKey: { id: string }; plainTextKey: string }
}

function use(plainTextKey: string, from: string) {
  return request(server)
    .get('/graphs')
    .set('Authorization', `Bearer ${plainTextKey}`)
    .set('X-Forwarded-For', from)
}

describe('expiresAt', () => {
  it.each([
    ['none', undefined, 'is required here'],
    ['never', null, 'is required here'],
    ['too late', inDays(31), expect.stringMatching(/^must not be later than \d{4}-/)],
  ])('is refused at creation: %s', async (_, expiresAt, message) => {
    const answer = await as('alice').post('/api-keys').send(body({ expiresAt }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: '#/expiresAt', message }])
  })

  it('moves up to the longest lifetime, counted from the creation', async () => {
    const { apiKey } = await create()
    const change = (expiresAt: unknown) =>
      as('alice').patch(`/api-keys/${apiKey.id}`).send({ expiresAt })

    expect(await change(inDays(29))).toMatchObject({ status: 200 })
    expect(await change(inDays(31))).toMatchObject({ status: 422 })
    expect(await change(null)).toMatchObject({ status: 422 })
    expect(await as('alice').patch(`/api-keys/${apiKey.id}`).send({ name: 'Other' })).toMatchObject(
      { status: 200 },
    )
  })
})

describe('allowedIps', () => {
  it('admit requests from these addresses only, as Express knows them', async () => {
    const { apiKey, plainTextKey } = await create({
      allowedIps: ['203.0.113.0/24', '2001:db8:0::1'],
    })

    expect(apiKey).toMatchObject({ allowedIps: ['203.0.113.0/24', '2001:db8::1'] })
    expect((await use(plainTextKey, '203.0.113.7')).status).toBe(200)
    expect((await use(plainTextKey, '::ffff:203.0.113.7')).status).toBe(200)
    expect((await use(plainTextKey, '2001:db8::1')).status).toBe(200)
    for (const from of ['198.51.100.7', '2001:db8::2', 'nonsense']) {
      const answer = await use(plainTextKey, from)
      expect(answer.status).toBe(403)
      expect(answer.headers['content-type']).toBe('application/problem+json')
      expect(answer.headers['www-authenticate']).toBeUndefined()
      expect(answer.body).toEqual({
        title: 'Forbidden',
        status: 403,
        detail: 'The API key may not be used from this address.',
        code: 'address_not_allowed',
      })
    }
  })

  it('tell nothing of a key that is revoked', async () => {
    const { apiKey, plainTextKey } = await create({ allowedIps: ['203.0.113.7'] })
    await as('alice').delete(`/api-keys/${apiKey.id}`)

    const answer = await use(plainTextKey, '198.51.100.7')

    expect(answer.status).toBe(401)
    expect(answer.body.code).toBe('invalid_api_key')
  })

  it('reach every process when they change', async () => {
    const { apiKey, plainTextKey } = await create()
    const verify = async () => elsewhere.verify(plainTextKey, { ip: '198.51.100.7' })
    expect(await verify()).toMatchObject({ valid: true })

    const path = `/api-keys/${apiKey.id}`
    await as('alice')
      .patch(path)
      .send({ allowedIps: ['203.0.113.7'] })
    await until(async () => !(await verify()).valid)
    expect(await verify()).toEqual({ valid: false, code: 'address_not_allowed' })

    await as('alice').patch(path).send({ allowedIps: null })
    await until(async () => (await verify()).valid)
  })

  it('are met by nobody whose address is not told', async () => {
    const { plainTextKey } = await create({ allowedIps: ['0.0.0.0/0', '::/0'] })

    expect(await elsewhere.verify(plainTextKey)).toMatchObject({ code: 'address_not_allowed' })
    expect(await elsewhere.verify(plainTextKey, { ip: '203.0.113.7' })).toMatchObject({
      valid: true,
    })
  })

  it('end a long answer to an address that loses its place', async () => {
    const { apiKey, plainTextKey } = await create({ allowedIps: ['203.0.113.7'] })
    const verdict = await elsewhere.verify(plainTextKey, { ip: '203.0.113.7' })
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    const aborted = once(signal, 'abort')

    await apiKeys.update(apiKey.id, { allowedIps: ['198.51.100.7'] })
    await aborted

    expect(signal.reason).toMatchObject({ code: 'address_not_allowed' })
  })

  it.each([[['203.0.113.7/24'], '#/allowedIps/0', 'must have no bits set behind its prefix']])(
    'are refused: %j',
    async (allowedIps, pointer, message) => {
      const answer = await as('alice').post('/api-keys').send(body({ allowedIps }))

      expect(answer.status).toBe(422)
      expect(answer.body.errors).toEqual([{ pointer, message }])
    },
  )
})

describe('metadata', () => {
  it('is what behind a guard comes with the key, and nobody can change it there', async () => {
    const metadata = { team: 'core', tags: ['a', { b: null }], constructor: 'Acme', prototype: {} }
    const { apiKey, plainTextKey } = await create({ metadata })

    expect(apiKey).toMatchObject({ metadata })
    expect((await use(plainTextKey, '203.0.113.7')).body).toEqual(metadata)
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    expect(Object.isFrozen(verdict.apiKey.metadata)).toBe(true)
    expect(Object.isFrozen(verdict.apiKey.metadata.tags)).toBe(true)
  })

  it('is empty unless somebody says otherwise', async () => {
    const { apiKey, plainTextKey } = await create()

    expect(apiKey).toMatchObject({ metadata: {}, allowedIps: null })
    expect((await use(plainTextKey, '203.0.113.7')).body).toEqual({})
  })

  it('reaches every process when it changes', async () => {
    const { apiKey, plainTextKey } = await create({ metadata: { team: 'core' } })
    const team = async () => {
      const verdict = await elsewhere.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.metadata.team
    }
    expect(await team()).toBe('core')

    await as('alice')
      .patch(`/api-keys/${apiKey.id}`)
      .send({ metadata: { team: 'web' } })

    await until(async () => (await team()) === 'web')
  })

  it('that is reserved is for administrators to write, and stays when its owner writes the rest', async () => {
    const { apiKey } = await create({ metadata: { team: 'core' } })
    const path = `/api-keys/${apiKey.id}`
    const reserved = { plan: 'gold', region: 'eu' }
    await as('admin')
      .patch(`/admin${path}`)
      .send({ metadata: { team: 'core', ...reserved } })
      .expect(200)

    const own = await as('alice')
      .patch(path)
      .send({ metadata: { color: 'red' } })
    const same = await as('alice')
      .patch(path)
      .send({ metadata: { ...own.body.metadata, color: 'blue' } })
    const greedy = await as('alice')
      .patch(path)
      .send({ metadata: { plan: 'platinum', region: 'eu' } })

    expect(own.body.metadata).toEqual({ color: 'red', ...reserved })
    expect(same.body.metadata).toEqual({ color: 'blue', ...reserved })
    expect(greedy.status).toBe(422)
    expect(greedy.body.errors).toEqual([
      { pointer: '#/metadata/plan', message: 'is for administrators to write' },
    ])
    expect((await as('alice').get(path)).body.metadata).toEqual({ color: 'blue', ...reserved })
  })

  it('that is reserved is refused at creation by its owner', async () => {
    const answer = await as('alice')
      .post('/api-keys')
      .send(body({ metadata: { plan: 'gold' } }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors[0].pointer).toBe('#/metadata/plan')
  })

  it('has room for 4096 bytes, with what is reserved', async () => {
    const { apiKey } = await create({ metadata: filled(4096) })
    const path = `/api-keys/${apiKey.id}`
    await as('admin')
      .patch(`/admin${path}`)
      .send({ metadata: { plan: 'gold' } })

    const tooLarge = await as('alice')
      .post('/api-keys')
      .send(body({ metadata: filled(4097) }))
    const tooLargeTogether = await as('alice')
      .patch(path)
      .send({ metadata: filled(4096) })

    for (const answer of [tooLarge, tooLargeTogether]) {
      expect(answer.status).toBe(422)
      expect(answer.body.errors).toEqual([
        { pointer: '#/metadata', message: expect.stringContaining('4096 bytes') },
      ])
    }
  })

  it.each<[string, unknown]>([
    ['a prototype', { ['__proto__']: { plan: 'gold' } }],
    ['a way to a prototype', { constructor: { prototype: { plan: 'gold' } } }],
  ])('is refused where it is or holds %s', async (_, metadata) => {
    const answer = await as('alice').post('/api-keys').send(body({ metadata }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toHaveLength(1)
    expect(answer.body.errors[0].pointer).toBe('#/metadata')
  })

  it.each<[string, unknown]>([['a date', { at: new Date() }]])(
    'of a call is refused where it holds %s',
    async (_, metadata) => {
      const wish = { ...newKey({ expiresAt: inDays(1) }), metadata: metadata as never }

      await expect(apiKeys.create(wish)).rejects.toMatchObject({
        code: 'invalid_input',
        errors: [{ pointer: '#/metadata' }],
      })
    },
  )
})
