import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, type Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase } from '../support/database'
import { newKey } from '../support/keys'
import { startFleet, type Fleet } from './fleet'
import { rounds } from './rounds'
import { createKeys, expectHeld, watchTrial } from './trial'
import { createCleanup, monotonicMs, waitUntil, within } from './waiting'

const cleanup = createCleanup()
const users = { table: 'users', column: 'id', type: 'text' } as const
/** Far more time than a call takes if it does not wait, beside what the same calls take on this machine. */
const generousMs = 2000

let sequelize: Sequelize
let apiKeys: TestApiKeys
let fleet: Fleet

beforeAll(async () => {
  const database = await createDatabase('empty')
  cleanup.defer(() => database.drop())
  sequelize = database.connect()
  await sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
  await sequelize.query(`INSERT INTO users VALUES ('alice'), ('bob'), ('leaver')`)
  apiKeys = createTestApiKeys(database, { users, maxKeysPerOwner: Infinity })
  cleanup.defer(() => apiKeys.close())
  await apiKeys.migrate()
  fleet = await startFleet({ url: database.url, options: { users, lastUsedResolutionMs: 1 } })
  cleanup.defer(() => fleet.stop())
})

afterAll(() => cleanup.run())

describe.each(rounds)(`an app's transaction that deletes a user and stays open, round %i`, () => {
  it('delays no flush, no revocation and no creation for other users', async () => {
    await sequelize.query(`INSERT INTO users VALUES ('leaver') ON CONFLICT DO NOTHING`)
    const leaving = await createKeys(apiKeys, 20, 'leaver')
    const [good, doomed] = [await createKeys(apiKeys, 4), await createKeys(apiKeys, 4)]
    const trial = await watchTrial({ fleet, good: [...good, ...leaving], doomed })
    const { ms: controlMs } = await isQuick(
      'calls without the transaction',
      async () => {
        await Promise.all(fleet.workers.map((worker) => worker.call('flush', 1)))
        await apiKeys.create(newKey({ userId: 'bob' }))
      },
      120_000,
    )
    const limitMs = generousMs + 3 * controlMs
    const transaction = await sequelize.transaction()

    try {
      await sequelize.query(`DELETE FROM users WHERE id = 'leaver'`, { transaction })

      const all = []
      for (let time = 0; time < 4; time++) {
        // Every process has uses of the locked keys to write, and gets more of them.
        const usedAt = await lastUse(good)
        all.push(
          await isQuick(
            'a flush',
            () => Promise.all(fleet.workers.map((worker) => worker.call('flush', 1))),
            limitMs,
          ),
          await isQuick('a flush here', () => apiKeys.flush(), limitMs),
          await isQuick('a creation', () => apiKeys.create(newKey({ userId: 'bob' })), limitMs),
        )
        const key = doomed[time]
        if (key) {
          await trial.end(async () => {
            all.push(await isQuick('a revocation', () => apiKeys.revoke(key.id), limitMs))
          }, [key])
        }
        await waitUntil(
          'uses of keys that are free are written',
          async () => (await lastUse(good)) > usedAt,
          limitMs,
        )
      }
      console.log(all.map(({ what, ms }) => `${what} ${ms.toFixed(1)} ms`).join(', '))

      await expectHeld(trial)
    } finally {
      await transaction.rollback()
    }
  })

  it('loses no use of the keys that it kept locked', async () => {
    await sequelize.query(`INSERT INTO users VALUES ('leaver') ON CONFLICT DO NOTHING`)
    const keys = await createKeys(apiKeys, 10, 'leaver')
    const [worker] = fleet.workers
    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM users WHERE id = 'leaver'`, { transaction })

    await fleet.watch([])
    await worker?.call(
      'verifyAll',
      keys.map(({ plainTextKey }) => plainTextKey),
    )
    await worker?.call('flush', 1)
    await sleep(100)
    await transaction.rollback()
    await worker?.call('flush', 1)

    expect(await lastUse(keys)).toBeGreaterThan(0)
  })
})

/** Measures calls that must end while the transaction is open. */
async function isQuick<Result>(what: string, work: () => Promise<Result>, limitMs: number) {
  const begunAt = monotonicMs()
  const result = await within(limitMs, `${what}, while the transaction is open`, work())
  return { what, ms: monotonicMs() - begunAt, result }
}

/** The oldest last use of the keys, in milliseconds since 1970; 0 if a key was never used. */
async function lastUse(keys: readonly { id: string }[]): Promise<number> {
  const [row] = await sequelize.query<{ oldest: number }>(
    `SELECT min(coalesce(extract(epoch FROM last_used_at), 0) * 1000)::float8 AS oldest
       FROM api_keys WHERE id IN (:ids)`,
    { replacements: { ids: keys.map(({ id }) => id) }, type: QueryTypes.SELECT },
  )
  return row?.oldest ?? 0
}
