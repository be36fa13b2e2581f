import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { readOne, startServer, type Server } from './server'
import { createKeys, type IssuedKey } from './trial'
import { createCleanup, within } from './waiting'

const cleanup = createCleanup()
/** A statement that waited for the standby would wait until the end of the spec. */
const limitMs = 20_000

let server: Server
let apiKeys: TestApiKeys
let keys: IssuedKey[]

/** A server whose commits wait for a standby that is away, and a process that starts beside it. */
beforeAll(async () => {
  server = await startServer()
  cleanup.defer(() => server.remove())
  const before = createTestApiKeys(server)
  await before.migrate()
  keys = await createKeys(before, 3)
  for (const { plainTextKey } of keys) await before.verify(plainTextKey)
  await before.close()
  // So long ago that a process confirms it before it relies on the log.
  await server
    .connect()
    .query(`UPDATE api_key_bounds SET registered_at = now() - interval '2 hours'`)
  await server.stop()

  await server.start({ synchronous_standby_names: 'standby' })
  apiKeys = createTestApiKeys(server, { lastUsedResolutionMs: 1 })
  cleanup.defer(() => apiKeys.close())
})

afterAll(() => cleanup.run())

describe('while a synchronous standby is away,', () => {
  it('a process that starts confirms its bound and verifies keys', async () => {
    for (const { plainTextKey } of keys) {
      const verdict = await within(limitMs, 'verified', apiKeys.verify(plainTextKey))
      expect(verdict.valid).toBe(true)
    }

    expect(await apiKeys.health()).toMatchObject({ ok: true, feed: 'following' })
  })

  it('uses are written, and no connection of the server waits for the standby', async () => {
    await within(limitMs, 'written', apiKeys.flush())

    const database = server.connect()
    const { used } = await readOne<{ used: number }>(
      database,
      `SELECT count(*)::int AS used FROM api_keys WHERE last_used_at > pg_postmaster_start_time()`,
    )
    expect(used).toBe(keys.length)
    const { waiting } = await readOne<{ waiting: number }>(
      database,
      `SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE wait_event = 'SyncRep'`,
    )
    expect(waiting).toBe(0)
  })
})
