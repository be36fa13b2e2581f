import { InvalidInputError, TooManyApiKeysError } from '../../lib'
import { bearer } from '../support/http'
import { newUser } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess, rows } = useWorld({
  documented: {},
  options: { maxKeysPerOwner: 1_100 },
  routes: (app, apiKeys) => {
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({ graphs: [] })
    })
  },
})

const newKey = (userId: string) => ({ userId, name: 'Deployment', permissions: ['READ_GRAPH'] })

/** A batch without keys that has this number of bytes. */
const spaces = (bytes: number) => `{"apiKeys":[]${' '.repeat(bytes - 14)}}`

const sendBatch = (text: string) =>
  http.as('admin').post('/admin/api-keys/batch').type('json').send(text)

const revokeMany = (body: object, query = '') =>
  http.as('admin').post(`/admin/api-keys/revoke-many${query}`, body)

const postBatch = (body: object) => http.as('admin').post('/admin/api-keys/batch', body)

async function countKeys(userId: string) {
  const found = await rows('SELECT FROM api_keys WHERE user_id = $1', [userId])
  return found.length
}

describe('POST /batch', () => {
  it('creates keys for several users, and answers with their plain text', async () => {
    const [one, other] = [newUser(), newUser()]

    const answer = await postBatch({ apiKeys: [newKey(one), newKey(other)] })

    expect(answer.status).toBe(201)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers).not.toHaveProperty('location')
    expect(answer.body).toEqual({
      apiKeys: [
        { apiKey: expect.objectContaining({ userId: one }), plainTextKey: expect.any(String) },
        { apiKey: expect.objectContaining({ userId: other }), plainTextKey: expect.any(String) },
      ],
      failure: null,
    })
    const [{ apiKey, plainTextKey }] = answer.body.apiKeys
    const used = await http.set(bearer(plainTextKey)).get('/graphs')
    expect(used.status).toBe(200)
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events).toMatchObject([{ action: 'created', actorType: 'admin', actorId: 'admin' }])
    expect(events[0]?.address).toMatch(/127\.0\.0\.1|::1/)
  })

  it('creates keys once for requests with one Idempotency-Key', async () => {
    const userId = newUser()
    const body = { apiKeys: [newKey(userId), newKey(userId)] }
    const caller = http.set({ 'X-User': 'admin', 'Idempotency-Key': '"batch of today"' })

    const first = await caller.post('/admin/api-keys/batch', body)
    const again = await caller.post('/admin/api-keys/batch', body)
    const other = await caller.post('/admin/api-keys/batch', { apiKeys: [newKey(userId)] })

    expect([first.status, again.status]).toEqual([201, 201])
    expect(again.body.apiKeys).toEqual(
      first.body.apiKeys.map(({ apiKey }: { apiKey: object }) => ({ apiKey, plainTextKey: null })),
    )
    expectProblem(other, 'idempotency_key_reused')
    expect(await countKeys(userId)).toBe(2)
  })

  it('creates nothing of an empty list', async () => {
    const answer = await postBatch({ apiKeys: [] })

    expect([answer.status, answer.body]).toEqual([201, { apiKeys: [], failure: null }])
  })

  it('refuses all keys if one breaks a rule, and names its place', async () => {
    const userId = newUser()
    const bad = { ...newKey(userId), name: '', color: 'red' }

    const answer = await postBatch({ apiKeys: [newKey(userId), bad] })

    expectFaults(answer, {
      '#/apiKeys/1/name': 'must have 1 to 100 characters',
      '#/apiKeys/1/color': 'is not known here',
    })
    expect(await countKeys(userId)).toBe(0)
  })

  it.each([
    [{}, { '#/apiKeys': 'is required' }],
    [{ apiKeys: 'many' }, { '#/apiKeys': 'must be a list of API keys' }],
    [{ apiKeys: [], dryRun: true }, { '#/dryRun': 'is not known here' }],
  ])('refuses %j', async (body, faults) => {
    expectFaults(await postBatch(body), faults)
  })

  it('names the keys beyond the maximum', async () => {
    const userId = newUser()
    await apiKeys.createMany(Array.from({ length: 1_000 }, () => newKey(userId)) as never)

    const answer = await postBatch({ apiKeys: Array.from({ length: 101 }, () => newKey(userId)) })

    const errors = [
      { pointer: '#/apiKeys/100', message: 'is one more than its owner may have' },
    ] as const
    expectProblem(answer, 'too_many_api_keys', {
      detail: new TooManyApiKeysError(errors).message,
      errors,
    })
    expect(await countKeys(userId)).toBe(1_000)
  })

  it('answers with the keys of a thousand that were created, and the refusal of the next', async () => {
    const userId = newUser()

    const answer = await postBatch({ apiKeys: Array.from({ length: 1_101 }, () => newKey(userId)) })

    expect(answer.status).toBe(201)
    expect(answer.body.apiKeys).toHaveLength(1_000)
    expect(answer.body.failure).toEqual({
      title: 'Conflict',
      status: 409,
      detail: new TooManyApiKeysError([]).message,
      code: 'too_many_api_keys',
      errors: [{ pointer: '#/apiKeys/1100', message: 'is one more than its owner may have' }],
    })
    expect(await countKeys(userId)).toBe(1_000)
  })

  it('takes a body of 4 MB, and no larger one', async () => {
    const fits = await sendBatch(spaces(4 * 1024 * 1024))
    const tooLarge = await sendBatch(spaces(4 * 1024 * 1024 + 1))

    expect(fits.status).toBe(201)
    expectProblem(tooLarge, 'body_too_large', { detail: 'The body is larger than 4 MB.' })
  })

  it('is not there for owners', async () => {
    const answer = await http.as('alice').post('/api-keys/batch', { apiKeys: [] })

    // To the owner's router, it is the path of a key.
    expectProblem(answer, 'method_not_allowed')
  })
})

