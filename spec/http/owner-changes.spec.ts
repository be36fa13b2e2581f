import { newUser } from '../support/keys'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const world = useWorld()
const { apiKeys, http, createKey } = world

const invalid = { status: 422, body: { code: 'invalid_input', errors: [{}] } }

const admin = () => http.as('admin')

describe('POST /suspend-owner and /reactivate-owner', () => {
  it('refuse all keys of an owner, and end that, in the name of the administrator', async () => {
    const key = await createKey({ userId: newUser() })
    const owner = { type: 'user', id: key.userId } as const
    const changes: unknown[] = []
    for (const name of ['owner_suspended', 'owner_reactivated'] as const) {
      apiKeys.on(name, (change) => changes.push(change))
    }

    const suspended = await admin().post('/admin/api-keys/suspend-owner?everywhere=true', {
      owner,
      reason: 'Left the company.',
    })
    const again = await admin().post('/admin/api-keys/suspend-owner', { owner })
    expect(suspended).toMatchObject({ status: 200, body: { suspended: true } })
    expect(again).toMatchObject({ status: 200, body: { suspended: false } })
    expect(await apiKeys.verify(key.plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    expectProblem(
      await http.as(key.userId).post('/api-keys', { name: 'A', permissions: ['READ_GRAPH'] }),
      'owner_suspended',
    )

    const ended = await admin().post('/admin/api-keys/reactivate-owner', { userId: key.userId })
    expect(ended).toMatchObject({ status: 200, body: { reactivated: true } })
    expect(await apiKeys.verify(key.plainTextKey)).toMatchObject({ valid: true })
    const actor = { type: 'admin', id: 'admin' }
    expect(changes).toEqual([
      { owner, actor, reason: 'Left the company.' },
      { owner, actor, reason: null },
    ])
  })

  it.each([{}, { owner: 'alice' }, { owner: { type: 'team', id: 7 } }, { userId: 'a', x: 1 }])(
    'refuse %j',
    async (body) => {
      for (const path of ['suspend-owner', 'reactivate-owner']) {
        const answer = await admin().post(`/admin/api-keys/${path}`, body)
        expect(answer).toMatchObject(invalid)
      }
    },
  )
})

describe('POST /erase-owner', () => {
  const path = '/admin/api-keys/erase-owner'

  it('erases an owner in the name of the administrator, or only says what it would erase', async () => {
    const key = await createKey({ userId: newUser() })
    const body = { owner: { type: 'user', id: key.userId }, reason: 'Request 4711', revoke: true }

    const wouldBe = await admin().post(path, { ...body, dryRun: true })
    expect(wouldBe).toMatchObject({ status: 200, body: { erased: { keys: 1, events: 1 } } })
    expect(await apiKeys.get(key.id)).toMatchObject({ status: 'ACTIVE' })
    const erased = await admin().post(path, body)

    expect(erased).toMatchObject({
      status: 200,
      body: { erased: { keys: 1, createdKeys: 0, events: 3, hours: 0 } },
    })
    const { events } = await apiKeys.events({ apiKeyId: key.id })
    expect(events).toMatchObject([
      { action: 'deleted', actorId: 'admin', owner: null },
      { action: 'revoked', actorId: 'admin', owner: null },
      { action: 'created', owner: null },
    ])
    const notes = await apiKeys.events({ action: 'owner_erased' })
    expect(notes.events).toMatchObject([
      { actorType: 'admin', actorId: 'admin', reason: 'Request 4711', after: { entries: 3 } },
    ])
  })

  it('is for administrators, and refuses an owner who may use keys', async () => {
    const key = await createKey({ userId: newUser() })
    const body = { owner: { type: 'user', id: key.userId }, reason: 'Request 4711' }

    expectProblem(await http.as(key.userId).post(path, body), 'not_an_admin')
    expectProblem(await admin().post(path, body), 'owner_has_api_keys')
    expect(await apiKeys.verify(key.plainTextKey)).toMatchObject({ valid: true })
  })

  it.each([
    { reason: 'x' },
    { userId: 'alice' },
    { owner: 'alice', reason: 'x' },
    { userId: 'alice', reason: '' },
    { userId: 'alice', reason: 'x', revoke: 'true' },
    { userId: 'alice', reason: 'x', everywhere: true },
  ])('refuses %j', async (body) => {
    expect(await admin().post(path, body)).toMatchObject(invalid)
  })

  it('does not wait for other processes', async () => {
    const answer = await admin().post(`${path}?everywhere=true`, { userId: 'a', reason: 'x' })
    expect(answer).toMatchObject(invalid)
  })
})

function transfer(id: string, body: object) {
  return admin().post(`/admin/api-keys/${id}/transfer`, body)
}

describe('POST /:id/transfer', () => {
  it('gives a key another owner, who finds it, and the owner before does not', async () => {
    const key = await createKey({ userId: newUser() })
    const owner = { type: 'user', id: newUser() } as const
    await apiKeys.suspend(key.id)

    const answer = await admin().post(`/admin/api-keys/${key.id}/transfer`, {
      owner,
      reason: 'left',
    })

    expect(answer).toMatchObject({ status: 200, body: { id: key.id, owner, status: 'SUSPENDED' } })
    expectProblem(await http.as(key.userId).get(key.path), 'api_key_not_found')
    expect((await http.as(owner.id).get(key.path)).body).toMatchObject({ owner })
    const { body } = await http.as(owner.id).get(`${key.path}/events`)
    expect(body.events).toMatchObject([{ action: 'transferred', owner, reason: 'left' }])
  })

  it('answers 404, 409 and 422 like the function', async () => {
    const key = await createKey({ userId: newUser() })
    const revoked = await createKey({ status: 'REVOKED' })
    const owner = { type: 'user', id: newUser() } as const

    expectProblem(await transfer('nonsense', { owner }), 'api_key_not_found')
    expectProblem(await transfer(revoked.id, { owner }), 'api_key_revoked')
    expect(await transfer(key.id, {})).toMatchObject(invalid)
    await apiKeys.suspendOwner(owner)
    expectProblem(await transfer(key.id, { owner }), 'owner_suspended')
  })

  it('is for administrators alone', async () => {
    const key = await createKey({ userId: newUser() })
    const body = { owner: { type: 'user', id: newUser() } }

    expectProblem(
      await http.as(key.userId).post(`/admin/api-keys/${key.id}/transfer`, body),
      'not_an_admin',
    )
    expect((await http.as(key.userId).post(`${key.path}/transfer`, body)).status).toBe(404)
    expect((await http.as(key.userId).post('/api-keys/suspend-owner', body)).status).not.toBe(200)
    expect(await apiKeys.get(key.id)).toMatchObject({ userId: key.userId })
  })
})
