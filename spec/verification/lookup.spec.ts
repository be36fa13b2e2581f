import { types } from 'pg'
import type { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let sequelize: Sequelize

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterEach(() => {
  jest.useRealTimers()
})

afterAll(() => database.drop())

/** Makes a key whose expiry in the database is `expiresAt`, a value of SQL. */
async function createKeyExpiring(expiresAt: string): Promise<string> {
  const { plainTextKey } = await createTestApiKeys(database).create(newKey())
  await sequelize.query(`UPDATE api_keys SET expires_at = ${expiresAt}`)
  return plainTextKey
}

/** The day is no month in any style. */
const someday = '2035-02-25T12:34:56.789Z'
const goodUntilSomeday = { valid: true, apiKey: { expiresAt: new Date(someday) } }

describe('the look-up of a key', () => {
  it.each(['German', 'SQL, DMY', 'Postgres, MDY', 'ISO, YMD'])(
    'reads an expiry whatever the style of dates: %s',
    async (style) => {
      const key = await createKeyExpiring(`'${someday}'`)
      const name = new URL(database.url).pathname.slice(1)
      await sequelize.query(`ALTER DATABASE ${name} SET datestyle = '${style}'`)
      const apiKeys = createTestApiKeys(database)

      expect(await apiKeys.verify(key)).toMatchObject(goodUntilSomeday)
    },
  )

  it.each<[string, (text: string) => unknown]>([
    ['an object', (text) => ({ text })],
    ['seconds as text', (text) => String(Date.parse(text) / 1000)],
    ['nothing', () => null],
  ])('reads an expiry whatever the driver makes of times: %s', async (_, parse) => {
    const key = await createKeyExpiring(`'${someday}'`)
    const apiKeys = createTestApiKeys(database)
    const before = types.getTypeParser(1184)
    types.setTypeParser(1184, parse)
    try {
      expect(await apiKeys.verify(key)).toMatchObject(goodUntilSomeday)
    } finally {
      types.setTypeParser(1184, before)
    }
  })

  it.each(["'-infinity'", "'infinity'"])('refuses a value that is not a time: %s', async (time) => {
    const key = await createKeyExpiring(time)

    expect(await createTestApiKeys(database).verify(key)).toEqual({ valid: false, code: 'expired' })
  })

  it.each([
    '2030-06-15T12:34:56.510Z',
    '2030-06-15T12:34:56.511Z',
    '2099-12-31T23:59:59.999Z',
    '9999-12-31T23:59:59.999Z',
  ])('reads the millisecond: %s', async (time) => {
    const key = await createKeyExpiring(`'${time}'`)
    const apiKeys = createTestApiKeys(database)

    setClock(new Date(Date.parse(time) - 1))
    const before = await apiKeys.verify(key)
    setClock(new Date(time))
    const after = await apiKeys.verify(key)

    expect(before).toMatchObject({ valid: true, apiKey: { expiresAt: new Date(time) } })
    expect(after).toEqual({ valid: false, code: 'expired' })
  })
})
