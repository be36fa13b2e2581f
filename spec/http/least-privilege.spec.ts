import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Server } from 'node:http'

import express, { type Express } from 'express'
import * as fc from 'fast-check'
import { QueryTypes, Sequelize } from 'sequelize'
import request from 'supertest'

import { createApiKeys, MissingPermissionError } from '../../lib'
import {
  createTestApiKeys,
  createTestApp,
  permissions,
  type Options,
  type Permission,
  type TestApiKeys,
} from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { faultsOf, newKey } from '../support/keys'
import { startProxy } from '../support/proxy'
import { until } from '../support/until'

const [read, execute] = permissions

let database: Database
let sequelize: Sequelize
let instances: TestApiKeys[] = []
/** For whom the app was asked, in all processes. */
let asked: string[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  await sequelize.query(`
    CREATE TABLE roles (user_id text, permission text);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO api_key_user_changes (user_id) VALUES (OLD.user_id);
        RETURN NULL;
      END $$`)
})

beforeEach(async () => {
  asked = []
  await hold('alice', [read, execute])
})

afterEach(async () => {
  for (const instance of instances) await instance.close()
  instances = []
})

afterAll(() => database.drop())

/** What the app says of its users: it has roles in the database. */
async function rolesOf(userId: string): Promise<Permission[]> {
  asked.push(userId)
  const rows = await sequelize.query<{ permission: Permission }>(
    'SELECT permission FROM roles WHERE user_id = $1',
    { bind: [userId], type: QueryTypes.SELECT },
  )
  return rows.map(({ permission }) => permission)
}

/** Gives a user these roles and no others, and tells nobody. */
async function hold(userId: string, held: readonly Permission[]) {
  await sequelize.query('DELETE FROM roles WHERE user_id = $1', { bind: [userId] })
  for (const permission of held) {
    await sequelize.query('INSERT INTO roles VALUES ($1, $2)', { bind: [userId, permission] })
  }
}

/** The library as in one more process. */
function createInstance(options: Options = {}) {
  const apiKeys = createTestApiKeys(database, { grantable: rolesOf, ...options })
  instances.push(apiKeys)
  return apiKeys
}

/** An app with a route for each permission, and one for any key; each answers what the key holds. */
function createApp(apiKeys: TestApiKeys): Express {
  return createTestApp(apiKeys, (app) => {
    const answer: express.RequestHandler = (req, res) => {
      res.json(apiKeys.getApiKey(req).permissions)
    }
    for (const permission of permissions) {
      app.get(`/${permission}`, apiKeys.requirePermission(permission), answer)
    }
    app.get('/any', apiKeys.authenticate(), answer)
  })
}

/** A key of a user who holds all that it does, as it was made. */
async function createKey(wishes: Parameters<typeof newKey>[0] = {}) {
  const maker = createTestApiKeys(database)
  const created = await maker.create(newKey({ permissions: [read, execute], ...wishes }))
  await maker.close()
  return { id: created.apiKey.id, key: created.plainTextKey }
}

function get(app: Express | Server, path: string, key: string) {
  return request(app).get(`/${path}`).set('Authorization', `Bearer ${key}`)
}

async function statusOf(app: Express, path: string, key: string) {
  return (await get(app, path, key)).status
}

async function holdingOf(apiKeys: TestApiKeys, key: string) {
  const verdict = await apiKeys.verify(key)
  return verdict.valid ? verdict.apiKey.permissions : verdict.code
}

/** What an app may answer in its own time. */
function createAnswers() {
  const waiting: { give(held: readonly Permission[]): void; fail(error: Error): void }[] = []

  return {
    grantable: () =>
      new Promise<readonly Permission[]>((give, fail) => {
        waiting.push({ give, fail })
      }),
    /** Resolves once the app is asked. */
    async next() {
      await until(() => waiting.length > 0)
      const answer = waiting.shift()
      if (!answer) throw new Error('nobody asks')
      return answer
    },
    get waiting() {
      return waiting.length
    },
  }
}

