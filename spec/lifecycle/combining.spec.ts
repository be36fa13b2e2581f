import { findBlockedSession } from '../support/blocked'
import { faultsOf, newKey } from '../support/keys'
import { useWorldForEach } from '../support/world'

const users = { table: 'users', column: 'id', type: 'text' } as const

const world = useWorldForEach({ options: { users }, template: 'empty' })

beforeEach(async () => {
  await world.rows(`CREATE TABLE users (id text PRIMARY KEY)`)
  await world.rows(`INSERT INTO users SELECT 'user ' || n FROM generate_series(1, 20) AS n`)
  await world.apiKeys.migrate()
})

const create = (userId: string, name = 'Deployment') =>
  world.apiKeys.create(newKey({ userId, name }))

const creations = (statements = world.statements) =>
  statements.all.filter((sql) => sql.includes('api_key_create'))

const each = <Result>(count: number, work: (number: number) => Result) =>
  Array.from({ length: count }, (_, index) => work(index + 1))

describe('keys that are created at once', () => {
  it('are created by few statements, in the order of the calls', async () => {
    const reported: string[] = []
    const answered: string[] = []
    world.apiKeys.on('created', ({ apiKey }) => reported.push(apiKey.name))

    await Promise.all(
      each(300, async (number) => {
        const { apiKey } = await create('user 1', `Key ${number}`)
        answered.push(apiKey.name)
      }),
    )

    const { events } = await world.apiKeys.events({ limit: 100 })
    const names = each(300, (number) => `Key ${number}`)
    expect(answered).toEqual(names)
    expect(reported).toEqual(names)
    expect(events.toReversed().map(({ after }) => after?.name)).toEqual(names.slice(200))
    expect(creations().length).toBeLessThan(4)
  })

  it('are refused one by one beyond maxKeysPerUser', async () => {
    const { apiKeys } = world.createProcess({ users, maxKeysPerUser: 7 })

    const results = await Promise.allSettled(
      each(60, (number) => apiKeys.create(newKey({ userId: `user ${(number % 3) + 1}` }))),
    )

    const refusals = results.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    expect(refusals.map(({ code }) => code)).toEqual(each(39, () => 'too_many_api_keys'))
    expect(
      await world.rows('SELECT user_id, count(*)::int FROM api_keys GROUP BY 1 ORDER BY 1'),
    ).toEqual(each(3, (number) => ({ user_id: `user ${number}`, count: 7 })))
  })

  it('are all created but the key of a user who is missing', async () => {
    const calls = each(40, (number) =>
      create(number === 20 ? 'nobody' : `user ${(number % 20) + 1}`),
    )

    const faults = faultsOf(calls[19] ?? Promise.resolve())
    const results = await Promise.allSettled(calls)

    expect(await faults).toEqual([{ pointer: '#/userId', message: 'is not a user' }])
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(39)
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(39)
  })

  it('are all created but a key that an index of the app refuses', async () => {
    await world.rows('CREATE UNIQUE INDEX ON api_keys (name)')

    const results = await Promise.allSettled(
      each(40, (number) =>
        create(`user ${(number % 20) + 1}`, `Key ${number === 30 ? 29 : number}`),
      ),
    )

    const refusals = results.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    expect(refusals).toMatchObject([{ name: 'SequelizeUniqueConstraintError' }])
    expect(String(refusals[0]?.detail ?? '')).toBe('')
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(39)
  })

  it('do not wait for a user whom the app has locked', async () => {
    const lock = await world.holdLock(`DELETE FROM users WHERE id = 'user 1'`)
    let isDone = false
    const blocked = create('user 1').then((created) => {
      isDone = true
      return created
    })

    for (let round = 0; round < 3; round++) {
      await Promise.all(each(19, (number) => create(`user ${number + 1}`)))
    }
    expect(isDone).toBe(false)
    await lock.release()

    expect((await blocked).apiKey).toMatchObject({ userId: 'user 1' })
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(58)
  })

  it('are refused with 503 if the app keeps their user locked', async () => {
    const sequelize = world.database.connect({ pool: { max: 4, acquire: 1_000 } })
    const { apiKeys } = world.createProcess({ users, sequelize })
    await apiKeys.create(newKey({ userId: 'user 1' }))
    await world.holdLock(`DELETE FROM users WHERE id = 'user 1'`)

    await expect(apiKeys.create(newKey({ userId: 'user 1' }))).rejects.toMatchObject({
      code: 'database_unavailable',
    })
    await expect(apiKeys.create(newKey({ userId: 'user 2' }))).resolves.toBeDefined()
  })

  it('wait for a transaction of the caller that creates keys for the same user', async () => {
    const { apiKeys } = world.createProcess({ users, maxKeysPerUser: 2 })
    const transaction = await world.sequelize.transaction()
    await world.apiKeys.create(newKey({ userId: 'user 1' }), { transaction })

    const results = Promise.allSettled(each(3, () => apiKeys.create(newKey({ userId: 'user 1' }))))
    await findBlockedSession(world.sequelize)
    await transaction.commit()

    const statuses = (await results).map(({ status }) => status)
    expect(statuses.toSorted()).toEqual(['fulfilled', 'rejected', 'rejected'])
  })

  it('are created by unnamed statements if the app prepares none', async () => {
    const { apiKeys, statements } = world.createProcess({ users, preparedStatements: false })

    await Promise.all(each(10, () => apiKeys.create(newKey({ userId: 'user 1' }))))

    expect(creations(statements).length).toBeGreaterThan(0)
    expect(statements.names.size).toBe(0)
  })

  it('leave the app the connections of its pool', async () => {
    const sequelize = world.database.connect({ pool: { max: 5, acquire: 10_000 } })
    const { apiKeys } = world.createProcess({ users, sequelize })
    const calls = each(500, () => apiKeys.create(newKey({ userId: 'user 1' })))
    let left = 500
    for (const call of calls) void call.then(() => left--)

    await sequelize.query('SELECT 1')
    const leftAtAnswer = left
    await Promise.all(calls)

    expect(leftAtAnswer).toBeGreaterThan(0)
    expect((await apiKeys.verifyAuditTrail()).entries).toBe(500)
  })
})
