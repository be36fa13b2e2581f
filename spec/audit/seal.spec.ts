import { randomUUID } from 'node:crypto'

import { QueryTypes } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { createKey, newKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'
import { until } from '../support/until'

const { apiKeys, database, sequelize, rows, holdLock, expectFaults, createOf, createProcess } =
  useTrail()

async function waiting(): Promise<string[]> {
  const found = await rows<{ id: string }>(
    'SELECT event_id::text AS id FROM api_key_unsealed_events ORDER BY event_id',
  )
  return found.map(({ id }) => id)
}

async function sealed(): Promise<string[]> {
  const found = await rows<{ id: string }>(
    'SELECT event_id::text AS id FROM api_key_event_seals ORDER BY position',
  )
  return found.map(({ id }) => id)
}

/** An instance whose sealing stops between its two statements, as in a process that stands still. */
function createStopping() {
  const sequelize = database.connect()
  let isStopped = false
  const stopped = new Promise<() => void>((hasStopped) => {
    sequelize.addHook('afterConnect', (connection) => {
      const client = connection as { query(sql: unknown, ...rest: unknown[]): unknown }
      const query = client.query.bind(client)
      client.query = (sql, ...rest) => {
        const answer = query(sql, ...rest)
        if (isStopped || typeof sql !== 'string' || !sql.includes('isBusy')) return answer
        isStopped = true
        return Promise.resolve(answer).then(async (result) => {
          await new Promise<void>((goOn) => hasStopped(goOn))
          return result
        })
      }
    })
  })
  return { instance: createOf({ sequelize, secrets: [secret] }), stopped }
}

describe('sealing', () => {
  // Once a minute, each process looks through the whole queue.
  const lessThanAMinuteMs = 40_000

  it(
    'is soon done by a process that verifies keys, for a process that has ended or a replication',
    async () => {
      const { plainTextKey } = await apiKeys.create(newKey())
      await apiKeys.flush()
      const { apiKeys: serving, statements } = createProcess({ secrets: [secret] })
      await serving.verify(plainTextKey)
      await until(() => statements.all.some((sql) => sql.includes('isBusy')))

      // Neither a notification nor the log of changes reports it.
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id)
         VALUES (gen_random_uuid(), 'user', 'alice', 'created', 'database', 'x')`,
      )

      await until(async () => (await sealed()).length === 2)
      expect(await waiting()).toEqual([])
      await serving.close()
    },
    lessThanAMinuteMs,
  )

  it('is not put off for long by a role that claims again and again that another process has just sealed', async () => {
    await createKey(apiKeys)
    await apiKeys.flush()
    const { apiKeys: other } = createProcess({ secrets: [secret] })
    await createKey(other, { userId: 'bob' })

    await until(async () => {
      await sequelize.query('UPDATE api_key_audit_head SET sealed_at = clock_timestamp()')
      return (await sealed()).length === 2
    })

    await expectFaults()
  })

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
    const after = await apiKeys.verifyAuditTrail()

    expect(meanwhile).toMatchObject({ isIntact: true, entries: 2, unsealed: 0 })
    expect(after).toMatchObject({ isIntact: true, entries: 3, unsealed: 0 })
  })

  it('follows each change, in a process that verifies nothing and calls nothing else', async () => {
    await createKey(apiKeys)

    await until(async () => (await waiting()).length === 0)

    expect(await rows('SELECT FROM api_key_event_seals')).toHaveLength(1)
  })

  it('follows a transaction that ends after later entries were sealed', async () => {
    const transaction = await sequelize.transaction()
    await apiKeys.create(newKey(), { transaction })
    await createKey(apiKeys, { userId: 'bob' })
    await until(async () => (await sealed()).length === 1)

    await transaction.commit()
    await until(async () => (await sealed()).length === 2)

    const [first, second] = await sealed()
    expect(Number(first)).toBeGreaterThan(Number(second))
    await expectFaults()
  })

  it('follows an entry whose number was drawn before later entries were sealed', async () => {
    const { id: keyId } = await createKey(apiKeys)
    await until(async () => (await sealed()).length === 1)
    // As in a session that stands still after it has drawn a number, and before it has a transaction.
    const [drawn] = await rows<{ id: string }>(
      `SELECT nextval('api_key_event_register')::text AS id`,
    )
    await createKey(apiKeys, { userId: 'bob' })
    await until(async () => (await sealed()).length === 2)

    await sequelize.query(
      `INSERT INTO api_key_events (id, api_key_id, owner_type, owner_id, action, actor_type, actor_id) OVERRIDING SYSTEM VALUE
       VALUES (${drawn?.id}, '${keyId}', 'user', 'alice', 'updated', 'database', 'app')`,
    )
    // No process has written it, and none verifies keys.
    await apiKeys.auditHead()

    const [, second, third] = await sealed()
    expect(third).toBe(drawn?.id)
    expect(Number(second)).toBeGreaterThan(Number(third))
    await expectFaults()
  })

  it('is left to others by a process whose role may only verify keys', async () => {
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await sequelize.query(`
      CREATE ROLE ${role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role};
      GRANT INSERT, UPDATE, DELETE ON api_key_bounds TO ${role}; GRANT UPDATE ON api_keys TO ${role};
      GRANT INSERT, UPDATE, DELETE ON api_key_usage, api_key_usage_writers TO ${role};
      REVOKE ALL ON api_key_unsealed_events FROM ${role}`)
    const connection = database.connect({ dialectOptions: { options: `-c role=${role}` } })
    const verifying = createOf({ sequelize: connection, secrets: [secret] })
    const errors: unknown[] = []
    verifying.on('error', (error) => errors.push(error))
    const { plainTextKey } = await apiKeys.create(newKey())

    expect(await verifying.verify(plainTextKey)).toMatchObject({ valid: true })
    await sequelize.query(`UPDATE api_keys SET name = 'Backup'`)
    await until(async () => (await apiKeys.events()).events.length === 2)
    await verifying.flush()

    expect(errors).toEqual([])
  })

  it('keeps no change waiting while the head is locked, and follows once it is free', async () => {
    const { id } = await createKey(apiKeys)
    await apiKeys.flush()
    const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')

    const revoked = await apiKeys.revoke(id)
    await lock.waitedFor()
    const meanwhile = await waiting()
    await lock.release()

    expect(revoked).toMatchObject({ status: 'REVOKED' })
    expect(meanwhile).toHaveLength(1)
    await until(async () => (await waiting()).length === 0)
    expect((await sealed()).slice(1)).toEqual(meanwhile)
    await expectFaults()
  })

  it('does not wait for a process that stopped between reading and writing', async () => {
    const { instance, stopped } = createStopping()
    await createKey(instance)
    const goOn = await stopped

    await createKey(apiKeys)
    await apiKeys.flush()
    const meanwhile = await sealed()
    await createKey(apiKeys)
    goOn()
    await instance.flush()
    await apiKeys.flush()

    expect(meanwhile).toHaveLength(2)
    expect((await sealed()).slice(0, 2)).toEqual(meanwhile)
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

    const instance = createOf({ sequelize: one, secrets: [secret] })
    await createKey(instance)
    await instance.flush()

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

  it('covers thousands of entries, of the database too', async () => {
    await sequelize.query(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, 3000) AS n`)
    await createKey(apiKeys, { userId: 'bob' })
    await apiKeys.flush()

    expect(await waiting()).toEqual([])
    expect(await apiKeys.revokeAll({ type: 'user', id: 'alice' })).toEqual({ keys: 3_000 })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: 6_001,
      unsealed: 0,
      faults: [],
    })
  })

  it('passes over entries that wait twice', async () => {
    await createKey(apiKeys)
    const again = `INSERT INTO api_key_unsealed_events (event_id) SELECT id FROM api_key_events`
    await sequelize.query(again)
    await sequelize.query(again)
    await createKey(apiKeys)
    await apiKeys.flush()
    await sequelize.query(again)

    await createKey(apiKeys)

    await expectFaults()
    expect(await waiting()).toEqual([])
  })

  it.each([['without a row'], ['removed while it waited']])(
    'seals an entry as missing that is %s',
    async (how) => {
      const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
      const transaction = await sequelize.transaction()
      await apiKeys.create(newKey(), { transaction })
      if (how === 'without a row') await transaction.rollback()
      else await transaction.commit()
      await sequelize.query(
        how === 'without a row'
          ? 'INSERT INTO api_key_unsealed_events (event_id) VALUES (77)'
          : `SET session_replication_role = replica;
             BEGIN; ALTER TABLE api_key_events DISABLE TRIGGER api_key_refuse_delete;
             DELETE FROM api_key_events; ALTER TABLE api_key_events ENABLE ALWAYS TRIGGER api_key_refuse_delete; COMMIT;
             DELETE FROM api_keys; RESET session_replication_role`,
      )
      await lock.release()

      const { faults } = await apiKeys.verifyAuditTrail()

      expect(faults).toContainEqual(expect.objectContaining({ kind: 'removed', position: 1 }))
    },
  )

  it('cannot be prevented without a fault', async () => {
    await createKey(apiKeys)
    await apiKeys.flush()
    const transaction = await sequelize.transaction()
    await apiKeys.create(newKey(), { transaction })
    await transaction.commit()
    await sequelize.query('DELETE FROM api_key_unsealed_events')

    await expectFaults(['inserted', null])
  })
})