/** Requests a route that demands `READ_GRAPH`, and leaves its response open. */
async function openResponse(apiKeys: TestApiKeys, key: string) {
  const app = express()
  const signals: AbortSignal[] = []
  app.get('/', apiKeys.requirePermission(read), (req, res) => {
    signals.push(apiKeys.getApiKey(req).signal)
    res.write('begun')
  })
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const client = new AbortController()
  const fetching = fetch(`http://127.0.0.1:${port}`, {
    headers: { Authorization: `Bearer ${key}` },
    signal: client.signal,
  }).catch(() => {})
  await until(() => signals.length > 0)
  const [signal] = signals
  if (!signal) throw new Error('no signal')

  return {
    signal,
    async close() {
      client.abort()
      await fetching
      server.closeAllConnections()
      server.close()
    },
  }
}

async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, 'abort')
  return signal.reason
}

describe('a key', () => {
  it('holds no more than its owner', async () => {
    const apiKeys = createInstance()
    const app = createApp(apiKeys)
    const { id, key } = await createKey()
    await hold('alice', [read, 'READ_BLOCK'])

    const [passed, refused] = [await get(app, read, key), await get(app, execute, key)]

    expect([passed.status, passed.body]).toEqual([200, [read]])
    expect(refused.status).toBe(403)
    expect(refused.headers['www-authenticate']).toBe(
      `Bearer realm="api", error="insufficient_scope", scope="${execute}"`,
    )
    expect(refused.body).toMatchObject({ code: 'missing_permission', missing: [execute] })
    expect(await statusOf(app, 'READ_BLOCK', key)).toBe(403)
    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(await apiKeys.get(id)).toMatchObject({ permissions: [read, execute] })
    expect(asked).toEqual(['alice'])
  })

  it('is good for what demands nothing when its owner holds nothing', async () => {
    const app = createApp(createInstance())
    const { key } = await createKey()
    await hold('alice', [])

    const response = await get(app, 'any', key)

    expect([response.status, response.body]).toEqual([200, []])
    expect(await statusOf(app, read, key)).toBe(403)
  })

  it('that is not good is refused without asking for its owner', async () => {
    const apiKeys = createInstance()
    const { id, key } = await createKey()
    await apiKeys.revoke(id)

    expect(await holdingOf(apiKeys, key)).toBe('revoked')
    expect(asked).toEqual([])
  })

  it('loses what its owner loses, at once in the process that is told, and in others within the bound', async () => {
    const [apiKeys, other] = [createInstance(), createInstance({ listen: false })]
    const [app, otherApp] = [createApp(apiKeys), createApp(other)]
    const { key } = await createKey()
    for (const each of [app, otherApp]) expect(await statusOf(each, execute, key)).toBe(200)

    await hold('alice', [read])
    expect(await statusOf(app, execute, key)).toBe(200)
    await apiKeys.userChanged('alice')

    expect(await statusOf(app, execute, key)).toBe(403)
    expect(await statusOf(app, read, key)).toBe(200)
    await until(async () => (await statusOf(otherApp, execute, key)) === 403)

    await hold('alice', [read, execute])
    await apiKeys.userChanged('alice')
    expect(await statusOf(app, execute, key)).toBe(200)
    await until(async () => (await statusOf(otherApp, execute, key)) === 200)
  })

  it('loses it within twice the age where nobody tells', async () => {
    const app = createApp(createInstance({ grantableMaxAgeMs: 100 }))
    const { key } = await createKey()
    expect(await statusOf(app, execute, key)).toBe(200)

    await hold('alice', [read])

    await until(async () => (await statusOf(app, execute, key)) === 403)
  })

  it('has its owner asked for at every request where answers have no age', async () => {
    const app = createApp(createInstance({ grantableMaxAgeMs: 0 }))
    const { key } = await createKey()

    expect(await statusOf(app, execute, key)).toBe(200)
    await hold('alice', [read])
    expect(await statusOf(app, execute, key)).toBe(403)
    await hold('alice', [execute])
    expect(await statusOf(app, execute, key)).toBe(200)

    expect(asked).toHaveLength(3)
  })

  it('has its owner asked for once, however many requests come first', async () => {
    const apiKeys = createInstance()
    const [first, second] = [await createKey(), await createKey()]

    const holdings = await Promise.all(
      Array.from({ length: 500 }, (_, number) =>
        holdingOf(apiKeys, (number % 2 ? first : second).key),
      ),
    )

    expect(new Set(holdings.map(String))).toEqual(new Set([`${read},${execute}`]))
    expect(asked).toEqual(['alice'])
  })

  it('has its owner asked for again when the user is changed while the app answers', async () => {
    const { grantable, next, ...answers } = createAnswers()
    const apiKeys = createInstance({ grantable })
    const { key } = await createKey()

    const early = holdingOf(apiKeys, key)
    const beforeChange = await next()
    await apiKeys.userChanged('alice')
    const late = holdingOf(apiKeys, key)
    const afterChange = await next()
    afterChange.give([read])
    expect(await late).toEqual([read])
    beforeChange.give([read, execute])

    expect(await early).toEqual([read])
    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(answers.waiting).toBe(0)
  })
})

