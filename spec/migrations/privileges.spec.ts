import { randomUUID } from 'node:crypto'

import type { Sequelize } from 'sequelize'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'

const permissions = ['READ_GRAPH'] as const

let database: Database
let sequelize: Sequelize
let warnings: jest.SpyInstance

beforeEach(async () => {
  database = await createDatabase('empty')
  sequelize = database.connect()
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
})

afterEach(async () => {
  jest.restoreAllMocks()
  await database.drop()
})

function createInstance(connection = database.connect()) {
  const apiKeys = createApiKeys({ sequelize: connection, keyPrefix: 'agpt', permissions })
  database.closeFirst(apiKeys)
  return apiKeys
}

/** Creates a role, and connects as it. */
async function createRole(attributes = '') {
  const role = `spec_${randomUUID().replaceAll('-', '')}`
  await sequelize.query(
    `CREATE ROLE ${role} ${attributes}; GRANT USAGE ON SCHEMA public TO ${role}`,
  )
  return { role, connection: database.connect({ dialectOptions: { options: `-c role=${role}` } }) }
}

function grantByDefault(role: string, privileges: string, kind = 'TABLES') {
  return sequelize.query(
    `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ${privileges} ON ${kind} TO ${role}`,
  )
}

async function tablesOpenTo(role: string): Promise<unknown[]> {
  const [rows] = await sequelize.query(
    `SELECT DISTINCT table_name FROM information_schema.table_privileges
      WHERE grantee = '${role}' AND table_name LIKE 'api_key%'`,
  )
  return rows
}

function warningText() {
  return warnings.mock.calls.map(([text, options]) => [String(text), options])
}

describe('rights on new tables', () => {
  it('are taken from a role that cannot sign in and that has all of them by default', async () => {
    const { role } = await createRole('NOLOGIN')
    const gateway = await createRole('LOGIN NOINHERIT')
    await sequelize.query(`GRANT ${role} TO ${gateway.role}`)
    await grantByDefault(role, 'ALL')
    await grantByDefault(role, 'ALL', 'FUNCTIONS')
    await grantByDefault(role, 'ALL', 'SEQUENCES')

    await createInstance().migrate()

    expect(await tablesOpenTo(role)).toEqual([])
    const [functions] = await sequelize.query(
      `SELECT proname FROM pg_proc
        WHERE proname LIKE 'api_key%' AND has_function_privilege('${role}', oid, 'EXECUTE')`,
    )
    expect(functions).toEqual([])
    const [sequences] = await sequelize.query(
      `SELECT relname FROM pg_class
        WHERE CASE WHEN relkind = 'S' AND relname LIKE 'api_key%'
                   THEN has_sequence_privilege('${role}', oid, 'USAGE, UPDATE') END`,
    )
    expect(sequences).toEqual([])
    expect(warnings).not.toHaveBeenCalled()
  })

  it('stay as they are if they are granted later', async () => {
    const { role } = await createRole('NOLOGIN')
    await createInstance().migrate()
    await sequelize.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`)

    await createInstance().migrate()

    expect(await tablesOpenTo(role)).toHaveLength(16)
  })

  it.each([
    ['a role that signs in', 'LOGIN', 'ALL'],
    ['a role with no more rights than the library needs', '', 'SELECT, INSERT, UPDATE, DELETE'],
  ])('stay with %s, which an app may run as', async (_, attributes, privileges) => {
    const { role, connection } = await createRole(attributes)
    await grantByDefault(role, privileges)
    await createInstance().migrate()
    const apiKeys = createInstance(connection)

    await apiKeys.migrate()
    const { plainTextKey } = await apiKeys.create({ userId: 'alice', name: 'A', permissions })

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    // The owner is warned. The role itself is not.
    expect(warningText()).toEqual([
      [
        expect.stringContaining(`"public": "${role}".`),
        expect.objectContaining({ code: 'API_KEYS_OPEN_TABLES' }),
      ],
    ])
  })

  it('stay with a group that a role that signs in inherits from', async () => {
    const { role } = await createRole('NOLOGIN')
    const member = await createRole('LOGIN INHERIT')
    await sequelize.query(`GRANT ${role} TO ${member.role}`)
    await grantByDefault(role, 'ALL')

    await createInstance().migrate()

    expect(await tablesOpenTo(role)).toHaveLength(16)
  })
})

describe('migrate warns of a role', () => {
  it.each([
    ['reads hashes', 'GRANT SELECT ON api_keys TO'],
    ['reads the column of hashes', 'GRANT SELECT (hash) ON api_keys TO'],
    ['writes keys', 'GRANT UPDATE ON api_keys TO'],
    ['writes a column', 'GRANT UPDATE (status) ON api_keys TO'],
    ['writes the trail', 'GRANT INSERT ON api_key_events TO'],
  ])('that %s', async (_, grant) => {
    await createInstance().migrate()
    const { role } = await createRole()
    await sequelize.query(`${grant} ${role}`)

    await createInstance().migrate()
    await createInstance().migrate()

    expect(warningText()).toHaveLength(1)
    const [[text] = ['']] = warningText()
    expect(text).toContain(
      `may read the hashes of keys or write to the tables in the schema "public": "${role}".`,
    )
    const [, sql = ''] = /(REVOKE ALL ON .*)$/.exec(String(text)) ?? []
    await sequelize.query(sql)
    expect(await tablesOpenTo(role)).toEqual([])
  })

  it('called PUBLIC', async () => {
    await createInstance().migrate()
    await sequelize.query('GRANT DELETE ON api_keys TO PUBLIC')

    await createInstance().migrate()

    expect(warningText()).toEqual([
      [expect.stringMatching(/: PUBLIC\. .* FROM PUBLIC$/), expect.anything()],
    ])
  })

  it.each([
    ['reads what is no hash', 'GRANT SELECT (id, name, user_id) ON api_keys TO'],
    ['reads the trail', 'GRANT SELECT ON api_key_events TO'],
    ['reports that a user has changed', 'GRANT INSERT ON api_key_user_changes TO'],
  ])('but not of one that %s', async (_, grant) => {
    await createInstance().migrate()
    const { role } = await createRole()
    await sequelize.query(`${grant} ${role}`)

    await createInstance().migrate()

    expect(warnings).not.toHaveBeenCalled()
  })
})
