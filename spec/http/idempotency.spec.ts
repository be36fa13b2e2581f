import { hash, randomUUID } from 'node:crypto'

import { AlreadyCreatedError } from '../../lib'
import { faultsOf, newKey, newUser } from '../support/keys'
import { expectProblem } from '../support/problem'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { apiKeys, http, rows, sequelize, createProcess } = useWorld({
  documented: {},
  options: { maxKeysPerOwner: 3 },
})
const elsewhere = createProcess({ maxKeysPerOwner: 3 })

const input = { name: 'Build', permissions: ['READ_GRAPH'] }

/** Sends requests of a user under an idempotency key. */
function under(key: string, user: string, { http: to } = { http }) {
  return to.set({ 'X-User': user, 'Idempotency-Key': key })
}

async function keysOf(userId: string) {
  return (await apiKeys.list({ userId })).apiKeys
}

/** Has all requests of a user be older than a day. */
async function ageRequests() {
  await rows(`UPDATE api_key_requests SET created_at = now() - interval '25 hours'`)
}

async function isGood(plainTextKey: string, process = apiKeys) {
  return (await process.verify(plainTextKey)).valid
}

describe('POST / with an Idempotency-Key', () => {
  it('creates one key, and gets the same answer from the process that has created it', async () => {
    const user = newUser()

    const first = await under('"build-1"', user).post('/api-keys', input)
    const second = await under('"build-1"', user).post('/api-keys', input)

    expect([first.status, second.status]).toEqual([201, 201])
    expect(second.body).toEqual(first.body)
    expect(second.headers.location).toBe(first.headers.location)
    expect(await keysOf(user)).toHaveLength(1)
    const { events } = await apiKeys.events({ userId: user })
    expect(events.map(({ action }) => action)).toEqual(['created'])
  })

  it('gets the secret once, if the call says so', async () => {
    const userId = newUser()
    const options = { idempotencyKey: 'build-1', answersAgain: false }
    const { apiKey } = await apiKeys.create(newKey({ userId }), options)
    const again = apiKeys.create(newKey({ userId }), options)

    await expect(again).rejects.toMatchObject({
      code: 'already_created',
      apiKey: { id: apiKey.id },
    })
    expect(await keysOf(userId)).toHaveLength(1)
  })

  it('is refused by other processes with the record, whose owner can rotate the key', async () => {
    const user = newUser()
    const { body: lost } = await under('"build-1"', user).post('/api-keys', input)

    const again = await under('"build-1"', user, elsewhere).post('/api-keys', input)

    expectProblem(again, 'already_created', { apiKey: lost.apiKey })
    const { body } = await under('"build-2"', user).post(`/api-keys/${lost.apiKey.id}/rotate`)
    expect(await isGood(body.plainTextKey)).toBe(true)
    expect(await keysOf(user)).toHaveLength(1)
  })

  it('creates one key for requests at once in two processes', async () => {
    const user = newUser()

    const answers = await Promise.all(
      [{ http }, elsewhere].map((process) =>
        under('"at-once"', user, process).post('/api-keys', input),
      ),
    )

    const [made, ...others] = answers.toSorted((a, b) => a.status - b.status)
    expect(made?.status).toBe(201)
    for (const { status, body } of others) {
      expect(status).toBe(409)
      expect(body.code).toMatch(/^(already_created|request_under_way)$/)
    }
    expect(await keysOf(user)).toHaveLength(1)
  })

  it('is refused as under way while a transaction of the app has made the key, and then as it ends', async () => {
    for (const end of ['commit', 'rollback'] as const) {
      const user = newUser()
      const transaction = await sequelize.transaction()
      const actor = { type: 'user', id: user } as const
      const circumstances = { actor, idempotencyKey: 'open', transaction }
      await apiKeys.create(
        newKey({ ...input, userId: user, permissions: ['READ_GRAPH'] }),
        circumstances,
      )

      const meanwhile = await under('"open"', user, elsewhere).post('/api-keys', input)
      await transaction[end]()
      const after = await under('"open"', user, elsewhere).post('/api-keys', input)

      expectProblem(meanwhile, 'request_under_way')
      expect(meanwhile.headers['retry-after']).toBe('1')
      expect(after.status).toBe(end === 'commit' ? 409 : 201)
      expect(await keysOf(user)).toHaveLength(1)
    }
  })

  it('creates a key of its own for another user, and for an administrator on behalf of one', async () => {
    const [one, other] = [newUser(), newUser()]
    for (const user of [one, other]) {
      await under('"mine"', user).post('/api-keys', input).expect(201)
    }
    const wish = { ...input, userId: one }
    await under('"mine"', 'admin').post('/admin/api-keys', wish).expect(201)

    const again = await under('"mine"', 'admin', elsewhere).post('/admin/api-keys', wish)

    expect(again.body).toMatchObject({ code: 'already_created', apiKey: { userId: one } })
    expect([await keysOf(one), await keysOf(other)].map(({ length }) => length)).toEqual([2, 1])
  })

  it('is refused with another body, by every process', async () => {
    const user = newUser()
    await under('"build-1"', user).post('/api-keys', input).expect(201)

    for (const process of [{ http }, elsewhere]) {
      const other = { ...input, name: 'Another' }
      const answer = await under('"build-1"', user, process).post('/api-keys', other)
      expectProblem(answer, 'idempotency_key_reused')
    }
    expect(await keysOf(user)).toHaveLength(1)
  })

  it('creates one more key after a day, also for two requests at once', async () => {
    const user = newUser()
    await under('"daily"', user).post('/api-keys', input).expect(201)
    await ageRequests()

    const answers = await Promise.all(
      [{ http }, elsewhere].map((process) =>
        under('"daily"', user, process).post('/api-keys', input),
      ),
    )

    expect(answers.map(({ status }) => String(status)).toSorted()).toEqual(['201', '409'])
    expect(await keysOf(user)).toHaveLength(2)
  })

  it('keeps no request that was refused', async () => {
    const user = newUser()
    const three = await Promise.all([1, 2, 3].map(() => apiKeys.create(newKey({ userId: user }))))
    await under('"later"', user).post('/api-keys', { name: '' }).expect(422)
    expectProblem(await under('"later"', user).post('/api-keys', input), 'too_many_api_keys')
    await apiKeys.revoke(three[0]?.apiKey.id ?? '')

    await under('"later"', user).post('/api-keys', input).expect(201)
  })

  it('is refused as already created, not as one key too many', async () => {
    const user = newUser()
    for (const key of ['"1"', '"2"', '"3"']) {
      await under(key, user).post('/api-keys', input).expect(201)
    }

    const again = await under('"3"', user, elsewhere).post('/api-keys', input)

    expect(again.body.code).toBe('already_created')
  })

  it('does not get the same answer once the key is revoked or has another secret', async () => {
    for (const change of ['revoke', 'rotate'] as const) {
      const user = newUser()
      const { body } = await under('"gone"', user).post('/api-keys', input)
      await apiKeys[change](body.apiKey.id)

      const again = await under('"gone"', user).post('/api-keys', input)

      expect(again.body).toMatchObject({ code: 'already_created', apiKey: { id: body.apiKey.id } })
      expect(again.body).not.toHaveProperty('plainTextKey')
    }
  })

  it('is refused without a record if the key is deleted', async () => {
    const user = newUser()
    const { body } = await under('"deleted"', user).post('/api-keys', input)
    await rows(`DELETE FROM api_keys WHERE id = '${body.apiKey.id}'`)

    const again = await under('"deleted"', user).post('/api-keys', input)

    expectProblem(again, 'already_created', { apiKey: null })
  })

  it('does not show the record once the key has another owner', async () => {
    const user = newUser()
    const { body } = await under('"handed on"', user).post('/api-keys', input)
    await apiKeys.transfer(body.apiKey.id, { type: 'user', id: newUser() })

    for (const process of [{ http }, elsewhere]) {
      const again = await under('"handed on"', user, process).post('/api-keys', input)
      expectProblem(again, 'already_created', { apiKey: null })
      expect(again.body).not.toHaveProperty('plainTextKey')
    }
  })

  it('leaves nothing in the database that could be used', async () => {
    const user = newUser()
    const { body } = await under('"secretive"', user).post('/api-keys', input)
    const [key] = await rows<{ hash: string }>(
      `SELECT hash FROM api_keys WHERE id = '${body.apiKey.id}'`,
    )

    const text = JSON.stringify(await rows('SELECT * FROM api_key_requests'))

    expect(text).toContain(body.apiKey.id)
    expect(text).not.toContain(body.plainTextKey)
    expect(text).not.toContain(key?.hash)
    // It decrypts the answer that the process keeps.
    expect(text).not.toContain('secretive')
  })
})