describe('grantable', () => {
  it('is waited for at the first use, and asked beside the requests later', async () => {
    const { grantable, next } = createAnswers()
    const apiKeys = createInstance({ grantable, grantableMaxAgeMs: 2_000 })
    const { key } = await createKey()
    const first = holdingOf(apiKeys, key)
    const firstAnswer = await next()
    firstAnswer.give([read, execute])
    expect(await first).toEqual([read, execute])

    let isAsked = false
    const second = next().finally(() => {
      isAsked = true
    })
    await until(async () => {
      expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
      return isAsked
    })
    const secondAnswer = await second
    secondAnswer.give([read])

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
  })

  it('that fails breaks nothing until answers are twice as old, and has requests answered with 503 then', async () => {
    let isAway = false
    const apiKeys = createInstance({
      grantableMaxAgeMs: 150,
      grantable: async (userId) =>
        isAway ? Promise.reject(new Error('no roles today')) : rolesOf(userId),
    })
    const app = createApp(apiKeys)
    const told: unknown[] = []
    apiKeys.on('grantable_unavailable', (notice) => told.push(notice))
    const { key } = await createKey()
    expect(await statusOf(app, read, key)).toBe(200)
    expect(told).toEqual([])

    isAway = true
    const statuses: number[] = []
    await until(async () => {
      statuses.push(await statusOf(app, read, key))
      return statuses.at(-1) !== 200
    })
    const refused = await get(app, read, key)

    expect(statuses.at(-1)).toBe(503)
    expect(refused.status).toBe(503)
    expect(refused.headers['retry-after']).toBe('1')
    expect(refused.body).toMatchObject({ code: 'grantable_unavailable' })
    await expect(apiKeys.verify(key)).rejects.toMatchObject({
      code: 'grantable_unavailable',
      cause: new Error('no roles today'),
    })
    expect(told[0]).toEqual({ userId: 'alice', error: new Error('no roles today') })

    isAway = false
    expect(await statusOf(app, read, key)).toBe(200)
  })

  it('that never answers has requests answered with 503, and is asked again by the next', async () => {
    const { grantable, next } = createAnswers()
    const app = createApp(createInstance({ grantable }))
    const { key } = await createKey()

    const refused = await get(app, read, key)
    await next()
    const [status] = await Promise.all([
      statusOf(app, read, key),
      next().then(({ give }) => give([read])),
    ])

    expect(refused.status).toBe(503)
    expect(refused.body).toMatchObject({ code: 'grantable_unavailable' })
    expect(status).toBe(200)
  })

  it.each<[string, () => Promise<never>]>([
    ['rejects', () => Promise.reject(new Error('no roles today'))],
    ['never answers', () => new Promise(() => {})],
  ])('that %s has keys neither made nor given permissions', async (_, grantable) => {
    const apiKeys = createInstance({ grantable })
    const told = jest.fn()
    apiKeys.on('grantable_unavailable', told)
    const app = createApp(apiKeys)
    const { id } = await createKey()
    const wish = { name: 'CI', permissions: [read] }

    const answers = await Promise.all([
      request(app).post('/api-keys').set('X-User', 'alice').send(wish),
      request(app)
        .put(`/api-keys/${id}/permissions`)
        .set('X-User', 'alice')
        .send({
          permissions: [read],
        }),
      request(app)
        .post('/admin/api-keys')
        .set('X-User', 'admin')
        .send({ ...wish, userId: 'alice' }),
    ])

    for (const answer of answers) {
      expect(answer.status).toBe(503)
      expect(answer.headers['retry-after']).toBe('1')
      expect(answer.body).toEqual({
        title: 'Service Unavailable',
        status: 503,
        detail:
          'What the owner of the API key may do cannot be checked at the moment. Try again shortly.',
        code: 'grantable_unavailable',
      })
    }
    expect(told).toHaveBeenCalledTimes(3)
    expect(told).toHaveBeenCalledWith({ userId: 'alice', error: expect.any(Error) })
  })

  it('that throws is no grant', async () => {
    const app = createApp(
      createInstance({
        grantable: () => {
          throw new Error('a mistake')
        },
      }),
    )
    const { key } = await createKey()

    expect(await statusOf(app, read, key)).toBe(503)
  })

  it.each([undefined, null, `${read} ${execute}`, { 0: read }, [read, 7], new Set([read])])(
    'that answers %p is a mistake for the app’s own error handler',
    async (granted) => {
      const app = createApp(createInstance({ grantable: () => granted as never }))
      const { key } = await createKey()

      const response = await get(app, read, key)

      expect(response.status).toBe(500)
      expect(response.body).toEqual({
        app: 'createApiKeys: the option grantable must return a list of permissions',
      })
    },
  )

  it('may name what is no permission of the app, and what the key does not hold', async () => {
    const apiKeys = createInstance({
      grantable: () => ['READ_BLOCK', 'toString', read, read, ''] as never,
    })
    const { key } = await createKey()

    expect(await holdingOf(apiKeys, key)).toEqual([read])
  })

  it('is remembered for as many users as keys are', async () => {
    const apiKeys = createInstance({ cacheSize: 2 })
    const keys = await Promise.all(['alice', 'bob', 'carol'].map((userId) => createKey({ userId })))
    const [alice = '', bob = '', carol = ''] = keys.map(({ key }) => key)

    for (const key of [alice, bob, alice, bob]) await apiKeys.verify(key)
    expect(asked).toEqual(['alice', 'bob'])
    for (const key of [carol, alice, bob, carol]) await apiKeys.verify(key)
    expect(asked.length).toBeGreaterThan(3)
  })

  it('goes on being asked while the database is away and keys have a grace', async () => {
    const proxy = await startProxy(Number(new URL(database.url).port))
    let held: readonly Permission[] = [read, execute]
    const connection = new Sequelize(proxy.through(database.url), { logging: false })
    const apiKeys = createInstance({
      sequelize: connection,
      maxStalenessMs: 300,
      outageGraceMs: 60_000,
      grantableMaxAgeMs: 200,
      grantable: async () => held,
    })
    const { key } = await createKey()
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])

    proxy.refuse()
    await until(async () => ((await apiKeys.health()).lagMs ?? 0) > 300)
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
    held = [read]

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect((await apiKeys.health()).feed).toBe('unreachable')
    await proxy.accept()
    await apiKeys.close()
    await connection.close()
    await proxy.close()
  })
})

