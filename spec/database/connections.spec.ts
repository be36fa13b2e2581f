import { randomUUID } from 'node:crypto'

import * as pg from 'pg'
import { Sequelize } from 'sequelize'

import { createTestApiKeys, type Options, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

let database: Database
let owner: Sequelize
let emitWarning: jest.SpyInstance

beforeAll(async () => {
  database = await createDatabase()
  owner = database.connect()
})

beforeEach(() => {
  emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
})

afterEach(() => {
  emitWarning.mockRestore()
})

afterAll(() => database.drop())

async function createKeys(count: number): Promise<string[]> {
  const apiKeys = createTestApiKeys(database, { sequelize: owner })
  const created = await Promise.all(Array.from({ length: count }, () => apiKeys.create(newKey())))
  return created.map(({ plainTextKey }) => plainTextKey)
}

function warningCodes(): unknown[] {
  return emitWarning.mock.calls.map(([, options]) => (options as { code: string }).code)
}

describe('with too few connections', () => {
  let role: string
  let roleUrl: string
  let sequelize: Sequelize
  let apiKeys: TestApiKeys

  /** Connects as a role that may have this number of connections. */
  async function createInstance(limit: number, options: Options = {}) {
    role = `few_${randomUUID().replaceAll('-', '')}`
    await owner.query(`CREATE ROLE ${role} LOGIN PASSWORD 'few' CONNECTION LIMIT ${limit}`)
    await owner.query(
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${role}`,
    )
    const url = new URL(database.url)
    url.username = role
    url.password = 'few'
    roleUrl = url.href
    sequelize = new Sequelize(roleUrl, { logging: false })
    apiKeys = createTestApiKeys(database, { sequelize, ...options })
  }

  afterEach(async () => {
    await apiKeys.close().catch(() => {})
    await sequelize.close()
    await owner.query(`DROP OWNED BY ${role}`)
    await until(() =>
      owner.query(`DROP ROLE ${role}`).then(
        () => true,
        () => false,
      ),
    )
  })

  it('keys are verified with two, and LISTEN gives way', async () => {
    const [first = '', ...others] = await createKeys(5)
    // A busy machine takes a while to free a place, and a request waits as long as the bound.
    await createInstance(2, { maxStalenessMs: 5_000 })

    expect(await apiKeys.verify(first)).toMatchObject({ valid: true })
    for (const key of others) expect(await apiKeys.verify(key)).toMatchObject({ valid: true })

    expect((await apiKeys.health()).listener).toBe('down')
    expect(warningCodes()).toContain('API_KEYS_TOO_FEW_CONNECTIONS')
  })

  it('usage is written with three, and LISTEN gives way', async () => {
    const [key = ''] = await createKeys(1)
    await createInstance(3)
    await apiKeys.verify(key)
    const other = createTestApiKeys(database, { sequelize })

    await apiKeys.flush()

    const { apiKeys: listed } = await createTestApiKeys(database, { sequelize: owner }).list()
    expect(listed.filter(({ lastUsedAt }) => lastUsedAt !== null)).not.toHaveLength(0)
    await other.close()
  })

  it('usage is written with three, and LISTEN gives way while its connection still opens', async () => {
    const [key = ''] = await createKeys(1)
    await createInstance(3)
    const listen = `${roleUrl}?application_name=listens`
    apiKeys = createTestApiKeys(database, { sequelize, listen })
    // The connection that listens has its place, and a hook of the app keeps it from being used.
    const hasPlace = new Promise<void>((resolve) => {
      sequelize.addHook('afterConnect', (client) => {
        const { connectionParameters } = client as { connectionParameters: object }
        if (!Object.values(connectionParameters).includes('listens')) return
        resolve()
        return new Promise(() => {})
      })
    })
    await apiKeys.verify(key)
    await hasPlace

    await apiKeys.flush()

    expect((await apiKeys.health()).usage.pending).toBe(0)
  })

  it('usage gives way to look-ups', async () => {
    const [first = '', second = ''] = await createKeys(2)
    await createInstance(3, { maxStalenessMs: 5_000 })
    await apiKeys.verify(first)
    await apiKeys.flush()

    await owner.query(`ALTER ROLE ${role} CONNECTION LIMIT 2`)
    // The connection of the look-ups is lost, and two connections of the role hold all places.
    await owner.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE usename = '${role}' AND query LIKE '%key.hash = ANY%'`,
    )

    expect(await apiKeys.verify(second)).toMatchObject({ valid: true })
  })
})

describe('LISTEN without notifications', () => {
  /** A client behind a pooler in transaction mode: LISTEN succeeds, on a connection that then serves another client. */
  class ClientWithoutListen extends pg.Client {
    constructor(...options: ConstructorParameters<typeof pg.Client>) {
      super(...options)
      const query = this.query.bind(this) as (statement: unknown, ...rest: unknown[]) => unknown
      Object.assign(this, {
        query: (statement: unknown, ...rest: unknown[]) =>
          query(
            typeof statement === 'string' && statement.includes('LISTEN ') ? 'SELECT 1' : statement,
            ...rest,
          ),
      })
    }
  }

  it('is not up, and a warning says why', async () => {
    const [key = ''] = await createKeys(1)
    const sequelize = database.connect({ dialectModule: { ...pg, Client: ClientWithoutListen } })
    const apiKeys = createTestApiKeys(database, { sequelize })

    await apiKeys.verify(key)
    await until(() => warningCodes().includes('API_KEYS_LISTEN_UNHEARD'))

    expect((await apiKeys.health()).listener).toBe('down')
  })
})

describe('a statement_timeout of the app', () => {
  it('does not keep usage from being written', async () => {
    const [key = ''] = await createKeys(1)
    await owner.query(
      `CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
       CREATE TRIGGER take_long BEFORE INSERT ON api_key_usage
         FOR EACH ROW EXECUTE FUNCTION take_long()`,
    )
    const sequelize = database.connect({ dialectOptions: { statement_timeout: 800 } })
    const apiKeys = createTestApiKeys(database, { sequelize })
    await apiKeys.verify(key)

    await apiKeys.flush()

    expect((await apiKeys.health()).usage.pending).toBe(0)
    await owner.query('DROP FUNCTION take_long CASCADE')
  })
})
