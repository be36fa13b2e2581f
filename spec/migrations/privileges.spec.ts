import { createInstance, createRole, ourTables } from '../support/tables'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach({ template: 'empty' })

let warnings: jest.SpyInstance

beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
})

afterEach(() => jest.restoreAllMocks())

function grantByDefault(role: string, privileges: string, kind = 'TABLES') {
  return world.sequelize.query(
    `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ${privileges} ON ${kind} TO ${role}`,
  )
}

async function tablesOpenTo(role: string): Promise<unknown[]> {
  const rows = await world.rows(
    `SELECT DISTINCT table_name FROM information_schema.table_privileges
      WHERE grantee = '${role}' AND table_name LIKE 'api_key%'`,
  )
  return rows
}

function warningText() {
  return warnings.mock.calls.map(([text, options]) => [String(text), options])
}

describe('rights on new tables', () => {
  it('are revoked from a role that cannot sign in and has all of them by default', async () => {
    const { role } = await createRole(world, 'NOLOGIN')
    const gateway = await createRole(world, 'LOGIN NOINHERIT')
    await world.sequelize.query(`GRANT ${role} TO ${gateway.role}`)
    await grantByDefault(role, 'ALL')
    await grantByDefault(role, 'ALL', 'FUNCTIONS')
    await grantByDefault(role, 'ALL', 'SEQUENCES')

    await createInstance(world).migrate()

    expect(await tablesOpenTo(role)).toEqual([])
    const functions = await world.rows(
      `SELECT proname FROM pg_proc
        WHERE prorettype = 'trigger'::regtype AND proname LIKE 'api_key%' AND has_function_privilege('${role}', oid, 'EXECUTE')`,
    )
    expect(functions).toEqual([])
    const sequences = await world.rows(
      `SELECT relname FROM pg_class
        WHERE CASE WHEN relkind = 'S' AND relname LIKE 'api_key%'
                   THEN has_sequence_privilege('${role}', oid, 'USAGE, UPDATE') END`,
    )
    expect(sequences).toEqual([])
    expect(warnings).not.toHaveBeenCalled()
  })

  it('stay as they are if they are granted later', async () => {
    const { role } = await createRole(world, 'NOLOGIN')
    await createInstance(world).migrate()
    await world.sequelize.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`)

    await createInstance(world).migrate()

    expect(await tablesOpenTo(role)).toHaveLength(ourTables.length)
  })

  it.each([
    ['a role that signs in', 'LOGIN', 'ALL'],
    ['a role with no more rights than the library needs', '', 'SELECT, INSERT, UPDATE, DELETE'],
  ])('stay with %s, which an app may run as', async (_, attributes, privileges) => {
    const { role, connection } = await createRole(world, attributes)
    await grantByDefault(role, privileges)
    await createInstance(world).migrate()
    const apiKeys = createInstance(world, {}, connection)

    await apiKeys.migrate()
    const { plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'A',
      permissions: ['READ_GRAPH'],
    })

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
    const { role } = await createRole(world, 'NOLOGIN')
    const member = await createRole(world, 'LOGIN INHERIT')
    await world.sequelize.query(`GRANT ${role} TO ${member.role}`)
    await grantByDefault(role, 'ALL')

    await createInstance(world).migrate()

    expect(await tablesOpenTo(role)).toHaveLength(ourTables.length)
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
    await createInstance(world).migrate()
    const { role } = await createRole(world)
    await world.sequelize.query(`${grant} ${role}`)

    await createInstance(world).migrate()
    await createInstance(world).migrate()

    expect(warningText()).toHaveLength(1)
    const [[text] = ['']] = warningText()
    expect(text).toContain(
      `may read the hashes of keys or write to the tables in the schema "public": "${role}".`,
    )
    const [, sql = ''] = /(REVOKE ALL ON .*)$/.exec(String(text)) ?? []
    await world.sequelize.query(sql)
    expect(await tablesOpenTo(role)).toEqual([])
  })

  it('called PUBLIC', async () => {
    await createInstance(world).migrate()
    await world.sequelize.query('GRANT DELETE ON api_keys TO PUBLIC')

    await createInstance(world).migrate()

    expect(warningText()).toEqual([
      [expect.stringMatching(/: PUBLIC\. .* FROM PUBLIC$/), expect.anything()],
    ])
  })

  it.each([
    ['reads what is no hash', 'GRANT SELECT (id, name, user_id) ON api_keys TO'],
    ['reads the trail', 'GRANT SELECT ON api_key_events TO'],
    ['reports that a user has changed', 'GRANT INSERT ON api_key_user_changes TO'],
  ])('but not of a role that %s', async (_, grant) => {
    await createInstance(world).migrate()
    const { role } = await createRole(world)
    await world.sequelize.query(`${grant} ${role}`)

    await createInstance(world).migrate()

    expect(warnings).not.toHaveBeenCalled()
  })
})
