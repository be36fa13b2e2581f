/** @jest-environment node */
import { runInThisContext } from 'node:vm'

import type { Sequelize } from 'sequelize'

import { createApiKeys, type ApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'
import { blocksOf, readmeSection } from '../support/readme'
import { until } from '../support/until'

const permissions = ['READ_GRAPH'] as const

let database: Database
let sequelize: Sequelize

beforeAll(async () => {
  database = await createDatabase('empty')
  sequelize = database.connect()
  await sequelize.query('CREATE TABLE users (id text PRIMARY KEY); CREATE TABLE graphs (id int)')
})

afterAll(() => database.drop())

async function tablesOfTheApp() {
  const [rows] = (await sequelize.query(
    `SELECT format('%I', tablename) AS name FROM pg_tables WHERE schemaname = 'public'`,
  )) as unknown as [{ name: string }[]]
  return rows.map(({ name }) => name)
}

async function each(run: (table: string) => Promise<unknown>) {
  for (const table of await tablesOfTheApp()) await run(table)
}

describe('the section "In tests" of the README', () => {
  const [setUp = '', reset = ''] = blocksOf(readmeSection('In tests'), 'ts')

  it.each<[string, () => Promise<unknown>]>([
    ['TRUNCATE users CASCADE', () => sequelize.query('TRUNCATE users CASCADE')],
    [
      'TRUNCATE of all tables',
      async () =>
        sequelize.query(`TRUNCATE ${(await tablesOfTheApp()).join(', ')} RESTART IDENTITY CASCADE`),
    ],
    ['DELETE FROM each table', () => each((table) => sequelize.query(`DELETE FROM ${table}`))],
    ['its own way to start over', startOver],
  ])('has tables that %s leaves in order', async (_, empty) => {
    const apiKeys = createInstance()
    await apiKeys.migrate()
    await sequelize.query(`INSERT INTO users VALUES ('alice') ON CONFLICT DO NOTHING`)
    const key = { userId: 'alice', name: 'A', permissions }
    const before = await apiKeys.create(key)
    expect(await apiKeys.verify(before.plainTextKey)).toMatchObject({ valid: true })

    await empty()
    await sequelize.query(`INSERT INTO users VALUES ('alice') ON CONFLICT DO NOTHING`)
    const after = await apiKeys.create(key)

    expect(await apiKeys.verify(after.plainTextKey)).toMatchObject({ valid: true })
    await until(async () => !(await apiKeys.verify(before.plainTextKey)).valid)
    expect((await apiKeys.list()).apiKeys).toHaveLength(1)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  function createInstance() {
    const create = runInThisContext(
      `(createApiKeys, sequelize) => { ${setUp}; return apiKeys }`,
    ) as (...args: unknown[]) => ApiKeys
    const apiKeys = create(createApiKeys, sequelize)
    database.closeFirst(apiKeys)
    return apiKeys
  }

  async function startOver() {
    const run = runInThisContext(`async (apiKeys, sequelize) => { ${reset} }`) as (
      ...args: unknown[]
    ) => Promise<void>
    await run(createInstance(), sequelize)
  }
})
