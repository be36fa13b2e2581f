import { setTimeout as sleep } from 'node:timers/promises'

import type { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { enableTriggers, withoutTriggers } from '../support/fill'
import { startFleet, type Fleet } from './fleet'
import { rounds } from './rounds'
import { createKeys, expectHeld, type IssuedKey, startTrial, watchTrial } from './trial'
import { createCleanup, monotonicMs } from './waiting'

const cleanup = createCleanup()
const users = { table: 'users', column: 'id', type: 'text' } as const

let sequelize: Sequelize
let apiKeys: TestApiKeys
let fleet: Fleet

beforeAll(async () => {
  const database: Database = await createDatabase('empty')
  cleanup.defer(() => database.drop())
  sequelize = database.connect()
  await sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
  await sequelize.query(`INSERT INTO users VALUES ('alice'), ('bob')`)
  apiKeys = createTestApiKeys(database, { users, maxKeysPerOwner: Infinity })
  cleanup.defer(() => apiKeys.close())
  await apiKeys.migrate()
  fleet = await startFleet({ url: database.url, options: { users } })
  cleanup.defer(() => fleet.stop())
})

afterAll(() => cleanup.run())

const idsOf = (keys: readonly IssuedKey[]) => keys.map(({ id }) => `'${id}'`).join(', ')

const revokeBySql = (keys: readonly IssuedKey[]) =>
  `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE id IN (${idsOf(keys)})`

describe.each(rounds)('the bound, round %i, holds for', () => {
  it('a suspension, a loss of time and a revocation of all keys of a user', async () => {
    await sequelize.query(`INSERT INTO users VALUES ('carol') ON CONFLICT DO NOTHING`)
    const trial = await startTrial({ fleet, apiKeys, doomed: 3, userId: 'carol' })
    const [suspended, expiring] = trial.doomed
    if (!suspended || !expiring) throw new Error('there are three')

    await trial.end(() => apiKeys.suspend(suspended.id), [suspended])
    await trial.end(
      () => sequelize.query(`UPDATE api_keys SET expires_at = now() WHERE id = '${expiring.id}'`),
      [expiring],
    )
    await trial.end(() => apiKeys.revokeAll({ type: 'user', id: 'carol' }), trial.doomed.slice(2))

    await expectHeld(trial)
  })

  it('a revocation by plain SQL', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    await trial.end(() => sequelize.query(revokeBySql(trial.doomed)))

    await expectHeld(trial)
  })

  it('a revocation by a session that plays a replica', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    await trial.end(() =>
      sequelize.query(
        `BEGIN; SET LOCAL session_replication_role = replica; ${revokeBySql(trial.doomed)}; COMMIT`,
      ),
    )

    await expectHeld(trial)
  })

  it('a user who is deleted', async () => {
    const userId = `leaver-${crypto.randomUUID()}`
    await sequelize.query(`INSERT INTO users VALUES ('${userId}')`)
    const trial = await startTrial({ fleet, apiKeys, userId })

    await trial.end(() => sequelize.query(`DELETE FROM users WHERE id = '${userId}'`))

    await expectHeld(trial)
  })

  it('a revocation in a long transaction, counted from its commit', async () => {
    const trial = await startTrial({ fleet, apiKeys })
    let committingAt = 0

    const { begunAt } = await trial.end(async () => {
      const transaction = await sequelize.transaction()
      for (const { id } of trial.doomed) await apiKeys.revoke(id, { transaction })
      await sleep(2000)
      committingAt = monotonicMs()
      await transaction.commit()
    })

    // No transaction saw the change before.
    const reports = await expectHeld(trial)
    const refusals = reports.flatMap(({ sightings }) =>
      sightings.slice(trial.good.length).map(({ firstRefusedAt }) => firstRefusedAt),
    )
    expect(committingAt - begunAt).toBeGreaterThan(1900)
    expect(Math.min(...refusals)).toBeGreaterThan(committingAt)
  })

  it('50,000 keys at once', async () => {
    await sequelize.query(`INSERT INTO users VALUES ('crowd') ON CONFLICT DO NOTHING`)
    await withoutTriggers(
      sequelize,
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'crowd', 'one of many', 'agpt_000000', '00000000',
              encode(sha256((random()::text || n)::bytea), 'hex'), '{READ_GRAPH}'
         FROM generate_series(1, 49900) AS n`,
    )
    // The last of them, in case a process reads only the first.
    const watched = await createKeys(apiKeys, 100, 'crowd')
    const good = await createKeys(apiKeys, 8)
    const trial = await watchTrial({ fleet, good, doomed: watched })

    await trial.end(() =>
      sequelize.query(
        `UPDATE api_keys SET status = 'REVOKED', revoked_at = now()
          WHERE user_id = 'crowd' AND status = 'ACTIVE'`,
      ),
    )

    await expectHeld(trial)
  })

  it('a trigger that is disabled', async () => {
    const trial = await startTrial({ fleet, apiKeys })
    try {
      await sequelize.query('ALTER TABLE api_keys DISABLE TRIGGER USER')
      await trial.end(() => sequelize.query(revokeBySql(trial.doomed)))

      await expectHeld(trial)
    } finally {
      await sequelize.query(enableTriggers)
    }

    const after = await startTrial({ fleet, apiKeys })
    await after.end(() => sequelize.query(revokeBySql(after.doomed)))
    await expectHeld(after)
  })

  it('triggers that are disabled for one transaction only', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    await trial.end(() =>
      sequelize.query(
        `BEGIN;
         ALTER TABLE api_keys DISABLE TRIGGER USER;
         ${revokeBySql(trial.doomed)};
         ${enableTriggers};
         COMMIT`,
      ),
    )

    await expectHeld(trial)
  })

  it('TRUNCATE', async () => {
    const trial = await startTrial({ fleet, apiKeys, good: 0, doomed: 4 })

    await trial.end(() => sequelize.query('TRUNCATE api_keys'))

    await expectHeld(trial)
    const after = await startTrial({ fleet, apiKeys })
    await after.end(
      () => apiKeys.revokeAll({ type: 'user', id: 'alice' }),
      [...after.doomed, ...after.good],
    )
    await expectHeld(after)
  })

  it('a log that is emptied', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    await trial.end(() =>
      sequelize.query(
        `BEGIN; ${revokeBySql(trial.doomed)}; SET CONSTRAINTS ALL IMMEDIATE;
         DELETE FROM api_key_revisions; DELETE FROM api_key_changes; COMMIT`,
      ),
    )

    await expectHeld(trial)
  })
})
