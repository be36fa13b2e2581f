import { setTimeout as sleep } from 'node:timers/promises'

import { Transaction } from 'sequelize'

import type { TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { expectSoon, revokeSql, useLog } from '../support/log'
import { until } from '../support/until'

const { READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE } = Transaction.ISOLATION_LEVELS

const { world, createInstance, createKnownKey, readNumbers, run } = useLog()

/** Creates a key whose use is written. Its row no longer changes, so it fails no transaction with an older snapshot. */
async function createUsedKey(apiKeys: TestApiKeys) {
  const key = await createKnownKey(apiKeys)
  await apiKeys.flush()
  return key
}

/** Ways in which numbers begin again, for example by a move to another server. */
const restarts = [
  [
    'RESTART WITH 1',
    `ALTER TABLE api_key_revisions ALTER COLUMN revision RESTART WITH 1;
     ALTER TABLE api_key_events ALTER COLUMN id RESTART WITH 1`,
  ],
  ['setval', `SELECT setval(seqrelid::regclass, 1) FROM pg_sequence`],
  [
    'sequences made anew',
    `ALTER SEQUENCE api_key_revision_register RESTART; ALTER SEQUENCE api_key_event_register RESTART`,
  ],
] as const

describe.each(restarts)('numbers that begin again by %s', (_, restart) => {
  it.each([READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE])(
    'stay above all earlier numbers, in an app at %s whose snapshot is older',
    async (isolationLevel) => {
      const apiKeys = createInstance({ maxStalenessMs: 300 })
      const { id, plainTextKey } = await createUsedKey(apiKeys)
      const transaction = await world.sequelize.transaction({ isolationLevel })
      await run('SELECT count(*) FROM api_key_migrations', transaction)
      await createInstance().create(newKey())
      for (const name of ['First', 'Second']) {
        await run(`UPDATE api_keys SET name = '${name}' WHERE id <> '${id}'`)
      }
      await run(restart)

      await run(revokeSql(id), transaction)
      await transaction.commit()

      const numbers = await readNumbers()
      expect(numbers.toSorted((a, b) => (a < b ? -1 : 1)).at(-1)).toBe(numbers.at(-1))
      await expectSoon(apiKeys, plainTextKey, 'revoked')
    },
  )

  it('refuse no change for a number that is taken', async () => {
    const apiKeys = createInstance()
    const { id } = await createKnownKey(apiKeys)
    const { apiKey: other } = await apiKeys.create(newKey({ userId: 'bob' }))

    for (let round = 0; round < 3; round++) {
      await run(restart)
      await apiKeys.update(id, { name: `round ${round}` })
      await run(`UPDATE api_keys SET name = 'round ${round}' WHERE id = '${other.id}'`)
    }
    await run(restart)
    await apiKeys.revoke(id)

    const events = await world.rows<{ action: string }>(
      `SELECT action FROM api_key_events WHERE api_key_id = '${id}' ORDER BY id`,
    )
    expect(events.map(({ action }) => action)).toEqual([
      'created',
      'updated',
      'updated',
      'updated',
      'revoked',
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})

describe('numbers', () => {
  it('are above the numbers that a restore or a replication has brought', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createUsedKey(apiKeys)
    const transaction = await world.sequelize.transaction({ isolationLevel: REPEATABLE_READ })
    await run('SELECT count(*) FROM api_key_migrations', transaction)
    await run(
      `INSERT INTO api_key_revisions (revision) OVERRIDING SYSTEM VALUE
         SELECT max(revision) + 3600000000 FROM api_key_revisions`,
    )
    await until(
      async () => (await apiKeys.health()).revision === Number((await readNumbers()).at(-1)),
    )

    await run(revokeSql(id), transaction)
    await transaction.commit()

    const numbers = await readNumbers()
    expect(numbers.at(-1)).toBe(numbers.reduce((a, b) => (a > b ? a : b)))
    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })

  it('keep no audit entry waiting for an open transaction that has raised them', async () => {
    const apiKeys = createInstance()
    const { id } = await createKnownKey(apiKeys)
    const { apiKey: other } = await apiKeys.create(newKey())
    const open = await world.sequelize.transaction()
    try {
      await run(`UPDATE api_keys SET name = 'open' WHERE id = '${other.id}'`, open)

      await run(`SELECT setval('api_key_event_register', 1)`)
      await apiKeys.update(id, { name: 'first' })
      await run(`SELECT setval('api_key_event_register', 1)`)
      await apiKeys.update(id, { name: 'second' })
    } finally {
      await open.rollback()
    }

    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('fail no SERIALIZABLE transaction of the app that changes keys', async () => {
    // So many keys that reads of different keys by the app do not overlap.
    await run(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'many', 'Bulk', 'agpt_000000', '00000000', md5(n::text) || md5(n::text), '{READ_GRAPH}'
         FROM generate_series(1, 5000) AS n`,
    )
    await run('ANALYZE api_keys')
    const keys = await world.rows<{ id: string }>(
      `SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM api_keys) AS key
        WHERE place % 1000 = 500 LIMIT 4`,
    )
    const writers = keys.map(({ id }) => ({
      id,
      connection: world.database.connect({ pool: { max: 1 } }),
    }))
    const over = AbortSignal.timeout(1_000)
    const failures: unknown[] = []
    let committed = 0

    await Promise.all(
      writers.map(async ({ id, connection }) => {
        while (!over.aborted) {
          const transaction = await connection.transaction({ isolationLevel: SERIALIZABLE })
          await sleep(Math.random() * 2)
          try {
            const name = `name ${committed}`
            await connection.query(`UPDATE api_keys SET name = $1 WHERE id = $2`, {
              bind: [name, id],
              transaction,
            })
            await transaction.commit()
            committed++
          } catch (error) {
            failures.push(error)
            await transaction.rollback().catch(() => {})
          }
        }
      }),
    )

    expect(failures).toEqual([])
    expect(committed).toBeGreaterThan(writers.length)
  })

  it('are given to no transaction that is prepared: it would keep the lock', async () => {
    const { id } = await createKnownKey()
    const transaction = await world.sequelize.transaction()
    await run(revokeSql(id), transaction)

    const prepared = run(`PREPARE TRANSACTION 'revocation'`, transaction)

    await expect(prepared).rejects.toThrow(/PREPARE/)
    await transaction.rollback().catch(() => {})
  })
})

describe('the log', () => {
  it('reports everything as changed when an entry in its middle is deleted', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { plainTextKey } = await createKnownKey(apiKeys)
    const { apiKey } = await createInstance().create(newKey({ userId: 'bob' }))
    for (const name of ['First', 'Second']) await createInstance().update(apiKey.id, { name })
    const [, middle] = await readNumbers()
    await until(async () => (await apiKeys.health()).listener === 'up')
    expect((await apiKeys.health()).cache.keys).toBe(1)

    await run(`DELETE FROM api_key_revisions WHERE revision = ${middle}`)

    await until(async () => (await apiKeys.health()).cache.keys === 0)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('reports a change by a session that sets session_replication_role', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await world.sequelize.transaction(async (transaction) => {
      await run(`SET LOCAL session_replication_role = 'replica'; ${revokeSql(id)}`, transaction)
    })

    await expectSoon(apiKeys, plainTextKey, 'revoked')
    const [entry] = await world.rows<object>(
      `SELECT action, actor_type FROM api_key_events WHERE api_key_id = '${id}' ORDER BY id DESC LIMIT 1`,
    )
    expect(entry).toEqual({ action: 'revoked', actor_type: 'database' })
  })
})