describe('an Idempotency-Key', () => {
  it.each([
    ['empty', ''],
    ['an empty string', '""'],
    ['a string without an end', '"abc'],
    ['two words', 'abc def'],
    ['two strings', '"a", "b"'],
    ['a number with a point', '12.5'],
    ['a truth', '?1'],
    ['bytes', ':YWJj:'],
    ['not of ASCII', '"sch\u00f6n"'],
    ['256 characters in quotes', `"${'x'.repeat(256)}"`],
    ['256 characters', 'x'.repeat(256)],
  ])('is refused if it is %s', async (_, key) => {
    const user = newUser()

    const answer = await under(key, user).post('/api-keys', input)

    expectProblem(answer, 'malformed_idempotency_key')
    expect(await keysOf(user)).toEqual([])
  })

  it.each([
    ['255 characters', `"${'x'.repeat(255)}"`],
    ['what a string escapes', String.raw`"a \"b\" \\ c"`],
    ['a parameter', '"a";b=1'],
  ])('may have %s', async (_, key) => {
    const { status } = await under(key, newUser()).post('/api-keys', input)

    expect(status).toBe(201)
  })

  it('is the same without its quotes, because many clients send none', async () => {
    const [user, uuid] = [newUser(), randomUUID()]
    await under(uuid, user).post('/api-keys', input).expect(201)

    const again = await under(`"${uuid}"`, user, elsewhere).post('/api-keys', input)

    expect(again.body.code).toBe('already_created')
  })

  it('is deleted after a day, in the background', async () => {
    const user = newUser()
    await under('"old"', user).post('/api-keys', input).expect(201)
    await ageRequests()

    const { http: to } = createProcess()
    await under('"new"', user, { http: to }).post('/api-keys', input).expect(201)

    await until(async () => {
      const old = await rows(`SELECT FROM api_key_requests WHERE key = '${hash('sha256', 'old')}'`)
      return old.length === 0
    })
    expect(
      await rows(`SELECT FROM api_key_requests WHERE key = '${hash('sha256', 'new')}'`),
    ).toHaveLength(1)
  })
})

