import { Transaction } from 'sequelize'

import { createKey } from '../support/keys'
import { secret, useTrail, useTrailForEach } from '../support/trail'
import { until } from '../support/until'

const { sequelize, rows, createProcess } = useTrail()

/** Returns the statements that have read the queue, without what fixes the search path before each. */
function looksIn(statements: readonly string[]): string[] {
  return statements
    .filter((sql) => sql.includes('isBusy'))
    .map((sql) => sql.slice(sql.indexOf('SELECT (stored')))
}

/** Returns the transaction from which on a statement reads the queue. */
function startOf(look: string): bigint {
  const [, xid = '0'] = /xid >= .* ELSE '(\d+)'/.exec(look) ?? []
  return BigInt(xid)
}

/** Returns the number of blocks that a statement touches. */
async function blocksOf(sql: string | undefined): Promise<number> {
  const [plan] = await rows<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
    `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${sql}`,
  )
  const [{ Plan }] = plan?.['QUERY PLAN'] ?? [{ Plan: {} }]
  return Number(Plan['Shared Hit Blocks']) + Number(Plan['Shared Read Blocks'])
}

describe('the queue of entries without a seal', () => {
  it('stays fast to read under a snapshot that keeps its dead rows', async () => {
    const { apiKeys, statements } = createProcess({ secrets: [secret] })
    const looks = () => looksIn(statements.all)
    const isolationLevel = Transaction.ISOLATION_LEVELS.REPEATABLE_READ
    const [first, last] = await sequelize.transaction({ isolationLevel }, async (snapshot) => {
      await sequelize.query('SELECT FROM api_keys', { transaction: snapshot })
      const [inserted] = await rows<{ xid: string }>(`
        WITH inserted AS (
          INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
          SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
            FROM generate_series(1, 6000) AS n
        ) SELECT pg_current_xact_id()::text AS xid`)
      const isBehind = (look: string) => startOf(look) > BigInt(inserted?.xid ?? 0)
      // A transaction of any database of the server, for example of another spec, keeps the start back as long as it lasts.
      await until(async () => {
        await createKey(apiKeys, { userId: 'bob' })
        await until(async () => (await rows('SELECT FROM api_key_unsealed_events')).length === 0)
        return looks().some(isBehind)
      })
      return [await blocksOf(looks()[0]), await blocksOf(looks().find(isBehind))]
    })

    expect(last).toBeLessThan(first / 2)
  })

  it('is read from its start if another cluster has smaller numbers of transactions', async () => {
    const { apiKeys, statements } = createProcess({ secrets: [secret] })
    const from = `'18446744073709551615'`
    await createKey(apiKeys)
    await apiKeys.flush()
    await createKey(apiKeys)
    await apiKeys.flush()
    const look = looksIn(statements.all).at(-1) ?? ''
    await sequelize.query('INSERT INTO api_key_unsealed_events (event_id) VALUES (1)')

    const [read] = await rows<{ waiting: string }>(
      look.replaceAll(/ELSE '\d+'/g, `ELSE ${from}`).replaceAll(/xmin < '\d+'/g, `xmin < ${from}`),
    )

    expect(JSON.parse(read?.waiting ?? '{}')).toMatchObject({ waiting: [{}] })
  })
})

describe('an entry that cannot be read', () => {
  const trail = useTrailForEach()

  it('has a seal, like the entries behind it, and is reported', async () => {
    const { apiKeys, sequelize, rows } = trail.world
    const errors: unknown[] = []
    apiKeys.on('error', (error) => errors.push(error))
    await createKey(apiKeys)
    await apiKeys.flush()
    await sequelize.query(`
      CREATE TYPE place AS (name text);
      CREATE FUNCTION spell(place) RETURNS text STRICT LANGUAGE plpgsql AS $$ BEGIN
        RAISE invalid_text_representation;
      END $$;
      CREATE CAST (place AS text) WITH FUNCTION spell(place);
      ALTER TABLE api_key_events ALTER COLUMN address TYPE place USING NULL;
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, address)
      VALUES (gen_random_uuid(), 'user', 'alice', 'created', 'database', 'x', ROW('here'))`)
    await createKey(apiKeys)
    await apiKeys.flush()

    expect(await rows('SELECT FROM api_key_unsealed_events')).toEqual([])
    expect(await rows('SELECT FROM api_key_event_seals')).toHaveLength(3)
    expect(errors).toEqual([{ error: expect.any(Error), notice: 'audit_entry_unreadable' }])
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })
})
