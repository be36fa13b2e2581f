import { setClock } from '../support/clock'
import { faultsOf, newUser } from '../support/keys'
import { expectFaults } from '../support/problem'
import { useWorld, type CreatedKey } from '../support/world'

const [now, thisHour] = [new Date('2026-11-04T12:10:00Z'), '2026-11-04T12:00:00.000Z']

const { apiKeys, http, sequelize, rows, holdLock, createKey } = useWorld({ documented: {} })

beforeEach(() => setClock(now))

afterEach(() => {
  jest.useRealTimers()
})

/** Returns the totals of a key. */
async function totalsOf(id: string) {
  return (await apiKeys.usage(id)).totals
}

const counts = (accepted: number, denied = 0) => ({ accepted, denied, rateLimited: 0 })

/** Writes a number of accepted uses for the hour of a time, like a process. */
async function insertUsage(key: { id: string; userId: string }, at: string, accepted = 1) {
  await rows(
    `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
     VALUES ($1, 'user', $2, $3, $4, 2, 3)`,
    [key.id, key.userId, at, accepted + 5],
  )
}

describe('GET /:id/usage', () => {
  let key: CreatedKey

  beforeAll(async () => {
    key = await createKey({ userId: newUser() })
    for (const at of ['10-05T00', '11-01T22', '11-03T11', '11-03T12', '11-03T13', '11-04T12'])
      await insertUsage(key, `2026-${at}:00:00Z`, Number(at.slice(-2)))
  })

  it.each([
    ['', ['11-03T13', '11-04T12']],
    ['?by=hour', ['11-03T13', '11-04T12']],
    ['?by=day', ['11-01T00', '11-03T00', '11-04T00']],
    ['?from=2026-11-03T11:00:00Z', ['11-03T11', '11-03T12', '11-03T13', '11-04T12']],
    ['?from=2026-11-03T11:00:00.001Z', ['11-03T12', '11-03T13', '11-04T12']],
    ['?to=2026-11-03T13:00:00Z', ['11-03T11', '11-03T12']],
    ['?to=2026-11-03T13:00:00.001Z', ['11-03T11', '11-03T12', '11-03T13']],
    ['?from=2026-11-03T12:00:00Z&to=2026-11-03T13:00:00Z', ['11-03T12']],
    ['?from=2026-11-01T23:30:00%2B02:00&to=2026-11-03T13:30:00%2B02:00', ['11-01T22', '11-03T11']],
    ['?from=2026-11-01T22:00:00Z&to=2026-11-03T13:00:00Z', ['11-01T22', '11-03T11', '11-03T12']],
    ['?from=2026-10-04T12:10:00Z&to=2026-11-02T00:00:00Z', ['10-05T00', '11-01T22']],
    [
      '?from=2025-11-04T00:00:00Z&to=2026-11-04T00:00:00Z&by=day',
      ['10-05T00', '11-01T00', '11-03T00'],
    ],
    ['?to=1970-01-01T00:00:00Z', []],
  ])('reports the requested period: %s', async (query, expected) => {
    const answer = await http.as(key.userId).get(`/api-keys/${key.id}/usage${query}`)

    expect(answer.status).toBe(200)
    const times = answer.body.usage.map(({ at }: { at: string }) => at.slice(5, 13))
    expect(times).toEqual(expected)
    expect(answer.body.totals.denied).toBe(
      answer.body.usage.reduce((sum: number, entry: { denied: number }) => sum + entry.denied, 0),
    )
  })

  it('adds up the hours of a day of UTC', async () => {
    const answer = await http.as(key.userId).get(`/api-keys/${key.id}/usage?by=day`)

    expect(answer.body).toEqual({
      usage: [
        { at: '2026-11-01T00:00:00.000Z', accepted: 22, denied: 2, rateLimited: 3 },
        { at: '2026-11-03T00:00:00.000Z', accepted: 36, denied: 6, rateLimited: 9 },
        { at: '2026-11-04T00:00:00.000Z', accepted: 12, denied: 2, rateLimited: 3 },
      ],
      totals: { accepted: 70, denied: 10, rateLimited: 15 },
    })
  })

  it.each([
    ['userId=alice', '#/userId', 'is not known here'],
    [
      'from=2026-11-04T12:10:00Z',
      '#/from',
      'must be before "to", which is 2026-11-04T12:10:00.000Z',
    ],
    [
      'from=2026-11-03T00:00:00Z&to=2026-11-02T00:00:00Z',
      '#/from',
      'must be before "to", which is 2026-11-02T00:00:00.000Z',
    ],
    ['from=2026-10-04T12:09:59.999Z', '#/from', 'must be at most 31 days before "to", by the hour'],
    [
      'from=2025-11-01T00:00:00Z&by=day',
      '#/from',
      'must be at most 366 days before "to", by the day',
    ],
  ])('refuses %s', async (query, pointer, message) => {
    for (const path of [
      `/api-keys/${key.id}/usage`,
      `/admin/api-keys/${key.id}/usage`,
      ...(pointer === '#/userId' ? [] : ['/admin/api-keys/usage']),
    ]) {
      const user = path.startsWith('/admin') ? 'admin' : key.userId
      const answer = await http.as(user).get(`${path}?${query}`)

      expectFaults(answer, { [pointer]: message })
    }
  })
})