describe('POST /:id/rotate with an Idempotency-Key', () => {
  it('gives one new secret, and leaves the old one its time', async () => {
    const user = newUser()
    const { apiKey, plainTextKey: inUse } = await apiKeys.create(newKey({ userId: user }))
    const path = `/api-keys/${apiKey.id}/rotate`

    const first = await under('"rotation"', user).post(path)
    const second = await under('"rotation"', user).post(path)
    const other = await under('"rotation"', user, elsewhere).post(path)

    expect(first.status).toBe(200)
    expect(second.body).toEqual(first.body)
    expectProblem(other, 'already_created', { apiKey: first.body.apiKey })
    expect(await isGood(inUse)).toBe(true)
    expect(await isGood(first.body.plainTextKey)).toBe(true)
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ action }) => action)).toEqual(['rotated', 'created'])
  })

  it('gives one new secret to requests at once in two processes', async () => {
    const user = newUser()
    const { apiKey } = await apiKeys.create(newKey({ userId: user }))

    const answers = await Promise.all(
      [{ http }, elsewhere].map((process) =>
        under('"rotation"', user, process).post(`/api-keys/${apiKey.id}/rotate`),
      ),
    )

    expect(answers.map(({ status }) => String(status)).toSorted()).toEqual(['200', '409'])
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ action }) => action)).toEqual(['rotated', 'created'])
  })

  it('is refused with another body, gives another key a secret of its own, and follows a refusal', async () => {
    const user = newUser()
    const [one, other] = [
      await apiKeys.create(newKey({ userId: user })),
      await apiKeys.create(newKey({ userId: user })),
    ]
    const rotate = (id: string, body?: object) =>
      under('"rotation"', user, elsewhere).post(`/api-keys/${id}/rotate`, body)
    await apiKeys.suspend(one.apiKey.id)
    expectProblem(await rotate(one.apiKey.id), 'api_key_suspended')
    await apiKeys.reactivate(one.apiKey.id)
    await rotate(one.apiKey.id).expect(200)

    expectProblem(await rotate(one.apiKey.id, { gracePeriodSeconds: 60 }), 'idempotency_key_reused')
    await rotate(other.apiKey.id).expect(200)
    expectProblem(await rotate(randomUUID()), 'api_key_not_found')
  })
})

describe('the option idempotencyKey', () => {
  it('creates a key once, and rejects with its record in other processes', async () => {
    const key = newKey({ userId: newUser() })
    const { apiKey, plainTextKey } = await apiKeys.create(key, { idempotencyKey: 'a job' })
    expect(await apiKeys.create(key, { idempotencyKey: 'a job' })).toEqual({ apiKey, plainTextKey })

    const error = await elsewhere.apiKeys
      .create(key, { idempotencyKey: 'a job' })
      .catch((failure: unknown) => failure)

    expect(error).toBeInstanceOf(AlreadyCreatedError)
    expect(error).toMatchObject({ code: 'already_created', status: 409, apiKey })
  })

  it('creates one key for calls at once in one process', async () => {
    const key = newKey({ userId: newUser() })

    const calls = await Promise.allSettled(
      [1, 2, 3].map(() => apiKeys.create(key, { idempotencyKey: 'at once' })),
    )

    const codes = calls.map((call) => (call.status === 'rejected' ? call.reason.code : 'created'))
    expect(codes).toEqual(['created', 'request_under_way', 'request_under_way'])
    expect(await keysOf(String(key.userId))).toHaveLength(1)
  })

  it('is an option only of calls that make a secret', async () => {
    const { apiKey } = await apiKeys.create(newKey({ userId: newUser() }))
    const options = { idempotencyKey: 'a job' }

    const faults = await faultsOf(apiKeys.suspend(apiKey.id, options as object))

    expect(faults).toMatchObject([{ pointer: '#/idempotencyKey' }])
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each([[''], ['x'.repeat(256)], ['schön'], [7]])('is refused if it is %j', async (given) => {
    const faults = await faultsOf(apiKeys.create(newKey(), { idempotencyKey: given as string }))

    expect(faults).toEqual([
      {
        pointer: '#/idempotencyKey',
        message: 'must have 1 to 255 printable characters of ASCII',
      },
    ])
  })
})
