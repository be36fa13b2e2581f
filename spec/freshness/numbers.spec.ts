import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, Transaction, type Sequelize } from 'sequelize'

import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type Permission, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

const { READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE } = Transaction.ISOLATION_LEVELS

let database: Database
let sequelize: Sequelize
let instances: TestApiKeys[] = []

beforeEach(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterEach(async () => {
  for (const instance of instances) await instance.close()
  instances = []
  await database.drop()
})

/** The library as in one more process. */
function createInstance(options: Parameters<typeof createTestApiKeys>[1] = {}) {
  const apiKeys = createTestApiKeys(database, options)
  instances.push(apiKeys)
  return apiKeys
}

/** A key that these processes remember, and rely on the log for. */
async function createKnownKey(...verifiers: TestApiKeys[]) {
  const { apiKey, plainTextKey } = await createInstance().create(newKey())
  for (const verifier of verifiers) {
    await until(async () => {
      await verifier.verify(plainTextKey)
      return (await verifier.health()).feed === 'following'
    })
    expect(await verifier.verify(plainTextKey)).toMatchObject({ valid: true })
  }
  return { id: apiKey.id, plainTextKey }
}

async function expectSoon(apiKeys: TestApiKeys, plainTextKey: string, code: string) {
  await until(async () => {
    const verdict = await apiKeys.verify(plainTextKey)
    return !verdict.valid && verdict.code === code
  })
}

async function select<Row extends object>(sql: string, transaction?: Transaction) {
  return sequelize.query<Row>(sql, {
    type: QueryTypes.SELECT,
    transaction: transaction ?? null,
  })
}

/** The numbers of the log, in the order in which they were given. */
async function readNumbers(): Promise<bigint[]> {
  const rows = await select<{ revision: string }>(
    'SELECT revision::text FROM api_key_revisions ORDER BY xid',
  )
  return rows.map(({ revision }) => BigInt(revision))
}

function revokeSql(id: string) {
  return `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE id = '${id}'`
}

/** Ways to have numbers begin again, as a move to another server does. */
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
    'stay above all others, in an app at %s whose snapshot is older',
    async (isolationLevel) => {
      const apiKeys = createInstance({ maxStalenessMs: 300 })
      const { id, plainTextKey } = await createKnownKey(apiKeys)
      const transaction = await sequelize.transaction({ isolationLevel })
      await select('SELECT count(*) FROM api_key_migrations', transaction)
      await createInstance().create(newKey())
      await createInstance().create(newKey())
      await database.connect().query(restart)

      await sequelize.query(revokeSql(id), { transaction })
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
      await sequelize.query(restart)
      await apiKeys.update(id, { name: `round ${round}` })
      await sequelize.query(`UPDATE api_keys SET name = 'round ${round}' WHERE id = '${other.id}'`)
    }
    await sequelize.query(restart)
    await apiKeys.revoke(id)

    const events = await select<{ action: string }>(
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
  it('are above those that a restore or a replication has brought', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)
    const transaction = await sequelize.transaction({ isolationLevel: REPEATABLE_READ })
    await select('SELECT count(*) FROM api_key_migrations', transaction)
    await database.connect().query(
      `INSERT INTO api_key_revisions (revision) OVERRIDING SYSTEM VALUE
         SELECT max(revision) + 3600000000 FROM api_key_revisions`,
    )
    await until(
      async () => (await apiKeys.health()).revision === Number((await readNumbers()).at(-1)),
    )

    await sequelize.query(revokeSql(id), { transaction })
    await transaction.commit()

    const numbers = await readNumbers()
    expect(numbers.at(-1)).toBe(numbers.reduce((a, b) => (a > b ? a : b)))
    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })

  it('keep no audit entry waiting for an open transaction that has raised them', async () => {
    const apiKeys = createInstance()
    const { id } = await createKnownKey(apiKeys)
    const { apiKey: other } = await apiKeys.create(newKey())
    const open = await sequelize.transaction()
    try {
      await sequelize.query(`UPDATE api_keys SET name = 'open' WHERE id = '${other.id}'`, {
        transaction: open,
      })

      await sequelize.query(`SELECT setval('api_key_event_register', 1)`)
      await apiKeys.update(id, { name: 'first' })
      await sequelize.query(`SELECT setval('api_key_event_register', 1)`)
      await apiKeys.update(id, { name: 'second' })
    } finally {
      await open.rollback()
    }

    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('fail no SERIALIZABLE transaction of the app that changes keys', async () => {
    // So many that what the app itself reads of one is no part of what it reads of another.
    await sequelize.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'many', 'Bulk', 'agpt_000000', '00000000', md5(n::text) || md5(n::text), '{READ_GRAPH}'
         FROM generate_series(1, 5000) AS n`,
    )
    await sequelize.query('ANALYZE api_keys')
    const keys = await select<{ id: string }>(
      `SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM api_keys) AS key
        WHERE place % 1000 = 500 LIMIT 4`,
    )
    const writers = keys.map(({ id }) => ({
      id,
      connection: database.connect({ pool: { max: 1 } }),
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
    const transaction = await sequelize.transaction()
    await sequelize.query(revokeSql(id), { transaction })

    const prepared = sequelize.query(`PREPARE TRANSACTION 'revocation'`, { transaction })

    await expect(prepared).rejects.toThrow(/PREPARE/)
    await transaction.rollback().catch(() => {})
  })
})

describe('the log', () => {
  it('reports everything as changed when an entry in its middle is deleted', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { plainTextKey } = await createKnownKey(apiKeys)
    const [, middle] = await readNumbers()
    await createInstance().create(newKey({ userId: 'bob' }))
    await until(async () => (await apiKeys.health()).doorbell === 'up')
    expect((await apiKeys.health()).cache.keys).toBe(1)

    await sequelize.query(`DELETE FROM api_key_revisions WHERE revision = ${middle}`)

    await until(async () => (await apiKeys.health()).cache.keys === 0)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('reports a change by a session that sets session_replication_role', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await sequelize.transaction(async (transaction) => {
      await sequelize.query(`SET LOCAL session_replication_role = 'replica'; ${revokeSql(id)}`, {
        transaction,
      })
    })

    await expectSoon(apiKeys, plainTextKey, 'revoked')
    const [entry] = await select<object>(
      `SELECT action, actor_type FROM api_key_events WHERE api_key_id = '${id}' ORDER BY id DESC LIMIT 1`,
    )
    expect(entry).toEqual({ action: 'revoked', actor_type: 'database' })
  })
})

/** Has all that is numbered from now on be below what was read: the sequence and the clock are behind it. */
async function setBack(...readers: TestApiKeys[]) {
  await sequelize.query(
    `INSERT INTO api_key_revisions (revision) OVERRIDING SYSTEM VALUE
       SELECT max(revision) + 3600000000 FROM api_key_revisions`,
  )
  const [highest] = await select<{ revision: string }>(
    'SELECT max(revision)::text AS revision FROM api_key_revisions',
  )
  for (const reader of readers) {
    await until(async () => (await reader.health()).revision === Number(highest?.revision))
  }
  await sequelize.query(`SELECT setval('api_key_revision_register', 1)`)
}

describe('a process that does not find its own change in the log', () => {
  const transactions = [
    ['of its own', false],
    ['of the caller', true],
  ] as const

  it.each(transactions)(
    'has every process begin anew if the entry is below what they read, by a transaction %s',
    async (_, isOfCaller) => {
      const [maker, other] = [createInstance(), createInstance()]
      const { id, plainTextKey } = await createKnownKey(maker, other)
      await setBack(maker, other)

      const transaction = isOfCaller ? await sequelize.transaction() : undefined
      await maker.revoke(id, transaction && { transaction })
      await transaction?.commit()

      expect(await maker.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
      await expectSoon(other, plainTextKey, 'revoked')
      expect((await maker.health()).feed).toBe('following')
    },
  )

  it('numbers what follows above all others', async () => {
    const [maker, other] = [createInstance(), createInstance()]
    const { id } = await createKnownKey(maker, other)
    const { id: next, plainTextKey } = await createKnownKey(maker, other)
    await setBack(maker, other)

    await maker.revoke(id)
    await sequelize.query(revokeSql(next))

    for (const reader of [maker, other]) await expectSoon(reader, plainTextKey, 'revoked')
    const numbers = await readNumbers()
    expect(numbers.at(-1)).toBe(numbers.reduce((a, b) => (a > b ? a : b)))
  })

  it('does so for users whose permissions have changed', async () => {
    const held = new Map<string, readonly Permission[]>([['alice', ['READ_GRAPH']]])
    const grantable = (userId: string) => held.get(userId) ?? []
    const [maker, other] = [createInstance({ grantable }), createInstance({ grantable })]
    const { plainTextKey } = await createKnownKey(maker, other)
    await setBack(maker, other)

    held.delete('alice')
    await maker.userChanged('alice')

    await until(async () => {
      const verdict = await other.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.permissions.length === 0
    })
    expect((await maker.health()).feed).toBe('following')
  })

  it('begins anew by itself if the entry was removed at once, and goes on', async () => {
    const maker = createInstance()
    const { id, plainTextKey } = await createKnownKey(maker)
    // As pruning does, after the server's clock has jumped ahead.
    await sequelize.query(`
      CREATE FUNCTION remove_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
          DELETE FROM public.api_key_revisions WHERE revision = NEW.revision;
          RETURN NULL;
        END $$;
      CREATE TRIGGER remove_at_once AFTER INSERT ON api_key_revisions
        FOR EACH ROW EXECUTE FUNCTION remove_at_once()`)

    await maker.revoke(id)

    expect(await maker.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    expect((await maker.health()).feed).toBe('following')
  })

  it('forgets nothing of what it remembers while the order holds', async () => {
    const maker = createInstance()
    const { plainTextKey } = await createKnownKey(maker)
    const { id } = await createKnownKey(maker)
    const { misses } = (await maker.health()).cache

    await maker.update(id, { name: 'Another', description: 'of the key' })
    await maker.update(id, { description: 'alone, which is not in the log' })
    await Promise.all([maker.suspend(id), maker.revokeAll('bob'), createKnownKey()])
    await sequelize.transaction(async (transaction) => {
      await maker.reactivate(id, { transaction })
    })

    expect(await maker.verify(plainTextKey)).toMatchObject({ valid: true })
    expect((await maker.health()).cache.misses).toBe(misses)
  })
})

describe('triggers that were altered', () => {
  const alterations = [
    [
      'a function is emptied',
      `CREATE OR REPLACE FUNCTION api_key_gather_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'`,
    ],
    [
      'a function is run with the rights of its caller',
      'ALTER FUNCTION api_key_number_changes() SECURITY INVOKER',
    ],
    [
      'a function has another search_path',
      'ALTER FUNCTION api_key_number_entry() RESET search_path',
    ],
    [
      'a trigger never fires',
      `DROP TRIGGER api_key_gather_update ON api_keys;
       CREATE TRIGGER api_key_gather_update AFTER UPDATE ON api_keys
         FOR EACH ROW WHEN (false) EXECUTE FUNCTION api_key_gather_change();
       ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_gather_update`,
    ],
    [
      'a trigger fires on fewer occasions',
      `DROP TRIGGER api_key_gather_row ON api_keys;
       CREATE TRIGGER api_key_gather_row AFTER INSERT ON api_keys
         FOR EACH ROW EXECUTE FUNCTION api_key_gather_change();
       ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_gather_row`,
    ],
    ['numbers go down', 'ALTER SEQUENCE api_key_revision_register INCREMENT -1 MINVALUE -9 '],
    ['numbers may begin again', 'ALTER SEQUENCE api_key_revision_register CYCLE'],
  ] as const

  it.each(alterations)('are not relied on, such as when %s', async (_, alteration) => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await sequelize.query(alteration)
    await until(async () => {
      await apiKeys.verify(plainTextKey)
      return (await apiKeys.health()).feed === 'untrusted'
    })
    await sequelize.query(revokeSql(id)).catch(() => {})

    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })

  it.each([
    [
      'api_key_tell_update on api_keys',
      `DROP TRIGGER api_key_tell_update ON api_keys;
       CREATE TRIGGER api_key_tell_update AFTER UPDATE ON api_keys
         FOR EACH ROW WHEN (false) EXECUTE FUNCTION api_key_tell_change();
       ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_tell_update`,
    ],
    [
      'api_key_queue_events on api_key_events',
      `CREATE OR REPLACE FUNCTION api_key_queue_events() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'`,
    ],
  ])('are found by verification of the audit trail: %s', async (name, alteration) => {
    const apiKeys = createInstance()
    await sequelize.query(alteration)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toEqual([
      expect.objectContaining({ kind: 'unguarded', message: expect.stringContaining(name) }),
    ])
  })
})
