import { QueryTypes } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { createKey, newKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const { apiKeys, database, sequelize, rows, expectFaults, idAt, createOf } = useTrail()

async function sessionsIn(state: string): Promise<number> {
  const sessions = await rows(
    'SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = $1',
    [state],
  )
  return sessions.length
}

describe('sealing', () => {
  it('covers entries of transactions of the caller once they are committed', async () => {
    const { id } = await createKey(apiKeys)
    const transaction = await sequelize.transaction()
    await apiKeys.suspend(id, { transaction })
    const rolledBack = await sequelize.transaction()
    await apiKeys.create(newKey({ userId: 'bob' }), { transaction: rolledBack })

    // No entry waits for another transaction, so an entry with a greater id may come first.
    await createKey(apiKeys)
    const meanwhile = await apiKeys.verifyAuditTrail()
    await transaction.commit()
    await rolledBack.rollback()
    const [waiting] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_unsealed_events',
    )
    const after = await apiKeys.verifyAuditTrail()

    expect(meanwhile).toMatchObject({ isIntact: true, entries: 2, unsealed: 0 })
    expect(waiting).toEqual({ count: 1 })
    expect(after).toMatchObject({ isIntact: true, entries: 3, unsealed: 0 })
  })

  it('locks the head after everything else', async () => {
    const { id } = await createKey(apiKeys)
    const lock = await sequelize.transaction()
    await sequelize.query('SELECT FROM api_key_audit_head FOR UPDATE', { transaction: lock })

    const suspended = apiKeys.suspend(id)
    await findBlockedSession(sequelize)
    const [row] = await rows<{ isFree: boolean }>(
      `SELECT NOT EXISTS (SELECT FROM api_keys WHERE id = $1 AND status = 'SUSPENDED') AS "isFree"`,
      [id],
    )
    await lock.rollback()

    expect(row).toEqual({ isFree: true })
    expect(await suspended).toMatchObject({ status: 'SUSPENDED' })
    await expectFaults()
  })

  it('lets a change through if the head stays locked, and covers its entry with the next change', async () => {
    const [{ id }, other] = [await createKey(apiKeys), await createKey(apiKeys)]
    const lock = await sequelize.transaction()
    await sequelize.query('SELECT FROM api_key_audit_head FOR UPDATE', { transaction: lock })

    const revoked = await apiKeys.revoke(id)
    const [waiting] = await rows<{ ids: string[] }>(
      'SELECT json_agg(event_id::text) AS ids FROM api_key_unsealed_events',
    )
    await lock.rollback()
    await apiKeys.revoke(other.id)

    expect(revoked).toMatchObject({ status: 'REVOKED' })
    expect(waiting).toEqual({ ids: [await idAt(3)] })
    expect(await rows('SELECT FROM api_key_unsealed_events')).toEqual([])
    await expectFaults()
  })

  it('does not wait for a process that stopped while it held the head', async () => {
    const { id } = await createKey(apiKeys)
    const stopping = database.connect()
    const stopped = new Promise<() => void>((hasStopped) => {
      stopping.addHook('afterConnect', (connection) => {
        // A client of the driver whose answers can be held back, like in a process that stands still.
        const client = connection as { query(sql: string, ...rest: unknown[]): unknown }
        const query = client.query.bind(client)
        client.query = (sql, ...rest) => {
          const answer = rest.at(-1)
          if (!sql.includes('FOR UPDATE') || typeof answer !== 'function')
            return query(sql, ...rest)
          return query(sql, (...result: unknown[]) => hasStopped(() => answer(...result)))
        }
      })
    })
    const refused = createOf({ sequelize: stopping })
      .suspend(id)
      .catch((error: unknown) => error)
    const goOn = await stopped

    while ((await sessionsIn('idle in transaction')) > 0);
    const revoked = await apiKeys.revoke(id)
    goOn()

    expect(revoked).toMatchObject({ status: 'REVOKED' })
    expect(await refused).toMatchObject({ code: 'database_unavailable' })
    await expectFaults()
  })

  it('leaves the settings of a session as they were', async () => {
    const one = database.connect({ pool: { max: 1 } })
    const settings = () =>
      one.query(
        `SELECT current_setting('lock_timeout') AS lock,
                current_setting('idle_in_transaction_session_timeout') AS idle`,
        { type: QueryTypes.SELECT },
      )
    await one.query(`SET lock_timeout = '11s'; SET idle_in_transaction_session_timeout = '12s'`)

    await createKey(createOf({ sequelize: one }))

    expect(await settings()).toEqual([{ lock: '11s', idle: '12s' }])
  })

  it('makes one chain of the changes of 8 writers, 50 each', async () => {
    const keys = await Promise.all(Array.from({ length: 4 }, () => createKey(apiKeys)))
    const other = createTestApiKeys(database, { secrets: [secret] })
    async function write(writer: number) {
      const own = writer % 2 === 0 ? apiKeys : other
      for (let change = 0; change < 50; change++) {
        const id = String(keys[(writer + change) % keys.length]?.id)
        const name = `${writer} ${change}`
        if (change % 5 === 0) await createKey(own, { userId: `writer ${writer}` })
        else if (change % 5 === 1) await own.suspend(id)
        else if (change % 5 === 2) await own.reactivate(id)
        else if (change % 5 === 3) await own.update(id, { name })
        else if (writer === 7) {
          await sequelize.query('UPDATE api_keys SET name = $2 WHERE id = $1', { bind: [id, name] })
        } else {
          await sequelize.transaction(async (transaction) => {
            await own.update(id, { name }, { transaction })
          })
        }
      }
    }

    await Promise.all(Array.from({ length: 8 }, (_, writer) => write(writer)))

    const [{ count } = { count: 0 }] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_events',
    )
    const { isIntact, entries, unsealed, faults } = await apiKeys.verifyAuditTrail()
    expect({ isIntact, unsealed, faults }).toEqual({ isIntact: true, unsealed: 0, faults: [] })
    expect(entries).toBe(count)
  })

  it('covers 100 entries of other transactions with a change, and 3,000 of its own after it', async () => {
    await sequelize.query(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, 3000) AS n`)
    await createKey(apiKeys, { userId: 'bob' })
    const [left] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_unsealed_events',
    )

    expect(left).toEqual({ count: 2_900 })
    expect(await apiKeys.revokeAll('alice')).toEqual({ keys: 3_000 })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: 6_001,
      faults: [],
    })
  })

  it('passes over entries that wait twice or are gone', async () => {
    await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_unsealed_events (event_id) VALUES (${await idAt(1)}), (77)`,
    )
    await sequelize.query(
      `INSERT INTO api_key_unsealed_events (event_id) VALUES (${await idAt(1)})`,
    )

    await createKey(apiKeys)

    await expectFaults()
  })
  it('cannot be prevented without a fault', async () => {
    await createKey(apiKeys)
    const transaction = await sequelize.transaction()
    await apiKeys.create(newKey(), { transaction })
    await transaction.commit()
    await sequelize.query('DELETE FROM api_key_unsealed_events')

    await expectFaults(['inserted', null])
  })
})
