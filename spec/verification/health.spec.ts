import { randomUUID } from 'node:crypto'

import { Sequelize } from 'sequelize'

import type { ApiKeyNotices } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, databaseAway, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let owner: Sequelize
let plainTextKey: string
let emitWarning: jest.SpyInstance

beforeAll(async () => {
  database = await createDatabase()
  owner = database.connect()
  ;({ plainTextKey } = await createTestApiKeys(database).create(newKey()))
})

beforeEach(() => {
  emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
})

afterEach(() => emitWarning.mockRestore())

afterAll(async () => {
  await databaseAway.drop()
  await database.drop()
})

function warnings(): { code: string; message: string }[] {
  return (emitWarning.mock.calls as [string, { code: string }][]).map(([message, { code }]) => ({
    code,
    message,
  }))
}

async function refusalBy(apiKeys: TestApiKeys): Promise<unknown> {
  return apiKeys.verify(plainTextKey).then(
    () => 'no refusal',
    (error: unknown) => error,
  )
}

/** Calls back with an instance that connects as a role of its own, which may read and write the tables. */
async function asRole(
  work: (apiKeys: TestApiKeys, role: string) => Promise<void>,
  options: Options = {},
) {
  const role = `health_${randomUUID().replaceAll('-', '')}`
  await owner.query(
    `CREATE ROLE ${role} LOGIN PASSWORD 'secret';
     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${role}`,
  )
  const url = new URL(database.url)
  url.username = role
  url.password = 'secret'
  const sequelize = new Sequelize(url.href, { logging: false })
  const apiKeys = createTestApiKeys(database, { sequelize, ...options })
  try {
    await work(apiKeys, role)
  } finally {
    await apiKeys.close().catch(() => {})
    await sequelize.close()
    await owner.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
}

describe('health', () => {
  it('is ok before the first verification and after it', async () => {
    const apiKeys = createTestApiKeys(database)

    expect(await apiKeys.health()).toMatchObject({ ok: true, reason: null, feed: 'idle' })
    await apiKeys.verify(plainTextKey)
    expect(await apiKeys.health()).toMatchObject({
      ok: true,
      reason: null,
      feed: 'following',
      lookUpFailure: null,
    })
  })

  it('says why the database cannot be asked', async () => {
    const apiKeys = createTestApiKeys(databaseAway)
    const notices: ApiKeyNotices['unavailable'][] = []
    apiKeys.on('unavailable', (notice) => notices.push(notice))

    const error = await refusalBy(apiKeys)

    expect(error).toMatchObject({ code: 'database_unavailable' })
    expect(notices).toEqual([{ error, address: null }])
    expect(await apiKeys.health()).toMatchObject({
      ok: false,
      reason: expect.stringContaining('ECONNREFUSED'),
      feed: 'unreachable',
    })
    expect(warnings()).toEqual([
      {
        code: 'API_KEYS_DATABASE_UNAVAILABLE',
        message: expect.stringContaining('ECONNREFUSED'),
      },
    ])
  })

  it('says why look-ups fail while changes arrive, until one succeeds', async () => {
    await asRole(async (apiKeys, role) => {
      await owner.query(`REVOKE SELECT ON api_key_retired_secrets FROM ${role}`)
      const unavailable = new Promise<ApiKeyNotices['unavailable']>((resolve) => {
        apiKeys.on('unavailable', resolve)
      })

      const error = await refusalBy(apiKeys)

      expect((await unavailable).error).toBe(error)
      expect(await apiKeys.health()).toMatchObject({
        ok: false,
        reason: 'Keys cannot be looked up: permission denied for table api_key_retired_secrets',
        feed: 'following',
        lookUpFailure: { message: 'permission denied for table api_key_retired_secrets' },
      })

      await owner.query(`GRANT SELECT ON api_key_retired_secrets TO ${role}`)
      await apiKeys.verify(plainTextKey)
      expect(await apiKeys.health()).toMatchObject({ ok: true, reason: null, lookUpFailure: null })
    })
  })

  it('says what to do if the tables are missing', async () => {
    const apiKeys = createTestApiKeys(database, { schema: 'not_migrated' })

    await expect(apiKeys.verify(plainTextKey)).rejects.toThrow('await apiKeys.migrate()')
    expect(await apiKeys.health()).toMatchObject({
      ok: false,
      reason:
        'The database cannot be asked for changes: relation "not_migrated.api_key_revisions" does not exist. Run migrate().',
    })
  })

  it('says that a role may only read', async () => {
    await asRole(
      async (apiKeys, role) => {
        await owner.query(`ALTER ROLE ${role} SET default_transaction_read_only = on`)

        expect(await refusalBy(apiKeys)).toMatchObject({ code: 'database_unavailable' })

        expect(await apiKeys.health()).toMatchObject({
          ok: false,
          reason: expect.stringContaining('default_transaction_read_only'),
        })
        expect(warnings()).toMatchObject([
          { message: expect.stringContaining('default_transaction_read_only') },
        ])
      },
      // No process has registered that bound yet.
      { maxStalenessMs: 599_123 },
    )
  })

  it('asks the database with probe: true, and starts no feed', async () => {
    const apiKeys = createTestApiKeys(database)

    expect(await apiKeys.health({ probe: true })).toMatchObject({ ok: true, feed: 'idle' })
    const sessions = `SELECT count(*)::int AS count FROM pg_stat_activity
      WHERE datname = current_database() AND query LIKE '%key.hash = ANY%' AND pid <> pg_backend_pid()`
    await until(async () => {
      const [[row]] = (await owner.query(sessions)) as [{ count: number }[], unknown]
      return row?.count === 0
    })

    const away = createTestApiKeys(databaseAway)
    expect(await away.health()).toMatchObject({ ok: true })
    expect(await away.health({ probe: true })).toMatchObject({
      ok: false,
      reason: expect.stringContaining('ECONNREFUSED'),
      feed: 'idle',
    })
  })
})

describe('a key of a secret that the app no longer has', () => {
  const [old, other] = [
    'the secret that the app had before, of 32 bytes',
    'another secret of the app, with 32 bytes as well',
  ]

  it.each<[string, Options, Options, string]>([
    ['another secret', { secrets: [old] }, { secrets: [other] }, '[new, old]'],
    ['no secret', {}, { secrets: [old] }, 'acceptUnkeyed'],
  ])('is reported in a warning if it was made with %s', async (_, before, after, advice) => {
    const database = await createDatabase()
    const { plainTextKey } = await createTestApiKeys(database, before).create(newKey())
    const apiKeys = createTestApiKeys(database, after)

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'malformed' })

    await until(() => warnings().length > 0)
    expect(warnings()).toEqual([
      { code: 'API_KEYS_SECRET_UNKNOWN', message: expect.stringContaining(advice) },
    ])
    await database.drop()
  })
})