describe('POST /revoke-many', () => {
  it('revokes the keys of a list, and names the ids that no key has', async () => {
    const first = await createKey({ userId: newUser() })
    const second = await createKey({ userId: newUser() })
    const unknown = '7b6a1a6e-63d5-4d39-9a55-0f6b6c8f9f00'
    const body = { ids: [first.id, unknown, second.id], reason: 'leaked' }

    const dry = await revokeMany({ ...body, dryRun: true })
    expect([dry.status, dry.body]).toEqual([200, { revoked: 2, notFound: [unknown] }])
    expect(await apiKeys.get(first.id)).toMatchObject({ status: 'ACTIVE' })

    const wet = await revokeMany(body)
    expect([wet.status, wet.body]).toEqual([200, { revoked: 2, notFound: [unknown] }])
    const refused = await http.set(bearer(second.plainTextKey)).get('/graphs')
    expectProblem(refused, 'invalid_api_key')
    const { events } = await apiKeys.events({ apiKeyId: first.id, limit: 1 })
    expect(events).toMatchObject([{ action: 'revoked', actorId: 'admin', reason: 'leaked' }])
  })

  it('revokes the keys of a filter', async () => {
    const userId = newUser()
    const found = await createKey({ userId, name: 'Nightly export' })
    const other = await createKey({ userId })

    const answer = await revokeMany({ userId, text: 'nightly' })

    expect(answer.body).toEqual({ revoked: 1, notFound: [] })
    expect(await apiKeys.get(found.id)).toMatchObject({ status: 'REVOKED' })
    expect(await apiKeys.get(other.id)).toMatchObject({ status: 'ACTIVE' })
  })

  it('takes 10,000 ids', async () => {
    const ids = Array.from({ length: 10_000 }, () => '7b6a1a6e-63d5-4d39-9a55-0f6b6c8f9f00')

    const answer = await revokeMany({ ids })

    expect([answer.status, answer.body]).toEqual([200, { revoked: 0, notFound: [ids[0]] }])
  })

  it('answers with everywhere=true when no process accepts the keys', async () => {
    const other = createProcess({ listen: false })
    const { id, plainTextKey } = await createKey()
    expect((await other.apiKeys.verify(plainTextKey)).valid).toBe(true)

    const answer = await revokeMany({ ids: [id] }, '?everywhere=true')

    expect(answer.body).toEqual({ revoked: 1, notFound: [] })
    expect(await other.apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it.each([
    [{}, '#'],
    [{ reason: 'leaked' }, '#'],
    [{ ids: [], status: 'ACTIVE' }, '#'],
    [{ ids: ['1'] }, '#/ids/0'],
    [{ permission: '' }, '#/permission'],
    [{ userId: 'alice', everywhere: true }, '#/everywhere'],
  ])('refuses %j', async (body, pointer) => {
    const answer = await revokeMany(body)

    expect(answer.body.errors).toMatchObject([{ pointer }])
    expect(answer.body.detail).toBe(new InvalidInputError(answer.body.errors).message)
    expect(answer.status).toBe(422)
  })
})
