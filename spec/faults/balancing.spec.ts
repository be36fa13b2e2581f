import { Sequelize } from 'sequelize'

import { systemClock } from '../../lib/database/clock'
import { createWaitForEveryone } from '../../lib/freshness/wait-for-everyone'
import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { hasPgpool, startPgpool } from './pgpool'
import { startServer, waitForReplay, type Server } from './server'
import { createCleanup, monotonicMs, waitUntil } from './waiting'

const cleanup = createCleanup()
let primary: Server
let standby: Server
let apiKeys: TestApiKeys

beforeAll(async () => {
  primary = await startServer()
  cleanup.defer(() => primary.remove())
  standby = await primary.copyAsStandby((port) => port)
  cleanup.defer(() => standby.remove())
  apiKeys = createTestApiKeys({ connect: () => primary.connect() })
  cleanup.defer(() => apiKeys.close())
  await apiKeys.migrate()
  await waitForReplay(primary.connect(), standby.connect())
})

afterAll(() => cleanup.run())

it('a standby is not asked for the bounds of other processes', async () => {
  const waitForEveryone = createWaitForEveryone({
    sequelize: standby.connect(),
    tables: tablesOf('public'),
    boundMs: 100,
    clock: systemClock,
  })

  await expect(waitForEveryone()).rejects.toMatchObject({ code: 'database_unavailable' })
})

const behindPgpool = hasPgpool ? describe : describe.skip
if (!hasPgpool) console.log('Left out, for want of the program pgpool: what holds behind pgpool-II')

behindPgpool('behind pgpool-II, which balances loads, and with a standby that lags', () => {
  let pool: Awaited<ReturnType<typeof startPgpool>>
  let sequelize: Sequelize

  beforeAll(async () => {
    pool = await startPgpool(primary, standby)
    cleanup.defer(() => pool.stop())
    sequelize = new Sequelize(pool.url, { logging: false })
    cleanup.defer(() => sequelize.close())
    await waitUntil(
      'reads go to the standby',
      async () => {
        const [rows] = await sequelize
          .query('SELECT pg_is_in_recovery() AS "isStandby"')
          .catch(() => [[]])
        return (rows[0] as { isStandby: boolean } | undefined)?.isStandby === true
      },
      20_000,
    )
    await standby.connect().query('SELECT pg_wal_replay_pause()')
  })

  it('keys are read and verified at the primary', async () => {
    const pooled = createTestApiKeys({ connect: () => sequelize })
    cleanup.defer(() => pooled.close())

    const { apiKey, plainTextKey } = await pooled.create(newKey())

    expect(await pooled.get(apiKey.id)).toMatchObject({ id: apiKey.id })
    expect(await pooled.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('a change is waited for by the longest bound that is registered at the primary', async () => {
    const other = createTestApiKeys({ connect: () => primary.connect() }, { maxStalenessMs: 2_500 })
    cleanup.defer(() => other.close())
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await other.verify(plainTextKey)
    const pooled = createTestApiKeys({ connect: () => sequelize })
    cleanup.defer(() => pooled.close())

    const startedAt = monotonicMs()
    await pooled.revoke(apiKey.id, { everywhere: true })

    expect(monotonicMs() - startedAt).toBeGreaterThanOrEqual(2_500)
  })
})
