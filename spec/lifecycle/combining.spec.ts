import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'

import { findBlockedSession } from '../support/blocked'
import { faultsOf, newKey } from '../support/keys'
import { until } from '../support/until'
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

  it('are reported in the async contexts of their calls', async () => {
    const context = new AsyncLocalStorage<string>()
    const seen: string[] = []
    for (const event of ['created', 'revoked'] as const) {
      world.apiKeys.on(event, ({ apiKey }) => seen.push(`${apiKey.name} in ${context.getStore()}`))
    }

    await Promise.all(
      each(10, (number) =>
        context.run(`call ${number}`, async () => {
          const { apiKey } = await create('user 1', `Key ${number}`)
          seen.push(`answer in ${context.getStore()}`)
          await world.apiKeys.revoke(apiKey.id)
        }),
      ),
    )

    expect(seen.toSorted()).toEqual(
      each(10, (number) => [
        `Key ${number} in call ${number}`,
        `Key ${number} in call ${number}`,
        `answer in call ${number}`,
      ])
        .flat()
        .toSorted(),
    )
  })

  it('are refused one by one beyond maxKeysPerOwner', async () => {
    const { apiKeys } = world.createProcess({ users, maxKeysPerOwner: 7 })

    const results = await Promise.allSettled(
      each(60, (number) => apiKeys.create(newKey({ userId: `user ${(number % 3) + 1}` }))),
    )

    const refusals = results.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    expect(refusals.map(({ code }) => code)).toEqual(each(39, () => 'too_many_api_keys'))
    expect(
      await world.rows('SELECT user_id, count(*)::int FROM api_keys GROUP BY 1 ORDER BY 1'),
    ).toEqual(each(3, (number) => ({ user_id: `user ${number}`, count: 7 })))
  })

  it('are all created except the key of a missing user', async () => {
    const calls = each(40, (number) =>
      create(number === 20 ? 'nobody' : `user ${(number % 20) + 1}`),
    )

    const faults = faultsOf(calls[19] ?? Promise.resolve())
    const results = await Promise.allSettled(calls)

    expect(await faults).toEqual([{ pointer: '#/owner', message: 'is not a user' }])
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(39)
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(39)
  })

  it('are all created except a key that an index of the app refuses', async () => {
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

  it('are all created except a key that a trigger of the app refuses', async () => {
    await world.rows(`
      CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.user_id = 'user 7' THEN RAISE EXCEPTION 'user 7 has not paid'; END IF;
        RETURN NEW;
      END $$`)
    await world.rows(
      'CREATE TRIGGER refuse BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION refuse()',
    )

    const results = await Promise.allSettled(each(20, (number) => create(`user ${number}`)))

    const refused = results.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))
    expect(refused).toEqual([6])
    expect(results[6]).toMatchObject({ reason: { message: 'user 7 has not paid' } })
  })

  it('do not wait until no user revokes keys', async () => {
    const made = await Promise.all(each(900, () => create('user 1')))
    const end = new AbortController()
    let revoked = 0
    async function revoke(caller: number) {
      // Callers that began together would be answered together, and leave a gap.
      await setTimeout(caller)
      for (let at = caller; !end.signal.aborted; at = (at + 300) % 900) {
        await world.apiKeys.revoke(String(made[at]?.apiKey.id), { userId: 'user 1' })
        revoked++
      }
    }
    const revocations = each(300, revoke)

    await until(() => revoked > 900)
    await create('user 2')
    await create('user 3')
    end.abort()
    await Promise.all(revocations)

    expect((await world.apiKeys.list({ userId: 'user 3' })).apiKeys).toHaveLength(1)
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
    const { apiKeys } = world.createProcess({ users, maxKeysPerOwner: 2 })
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

/** Creates keys of many users. */
const createKeys = (count: number) =>
  Promise.all(
    each(count, async (number) => {
      const { apiKey } = await create(`user ${(number % 20) + 1}`, `Key ${number}`)
      return apiKey.id
    }),
  )

/** The statements that write changes of existing keys. */
const writes = (statements = world.statements) =>
  statements.all.filter((sql) => sql.includes('SKIP LOCKED'))

describe('keys that are changed at once', () => {
  it('are changed by few statements, in the order of the calls', async () => {
    const ids = await createKeys(200)
    const reported: string[] = []
    world.apiKeys.on('suspended', ({ apiKey }) => reported.push(apiKey.id))

    const records = await Promise.all(ids.map((id) => world.apiKeys.suspend(id)))

    expect(records.map(({ id, status }) => `${id} ${status}`)).toEqual(
      ids.map((id) => `${id} SUSPENDED`),
    )
    expect(reported.toSorted()).toEqual(ids.toSorted())
    expect(writes().length).toBeLessThan(6)
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(400)
  })

  it('are refused one by one if their state does not allow the change', async () => {
    const ids = await createKeys(30)
    const [gone, revoked, foreign] = ids
    await world.apiKeys.revoke(String(revoked))
    await world.rows('DELETE FROM api_keys WHERE id = $1', [gone])

    const results = await Promise.allSettled(
      ids.map((id) =>
        world.apiKeys.update(id, { name: 'New' }, id === foreign ? { userId: 'user 1' } : {}),
      ),
    )

    const refusals = results.flatMap((each) =>
      each.status === 'rejected' ? [each.reason.code] : [],
    )
    expect(refusals).toEqual(['api_key_not_found', 'api_key_revoked', 'api_key_not_found'])
    expect(await world.rows(`SELECT count(*)::int FROM api_keys WHERE name = 'New'`)).toEqual([
      { count: 27 },
    ])
  })

  it('are changed once if a value of the app is refused for one of them', async () => {
    const ids = await createKeys(30)
    await world.rows('CREATE UNIQUE INDEX ON api_keys (name)')

    const results = await Promise.allSettled(
      ids.map((id, index) => world.apiKeys.update(id, { name: `New ${Math.max(index, 1)}` })),
    )

    const refusals = results.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    expect(refusals).toMatchObject([{ name: 'SequelizeUniqueConstraintError' }])
    expect((await world.apiKeys.verifyAuditTrail()).entries).toBe(59)
  })

  it('do not wait for a key that the app has locked', async () => {
    const [locked, ...others] = await createKeys(20)
    const lock = await world.holdLock(`SELECT FROM api_keys WHERE id = '${locked}' FOR UPDATE`)
    let isDone = false
    const blocked = world.apiKeys.revoke(String(locked)).then((record) => {
      isDone = true
      return record
    })

    await Promise.all(others.map((id) => world.apiKeys.revoke(id)))
    expect(isDone).toBe(false)
    await lock.release()

    expect(await blocked).toMatchObject({ id: locked, status: 'REVOKED' })
  })

  it('are refused with 503 if the app keeps the key locked', async () => {
    const sequelize = world.database.connect({ pool: { max: 4, acquire: 1_000 } })
    const { apiKeys } = world.createProcess({ users, sequelize })
    const [locked, other] = await createKeys(2)
    await world.holdLock(`SELECT FROM api_keys WHERE id = '${locked}' FOR UPDATE`)

    await expect(apiKeys.revoke(String(locked))).rejects.toMatchObject({
      code: 'database_unavailable',
    })
    await expect(apiKeys.revoke(String(other))).resolves.toMatchObject({ status: 'REVOKED' })
  })

  it('are refused with 503 if the statements before them hang', async () => {
    const sequelize = world.database.connect({ pool: { max: 4, acquire: 1_000 } })
    const { apiKeys } = world.createProcess({ users, sequelize })
    const ids = await createKeys(6)
    const lock = await world.holdLock('LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE')
    const blocked: Promise<unknown>[] = []
    for (const id of ids.slice(0, 2)) {
      blocked.push(apiKeys.suspend(id))
      await lock.waitedFor()
    }

    const late = await Promise.allSettled(ids.map((id) => apiKeys.revoke(id)))
    await lock.release()
    await Promise.all(blocked)

    expect(late.map((each) => each.status === 'rejected' && each.reason.code)).toEqual(
      ids.map(() => 'database_unavailable'),
    )
    expect(await apiKeys.get(String(ids[5]))).toMatchObject({ status: 'ACTIVE' })
  })

  it('do not hold up the revocation of their key, however many callers change it', async () => {
    const [id] = await createKeys(1)
    const revoker = world.createProcess({ users })
    const end = new AbortController()
    async function change(caller: number) {
      for (let time = 0; !end.signal.aborted; time++) {
        await world.apiKeys.update(String(id), { name: `${caller} ${time}` }).catch(() => {})
      }
    }
    const changes = Promise.all(each(8, change))

    const record = await revoker.apiKeys.revoke(String(id))
    end.abort()
    await changes

    expect(record).toMatchObject({ status: 'REVOKED' })
    expect(writes(revoker.statements).length).toBeLessThan(5)
    const { events } = await world.apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({ action: 'revoked' })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('are read back from the log once for each statement', async () => {
    const ids = await createKeys(100)
    const { plainTextKey } = await create('user 1')
    await world.apiKeys.verify(plainTextKey)
    const before = { polls: world.statements.polls().length, writes: writes().length }

    await Promise.all(ids.map((id) => world.apiKeys.revoke(id)))

    const polls = world.statements.polls().length - before.polls
    expect(writes().length - before.writes).toBeLessThan(6)
    expect(polls).toBeLessThan(15)
  })
})

describe('keys of users whose ids the database spells in another way', () => {
  const usersById = { table: 'users_by_id' } as const
  const usersWorld = useWorldForEach({ options: { users: usersById }, template: 'empty' })

  it('are all created except the key of a missing user', async () => {
    const ids = each(5, () => randomUUID())
    await usersWorld.rows('CREATE TABLE users_by_id (id uuid PRIMARY KEY)')
    await usersWorld.rows('INSERT INTO users_by_id SELECT unnest($1::uuid[])', [ids])
    await usersWorld.apiKeys.migrate()
    const reported: string[] = []
    usersWorld.apiKeys.on('created', ({ apiKey }) => reported.push(apiKey.userId))

    const results = await Promise.allSettled(
      [...ids, String(ids[0]).toUpperCase(), randomUUID().toUpperCase()].map((userId) =>
        usersWorld.apiKeys.create(newKey({ userId })),
      ),
    )

    expect(
      results.map((each) => (each.status === 'fulfilled' ? each.value.apiKey.userId : each.reason)),
    ).toEqual([...ids, ids[0], expect.objectContaining({ code: 'invalid_input' })])
    expect(reported.toSorted()).toEqual([...ids, String(ids[0])].toSorted())
    expect((await usersWorld.apiKeys.verifyAuditTrail()).entries).toBe(6)
  })

  it('are created one at a time, each with an entry in the spelling of the database', async () => {
    const id = randomUUID()
    await usersWorld.rows('CREATE TABLE users_by_id (id uuid PRIMARY KEY)')
    await usersWorld.rows('INSERT INTO users_by_id VALUES ($1)', [id])
    await usersWorld.apiKeys.migrate()

    const { apiKey } = await usersWorld.apiKeys.create(newKey({ userId: id.toUpperCase() }))

    expect(apiKey.userId).toBe(id)
    expect(await usersWorld.rows('SELECT owner_id FROM api_key_events')).toEqual([{ owner_id: id }])
    expect(await usersWorld.apiKeys.verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: 1,
    })
  })
})
