import { Client } from 'pg'

import { createTestApiKeys } from './support/app'
import { createDatabase, type Database } from './support/database'
import { newKey } from './support/keys'

let database: Database

beforeEach(async () => {
  database = await createDatabase('empty')
})

afterEach(() => database.drop())

/** Makes every session of the database begin with these settings: sessions of the library and all other sessions. */
async function setForAll(settings: Record<string, string>) {
  const { pathname } = new URL(database.url)
  for (const [name, value] of Object.entries(settings)) {
    await runByHand(`ALTER DATABASE ${pathname.slice(1)} SET ${name} = '${value}'`)
  }
}

/** Like `psql`, because Sequelize sets some settings of its own sessions. */
async function runByHand(sql: string) {
  const client = new Client(database.url)
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

const settings: Record<string, string> = {
  datestyle: 'German',
  intervalstyle: 'sql_standard',
  timezone: 'Asia/Kathmandu',
  extra_float_digits: '-15',
  bytea_output: 'escape',
  standard_conforming_strings: 'off',
  escape_string_warning: 'off',
  statement_timeout: '5s',
  default_transaction_isolation: 'serializable',
}

const expiresAt = new Date('9998-12-13T05:06:07.089Z')

describe('the settings of a session', () => {
  it.each<[string, Record<string, string>]>([
    ...['German', 'SQL, DMY', 'Postgres, MDY'].map((datestyle): [string, object] => [
      `DateStyle ${datestyle}`,
      { datestyle },
    ]),
    ...Object.entries(settings).map(([name, value]): [string, object] => [
      `${name} ${value}`,
      { [name]: value },
    ]),
    ['all of these', settings],
  ] as [string, Record<string, string>][])('change nothing: %s', async (_, given) => {
    await setForAll(given)
    const startedAt = Date.now() - 1_000
    const apiKeys = createTestApiKeys(database)
    const now = (time: unknown) => {
      expect(time).toBeInstanceOf(Date)
      expect(Number(time)).toBeGreaterThan(startedAt)
      expect(Number(time)).toBeLessThan(Date.now() + 1_000)
    }
    await apiKeys.migrate()
    await apiKeys.migrate()

    const { apiKey, plainTextKey } = await apiKeys.create(
      newKey({ expiresAt, metadata: { path: 'a\\b' }, description: `it's a \\ 'key'` }),
    )
    now(apiKey.createdAt)
    expect(apiKey).toMatchObject({ expiresAt, metadata: { path: 'a\\b' } })
    expect(apiKey).toMatchObject({ description: `it's a \\ 'key'` })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { expiresAt },
    })
    await apiKeys.flush()
    now((await createTestApiKeys(database).get(apiKey.id)).lastUsedAt)
    expect((await apiKeys.usage(apiKey.id)).totals).toMatchObject({ accepted: 1 })
    const hours = [startedAt, Date.now()].map((time) => Math.floor(time / 3_600_000) * 3_600_000)
    expect(hours).toContain((await apiKeys.totalUsage()).usage[0]?.at.getTime())

    const { apiKey: rotated } = await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 60 })
    const { worksUntil } = rotated.previousSecret ?? {}
    now(new Date(Number(worksUntil) - 60_000))
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect(
      await apiKeys.update(apiKey.id, { expiresAt: '2999-01-02T03:04:05.678Z' }),
    ).toMatchObject({ expiresAt: new Date('2999-01-02T03:04:05.678Z') })
    await runByHand(
      `UPDATE api_keys SET expires_at = '9999-12-31 12:34:56.789Z'::timestamptz + interval '100 days',
              metadata = '{"e": 1e4000}'`,
    )
    await apiKeys.suspend(apiKey.id)
    await apiKeys.reactivate(apiKey.id)

    await apiKeys.create(newKey({ name: 'Second' }))
    const { nextCursor } = await apiKeys.list({ limit: 1 })
    const second = await apiKeys.list({ limit: 1, cursor: String(nextCursor) })
    expect(second.apiKeys).toMatchObject([{ id: apiKey.id }])
    expect((await apiKeys.list({ text: `it's \\` })).apiKeys).toMatchObject([{ id: apiKey.id }])

    expect(await apiKeys.revokeAll({ type: 'user', id: 'alice' })).toEqual({ keys: 2 })
    now((await apiKeys.get(apiKey.id)).revokedAt)
    expect(await apiKeys.pruneRevoked({ olderThanDays: 1 })).toEqual({ keys: 0 })
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    for (const { createdAt } of events) now(createdAt)
    expect(events.at(-1)).toMatchObject({ after: { expiresAt: '9998-12-13T05:06:07.089Z' } })
    expect(events[3]).toMatchObject({
      actorType: 'database',
      after: { expiresAt: '+010000-04-09T12:34:56.789Z' },
    })
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 0 })
    expect(await apiKeys.verifyAuditTrail({ head: await apiKeys.auditHead() })).toMatchObject({
      isIntact: true,
      faults: [],
    })
    expect(await apiKeys.health({ livingKeys: true })).toMatchObject({
      feed: 'following',
      livingKeys: [],
      clockOffsetMs: expect.any(Number),
    })
  })
})
