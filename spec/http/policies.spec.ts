import { once } from 'node:events'

import { newKey } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const day = 86_400
const options = { maxLifetimeSeconds: 30 * day, reservedMetadata: ['plan', 'region'] }

const { apiKeys, http, createProcess } = useWorld({
  options,
  routes(app, { requirePermission, getApiKey }) {
    app.set('trust proxy', true)
    app.get('/graphs', requirePermission('READ_GRAPH'), (req, res) => {
      res.json(getApiKey(req).metadata)
    })
  },
})

const elsewhere = createProcess(options).apiKeys

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
  const answer = await http.as(user).post('/api-keys', body(wishes))
  expect(answer.status).toBe(201)
  return answer.body as { apiKey: { id: string }; plainTextKey: string }
}

function use(plainTextKey: string, from: string) {
  return http.with(plainTextKey).get('/graphs').set('X-Forwarded-For', from)
}

describe('expiresAt', () => {
  it.each([
    ['none', undefined, 'is required here'],
    ['never', null, 'is required here'],
    ['too late', inDays(31), expect.stringMatching(/^must not be later than \d{4}-/)],
  ])('is refused at creation: %s', async (_, expiresAt, message) => {
    const answer = await http.as('alice').post('/api-keys', body({ expiresAt }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: '#/expiresAt', message }])
  })

  it('moves up to the longest lifetime, counted from the creation', async () => {
    const { apiKey } = await create()
    const change = (expiresAt: unknown) =>
      http.as('alice').patch(`/api-keys/${apiKey.id}`, { expiresAt })

    expect(await change(inDays(29))).toMatchObject({ status: 200 })
    expect(await change(inDays(31))).toMatchObject({ status: 422 })
    expect(await change(null)).toMatchObject({ status: 422 })
    expect(await http.as('alice').patch(`/api-keys/${apiKey.id}`, { name: 'Other' })).toMatchObject(
      { status: 200 },
    )
  })
})

describe('allowedIps', () => {
  it('admit only requests from these addresses, by req.ip', async () => {
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

  it('are not revealed for a revoked key', async () => {
    const { apiKey, plainTextKey } = await create({ allowedIps: ['203.0.113.7'] })
    await http.as('alice').delete(`/api-keys/${apiKey.id}`)

    const answer = await use(plainTextKey, '198.51.100.7')

    expectProblem(answer, 'invalid_api_key')
  })

  it('reach every process when they change', async () => {
    const { apiKey, plainTextKey } = await create()
    const verify = async () => elsewhere.verify(plainTextKey, { ip: '198.51.100.7' })
    expect(await verify()).toMatchObject({ valid: true })

    const path = `/api-keys/${apiKey.id}`
    await http.as('alice').patch(path, { allowedIps: ['203.0.113.7'] })
    await until(async () => !(await verify()).valid)
    expect(await verify()).toEqual({ valid: false, code: 'address_not_allowed' })

    await http.as('alice').patch(path, { allowedIps: null })
    await until(async () => (await verify()).valid)
  })

  it('are not met by a call without an address', async () => {
    const { plainTextKey } = await create({ allowedIps: ['0.0.0.0/0', '::/0'] })

    expect(await elsewhere.verify(plainTextKey)).toMatchObject({ code: 'address_not_allowed' })
    expect(await elsewhere.verify(plainTextKey, { ip: '203.0.113.7' })).toMatchObject({
      valid: true,
    })
  })

  it('end a long answer to an address that is removed from the list', async () => {
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
      const answer = await http.as('alice').post('/api-keys', body({ allowedIps }))

      expectFaults(answer, { [pointer]: message })
    },
  )
})

describe('metadata', () => {
  it('comes with the key behind a guard, and is frozen there', async () => {
    const metadata = { team: 'core', tags: ['a', { b: null }], constructor: 'Acme', prototype: {} }
    const { apiKey, plainTextKey } = await create({ metadata })

    expect(apiKey).toMatchObject({ metadata })
    expect((await use(plainTextKey, '203.0.113.7')).body).toEqual(metadata)
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    expect(Object.isFrozen(verdict.apiKey.metadata)).toBe(true)
    expect(Object.isFrozen(verdict.apiKey.metadata.tags)).toBe(true)
  })

  it('is empty by default', async () => {
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

    await http.as('alice').patch(`/api-keys/${apiKey.id}`, { metadata: { team: 'web' } })

    await until(async () => (await team()) === 'web')
  })

  it('that is reserved is written by administrators, and stays when its owner writes the rest', async () => {
    const { apiKey } = await create({ metadata: { team: 'core' } })
    const path = `/api-keys/${apiKey.id}`
    const reserved = { plan: 'gold', region: 'eu' }
    await http
      .as('admin')
      .patch(`/admin${path}`, { metadata: { team: 'core', ...reserved } })
      .expect(200)

    const own = await http.as('alice').patch(path, { metadata: { color: 'red' } })
    const same = await http
      .as('alice')
      .patch(path, { metadata: { ...own.body.metadata, color: 'blue' } })
    const greedy = await http
      .as('alice')
      .patch(path, { metadata: { plan: 'platinum', region: 'eu' } })

    expect(own.body.metadata).toEqual({ color: 'red', ...reserved })
    expect(same.body.metadata).toEqual({ color: 'blue', ...reserved })
    expectFaults(greedy, { '#/metadata/plan': 'is for administrators to write' })
    expect((await http.as('alice').get(path)).body.metadata).toEqual({ color: 'blue', ...reserved })
  })

  it('that is reserved is refused at creation by its owner', async () => {
    const answer = await http.as('alice').post('/api-keys', body({ metadata: { plan: 'gold' } }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors[0].pointer).toBe('#/metadata/plan')
  })

  it('has room for 4096 bytes, including reserved fields', async () => {
    const { apiKey } = await create({ metadata: filled(4096) })
    const path = `/api-keys/${apiKey.id}`
    await http.as('admin').patch(`/admin${path}`, { metadata: { plan: 'gold' } })

    const tooLarge = await http.as('alice').post('/api-keys', body({ metadata: filled(4097) }))
    const tooLargeTogether = await http.as('alice').patch(path, { metadata: filled(4096) })

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
  ])('is refused if it is or holds %s', async (_, metadata) => {
    const answer = await http.as('alice').post('/api-keys', body({ metadata }))

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toHaveLength(1)
    expect(answer.body.errors[0].pointer).toBe('#/metadata')
  })

  it.each<[string, unknown]>([['a date', { at: new Date() }]])(
    'of a call is refused if it holds %s',
    async (_, metadata) => {
      const wish = { ...newKey({ expiresAt: inDays(1) }), metadata: metadata as never }

      await expect(apiKeys.create(wish)).rejects.toMatchObject({
        code: 'invalid_input',
        errors: [{ pointer: '#/metadata' }],
      })
    },
  )
})