describe('GET /usage', () => {
  const own = useWorld()
  const withUsers = useWorld({ template: 'empty', options: { users: { table: 'users' } } })
  const ask = (query: string) => own.http.as('admin').get(`/admin/api-keys/usage${query}`)

  it('reports the use of all keys to administrators, and the most used keys', async () => {
    const keys = await Promise.all(
      Array.from({ length: 21 }, (_, index) =>
        own.createKey({ userId: index < 20 ? 'alice' : 'bob' }),
      ),
    )
    for (const [index, { plainTextKey }] of keys.entries()) {
      for (let time = 0; time <= index; time++) await own.apiKeys.verify(plainTextKey)
    }
    const [first, last] = [keys[0]?.id ?? '', keys[20]?.id ?? '']

    const all = await ask('')
    const ofBob = await ask('?userId=bob&by=day')
    const ofFirst = await ask(`?apiKeyId=${first}`)
    const ofCarol = await ask('?userId=carol')

    expect(all.status).toBe(200)
    expect(all.body.usage).toEqual([{ at: thisHour, ...counts(231) }])
    expect(all.body.totals).toEqual(counts(231))
    expect(all.body.keys).toHaveLength(20)
    expect(all.body.keys[0]).toEqual({
      apiKeyId: last,
      owner: { type: 'user', id: 'bob' },
      ...counts(21),
    })
    expect(all.body.keys[19]).toMatchObject({ owner: { type: 'user', id: 'alice' }, ...counts(2) })
    expect(ofBob.body).toEqual({
      usage: [{ at: '2026-11-04T00:00:00.000Z', ...counts(21) }],
      totals: counts(21),
      keys: [{ apiKeyId: last, owner: { type: 'user', id: 'bob' }, ...counts(21) }],
    })
    expect(ofFirst.body.keys).toEqual([
      { apiKeyId: first, owner: { type: 'user', id: 'alice' }, ...counts(1) },
    ])
    expect(ofCarol.body).toEqual({ usage: [], totals: counts(0), keys: [] })
  })

  it.each([
    ['apiKeyId=7', '#/apiKeyId', 'must be a UUID'],
    ['user=alice', '#/user', 'is not known here (did you mean userId?)'],
    ['owner=alice', '#/owner', 'must be an owner: { type, id }'],
    ['ownerType=user', '#/ownerId', 'must be a user id'],
    ['ownerId=alice', '#/ownerType', 'must be one of user'],
    ['ownerType=team&ownerId=a', '#/ownerType', 'must be one of user'],
    ['ownerType=user&ownerId=a&userId=a', '#/userId', 'must not be given beside owner'],
  ])('refuses %s', async (query, pointer, message) => {
    const answer = await http.as('admin').get(`/admin/api-keys/usage?${query}`)

    expectFaults(answer, { [pointer]: message })
  })

  it('still reports deleted keys', async () => {
    const { apiKeys, rows, createKey } = withUsers
    await rows(`CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('bob')`)
    await apiKeys.migrate()
    const { id, plainTextKey } = await createKey({ userId: 'bob' })
    await apiKeys.verify(plainTextKey)
    await rows('DELETE FROM users')

    const total = await apiKeys.totalUsage({ userId: 'bob' })

    expect(total.keys).toEqual([{ apiKeyId: id, owner: { type: 'user', id: 'bob' }, ...counts(1) }])
    await expect(apiKeys.usage(id)).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it('leaves out counts that this process cannot write at the moment', async () => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    await apiKeys.verify(plainTextKey)
    const lock = await holdLock('LOCK TABLE api_key_usage IN SHARE MODE')

    const [total, ofKey] = [await apiKeys.totalUsage({ userId }), await totalsOf(id)]
    await lock.release()

    expect(total.totals).toEqual(counts(1))
    expect(ofKey).toEqual(counts(2))
    expect((await apiKeys.totalUsage({ userId })).totals).toEqual(counts(2))
  })
})

describe('usage', () => {
  it('is part of a transaction of the caller', async () => {
    const transaction = await sequelize.transaction()
    const { id } = await createKey()
    await sequelize.query(
      `INSERT INTO api_key_usage VALUES ('${id}', 'user', 'alice', '${thisHour}', 7, 0, 0)`,
      { transaction },
    )

    const [within, without] = [
      await apiKeys.usage(id, {}, { transaction }),
      await apiKeys.usage(id),
    ]
    await transaction.rollback()

    expect([within.totals, without.totals]).toEqual([counts(7), counts(0)])
  })

  it('takes times as dates, and refuses invalid times', async () => {
    const { id } = await createKey()

    expect(await apiKeys.usage(id, { from: new Date(thisHour), to: now })).toMatchObject({
      usage: [],
    })
    expect(await faultsOf(apiKeys.usage(id, { from: new Date(NaN), to: '' }))).toMatchObject([
      { pointer: '#/from' },
      { pointer: '#/to' },
    ])
    const nobody = { userId: undefined } as unknown as { userId: string }
    await expect(apiKeys.usage(id, {}, nobody)).rejects.toThrow(TypeError)
    await expect(apiKeys.totalUsage(nobody)).rejects.toThrow(TypeError)
  })
})

describe('pruneUsage', () => {
  const own = useWorld()

  it('deletes older hours with all processes together, and returns their number', async () => {
    const [one, other] = [own.apiKeys, own.createProcess().apiKeys]
    await own.rows(
      `INSERT INTO api_key_usage
       SELECT gen_random_uuid(), 'user', 'alice', date_trunc('hour', $1::timestamptz) - n * interval '1 hour', 1, 0, 0
         FROM generate_series(0, 25000) AS n`,
      [now.toISOString()],
    )
    const countLeft = async () => {
      const [row] = await own.rows('SELECT count(*)::int AS count FROM api_key_usage')
      return row?.count
    }

    expect(await one.pruneUsage({ olderThanDays: 2, dryRun: true })).toEqual({ hours: 24_953 })
    expect(await countLeft()).toBe(25_001)
    const pruned = await Promise.all(
      [one, other].map((instance) => instance.pruneUsage({ olderThanDays: 2 })),
    )

    expect(pruned.reduce((sum, { hours }) => sum + hours, 0)).toBe(24_953)
    expect(await countLeft()).toBe(48)
    expect(await one.pruneUsage({ olderThanDays: 2 })).toEqual({ hours: 0 })
  })

  it.each<[unknown, string]>([
    [undefined, '#'],
    [{}, '#/olderThanDays'],
    [{ olderThanDays: 7, days: 7 }, '#/days'],
  ])('refuses %j', async (options, pointer) => {
    const call = apiKeys.pruneUsage(options as { olderThanDays: number })

    expect(await faultsOf(call)).toMatchObject([{ pointer }])
  })
})