describe('userChanged', () => {
  it('in a transaction of the caller counts when that is committed, and not before', async () => {
    const apiKeys = createInstance({ listen: false, maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)

    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM roles WHERE permission = '${execute}'`, { transaction })
    await apiKeys.userChanged('alice', { transaction })
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
    await transaction.commit()

    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(asked).toEqual(['alice', 'alice'])
  })

  it('in a transaction that is rolled back changes nothing', async () => {
    const [apiKeys, other] = [createInstance(), createInstance()]
    const { key } = await createKey()
    await holdingOf(other, key)

    const transaction = await sequelize.transaction()
    await apiKeys.userChanged('alice', { transaction })
    await transaction.rollback()
    const { revision } = await other.health()
    await apiKeys.userChanged('bob')
    await until(async () => (await other.health()).revision !== revision)

    expect(await holdingOf(other, key)).toEqual([read, execute])
    expect(asked).toEqual(['alice'])
  })

  it('in a process that verifies nothing, and knows of no grants, reaches those that do', async () => {
    const other = createInstance({ maxStalenessMs: 600_000 })
    const teller = createTestApiKeys(database)
    instances.push(teller)
    const { key } = await createKey()
    await holdingOf(other, key)
    await until(async () => (await other.health()).doorbell === 'up')

    await hold('alice', [])
    await teller.userChanged('alice')

    await until(async () => String(await holdingOf(other, key)) === '')
    expect((await teller.health()).feed).toBe('idle')
  })

  it('everywhere answers when no process goes by the old roles any more', async () => {
    // The bounds of other specs' processes stand in the one that they share.
    const own = await createDatabase()
    let held = [read, execute]
    const options = { grantable: () => held, maxStalenessMs: 300 }
    const [apiKeys, other] = [
      createTestApiKeys(own, options),
      createTestApiKeys(own, { ...options, listen: false }),
    ]
    const { plainTextKey } = await apiKeys.create(newKey({ permissions: held }))
    for (const each of [apiKeys, other]) await holdingOf(each, plainTextKey)

    held = [read]
    await apiKeys.userChanged('alice', { everywhere: true })

    expect(await holdingOf(other, plainTextKey)).toEqual([read])
    await own.drop()
  })

  it.each([undefined, null, '', {}, 'x'.repeat(256)])('refuses %p for a user', async (userId) => {
    expect(await faultsOf(createInstance().userChanged(userId as never))).toMatchObject([
      { pointer: '#/userId' },
    ])
  })

  it('refuses options that make no sense', async () => {
    const apiKeys = createInstance()
    const transaction = await sequelize.transaction()

    await expect(apiKeys.userChanged('alice', { transaction, everywhere: true })).rejects.toThrow(
      'everywhere needs a change that is committed: leave out the transaction',
    )
    await expect(apiKeys.userChanged('alice', { everywhere: 1 as never })).rejects.toThrow(
      'everywhere must be true or false',
    )
    await expect(apiKeys.userChanged('alice', { reason: 'moved on' } as never)).rejects.toThrow(
      'userChanged: there is no option reason',
    )
    await transaction.rollback()
  })

  it.each([
    ['integer', 7, '07'],
    ['bigint', '9223372036854775807', 9223372036854775807n],
    ['uuid', '7d444840-9dc0-11d1-b245-5ffdce74fad2', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2'],
  ] as const)('tells of users whose ids are of the type %s', async (type, userId, written) => {
    let held = [read]
    const seen: unknown[] = []
    const apiKeys = createApiKeys({
      sequelize,
      schema: `ids of ${type}`,
      users: { type },
      keyPrefix: 'agpt',
      permissions: [read],
      grantable(userId) {
        seen.push(userId)
        return held
      },
    })
    await apiKeys.migrate()
    const { plainTextKey } = await apiKeys.create({ userId, name: 'A', permissions: [read] })
    await apiKeys.verify(plainTextKey)

    held = []
    await apiKeys.userChanged(written)

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ apiKey: { permissions: [] } })
    expect(seen).toEqual([userId, userId, userId])
    await apiKeys.close()
  })
})

describe('a change of roles by plain SQL', () => {
  it.each([
    ['a user', `INSERT INTO api_key_user_changes (user_id) VALUES ('bob'), ('alice')`],
    ['everybody', 'INSERT INTO api_key_user_changes (user_id) VALUES (NULL)'],
    [
      'a user, where replication is pretended',
      `SET LOCAL session_replication_role = 'replica';
       INSERT INTO api_key_user_changes VALUES ('alice')`,
    ],
  ])('is heard of when %s is told of', async (_, sql) => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)
    await until(async () => (await apiKeys.health()).doorbell === 'up')

    await hold('alice', [read])
    await sequelize.transaction((transaction) => sequelize.query(sql, { transaction }))

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect(await sequelize.query('SELECT * FROM api_key_user_changes')).toMatchObject([[], {}])
  })

  it('is heard of through a trigger of the app’s, in one entry with changes of keys', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const [{ key }, doomed] = [await createKey(), await createKey()]
    for (const each of [key, doomed.key]) await holdingOf(apiKeys, each)
    await until(async () => (await apiKeys.health()).doorbell === 'up')
    const { revision } = await apiKeys.health()
    await sequelize.query(
      'CREATE TRIGGER tell AFTER DELETE ON roles FOR EACH ROW EXECUTE FUNCTION tell()',
    )

    await sequelize.query(
      `BEGIN;
       DELETE FROM api_keys WHERE id = '${doomed.id}';
       DELETE FROM roles WHERE permission = '${execute}';
       COMMIT`,
    )

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect(await holdingOf(apiKeys, doomed.key)).toBe('unknown')
    const [since] = await sequelize.query(
      `SELECT FROM api_key_revisions WHERE revision > ${revision}`,
    )
    expect(since).toHaveLength(1)
    await sequelize.query('DROP TRIGGER tell ON roles')
  })

  it('needs no right but to insert', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)
    await until(async () => (await apiKeys.health()).doorbell === 'up')
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await sequelize.query(`CREATE ROLE ${role}; GRANT INSERT ON api_key_user_changes TO ${role}`)
    const teller = database.connect({ dialectOptions: { options: `-c role=${role}` } })

    await hold('alice', [])
    await teller.query(`INSERT INTO api_key_user_changes VALUES ('alice')`)

    await until(async () => String(await holdingOf(apiKeys, key)) === '')
    await expect(teller.query('SELECT FROM api_key_user_changes')).rejects.toThrow('permission')
    await sequelize.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  })

  it('is not missed where the trigger is disabled, as nothing is relied on meanwhile', async () => {
    const [apiKeys, without] = [
      createInstance({ maxStalenessMs: 300 }),
      createInstance({ maxStalenessMs: 300, grantable: undefined }),
    ]
    const { key } = await createKey()
    for (const each of [apiKeys, without]) await holdingOf(each, key)

    await sequelize.query('ALTER TABLE api_key_user_changes DISABLE TRIGGER api_key_gather_user')
    await hold('alice', [read])
    await sequelize.query(`INSERT INTO api_key_user_changes VALUES ('alice')`)
    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    await until(async () => (await apiKeys.health()).feed === 'untrusted')
    expect(await holdingOf(without, key)).toEqual([read, execute])
    expect((await without.health()).feed).toBe('following')

    await sequelize.query('TRUNCATE api_key_user_changes')
    await sequelize.query(
      'ALTER TABLE api_key_user_changes ENABLE ALWAYS TRIGGER api_key_gather_user',
    )
    await until(async () => (await apiKeys.health()).feed === 'following')
  })

  it('needs the table of changed users, and says so', async () => {
    const own = await createDatabase()
    const apiKeys = createTestApiKeys(own, { grantable: () => [read] })
    const { plainTextKey } = await apiKeys.create(newKey())
    await own.connect().query('DROP TABLE api_key_user_changes')

    for (const call of [() => apiKeys.verify(plainTextKey), () => apiKeys.userChanged('alice')]) {
      await expect(call()).rejects.toThrow(
        /^express-api-keys: the tables are missing or older than this version/,
      )
    }
    await own.drop()
  })
})

describe('the signal of a key', () => {
  it('aborts when the owner is said to have lost what a guard demanded, and for nothing else', async () => {
    const [apiKeys, other] = [createInstance(), createInstance()]
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    await hold('alice', [read])
    await other.userChanged('alice')
    await until(() => asked.length === 2)
    expect(signal.aborted).toBe(false)
    await hold('alice', [execute])
    await other.userChanged('alice')

    expect(await reasonOf(signal)).toBeInstanceOf(MissingPermissionError)
    expect(signal.reason).toMatchObject({ missing: [read] })
    await close()
  })

  it('aborts when the app is asked again and says so, for whoever', async () => {
    const apiKeys = createInstance({ grantableMaxAgeMs: 300 })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    await hold('alice', [])
    await until(async () => {
      await apiKeys.verify(key)
      return signal.aborted
    })

    expect(signal.reason).toMatchObject({ code: 'missing_permission' })
    await close()
  })

  it('aborts although nobody tells, and no other request comes', async () => {
    let held: readonly Permission[] = [read]
    const apiKeys = createInstance({
      grantableMaxAgeMs: 0,
      grantable(userId) {
        asked.push(userId)
        return held
      },
    })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)
    // For the request, and for the signal when it was made.
    await until(() => asked.length === 2)

    held = []

    expect(await reasonOf(signal)).toMatchObject({ code: 'missing_permission' })
    await close()
  })

  it('aborts where nobody can tell any more what the owner may do', async () => {
    let isAway = false
    const apiKeys = createInstance({
      grantableMaxAgeMs: 500,
      grantable() {
        if (isAway) throw new Error('no roles to be had')
        return [read]
      },
    })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    isAway = true

    expect(await reasonOf(signal)).toMatchObject({ code: 'database_unavailable' })
    await close()
  })
})

describe('whatever users and keys do', () => {
  const users = ['alice', 'bob'] as const

  type Action =
    | { do: 'give roles'; user: number; held: Permission[] }
    | { do: 'create'; user: number; wanted: Permission[] }
    | { do: 'set permissions'; user: number; key: number; wanted: Permission[] }
    | { do: 'rename' | 'rotate' | 'suspend' | 'reactivate'; user: number; key: number }
    | { do: 'manage keys by key'; key: number; wanted: Permission[] }
    | { do: 'use'; key: number; permission: Permission }

  const user = fc.constantFrom(0, 1)
  const key = fc.nat(5)
  const set = fc.subarray([...permissions])
  const wanted = fc.subarray([...permissions], { minLength: 1 })

  const action = fc.oneof<fc.MaybeWeightedArbitrary<Action>[]>(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('give roles'), user, held: set }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('create'), user, wanted }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('set permissions'), user, key, wanted }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom('rename', 'rotate', 'suspend', 'reactivate'),
        user,
        key,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('manage keys by key'), key, wanted }) },
    {
      weight: 10,
      arbitrary: fc.record({
        do: fc.constant('use'),
        key,
        permission: fc.constantFrom(...permissions),
      }),
    },
  )

  interface KnownKey {
    id: string
    owner: string
    key: string
    held: Permission[]
    isSuspended: boolean
  }

  it('no key passes for what its owner does not hold, and every other one does', async () => {
    const roles = new Map<string, readonly Permission[]>()
    const apiKeys = createInstance({
      grantableMaxAgeMs: 0,
      grantable: async (userId) => roles.get(userId) ?? [],
    })
    const server = createApp(apiKeys).listen(0)
    await once(server, 'listening')

    function as(name: string, method: 'post' | 'put' | 'patch', path = '') {
      return request(server)[method](`/api-keys${path}`).set('X-User', name)
    }

    /** Plays what happens, and returns what was answered wrongly. */
    async function play(actions: readonly Action[]): Promise<string[]> {
      const keys: KnownKey[] = []
      const faults: string[] = []
      for (const name of users) roles.set(name, permissions)

      async function act(action: Action) {
        const name = 'user' in action ? String(users[action.user]) : ''
        if (action.do === 'give roles') {
          roles.set(name, action.held)
          return
        }
        if (action.do === 'create') {
          const body = { name: 'A', permissions: action.wanted }
          const response = await as(name, 'post').send(body)
          if (response.status !== 201) return
          const { apiKey, plainTextKey } = response.body
          const made = { id: apiKey.id, owner: name, key: plainTextKey, isSuspended: false }
          keys.push({ ...made, held: action.wanted })
          return
        }

        const known = keys[action.key % (keys.length || 1)]
        if (!known) return
        switch (action.do) {
          case 'set permissions': {
            const body = { permissions: action.wanted }
            const response = await as(name, 'put', `/${known.id}/permissions`).send(body)
            if (response.status === 200) known.held = action.wanted
            return
          }
          case 'rename':
            await as(name, 'patch', `/${known.id}`).send({ name: 'B' })
            return
          case 'rotate': {
            const response = await as(name, 'post', `/${known.id}/rotate`)
            if (response.status === 200) known.key = response.body.plainTextKey
            return
          }
          case 'suspend':
          case 'reactivate': {
            const response = await as(name, 'post', `/${known.id}/${action.do}`)
            if (response.status === 200) known.isSuspended = action.do === 'suspend'
            return
          }
          case 'manage keys by key': {
            const body = { permissions: action.wanted }
            const response = await as(known.owner, 'put', `/${known.id}/permissions`)
              .set('Authorization', `Bearer ${known.key}`)
              .send(body)
            if (response.status !== 403) faults.push(`a key managed keys: ${response.status}`)
            return
          }
          case 'use': {
            const { status } = await get(server, action.permission, known.key)
            const mayPass =
              known.held.includes(action.permission) &&
              roles.get(known.owner)?.includes(action.permission) === true
            const due = known.isSuspended ? 401 : mayPass ? 200 : 403
            if (status !== due) faults.push(`${JSON.stringify(known)}: ${status} for ${due}`)
          }
        }
      }

      for (const action of actions) await act(action)
      return faults
    }

    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { minLength: 10, maxLength: 30, size: 'max' }),
        async (actions) => {
          expect(await play(actions)).toEqual([])
        },
      ),
      { numRuns: Number(process.env.PRIVILEGE_RUNS ?? 20) },
    )
    server.close()
  }, 120_000)
})
