import type { Sequelize, Transaction } from 'sequelize'

import type { TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { createKey } from '../support/keys'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach({ options: { secrets: ['pG4u9Tq1ZbX7mWc2Rk8sVn5yLd3hJf6e'] } })
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeEach(() => {
  ;({ sequelize, apiKeys } = world)
})

const keyCount = 650

/** Keys of one user; every tenth is suspended. */
async function insertKeys() {
  await sequelize.query(`
    INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, status)
    SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n),
           '{READ_GRAPH}', CASE n % 10 WHEN 0 THEN 'SUSPENDED' ELSE 'ACTIVE' END
      FROM generate_series(1, ${keyCount}) AS n`)
}

async function countUnsealed() {
  const [rows] = await sequelize.query('SELECT count(*)::int AS count FROM api_key_unsealed_events')
  const [row] = rows as { count: number }[]
  return row?.count
}

describe('revokeAll, of more keys than memory should hold', () => {
  it('revokes all in one transaction, and keeps no page of more than 200 keys', async () => {
    await insertKeys()
    let most = 0
    const counted = world.database.connect({
      hooks: {
        afterConnect(connection) {
          const client = connection as { query: (...args: unknown[]) => unknown }
          const query = client.query.bind(client)
          client.query = (...args) => {
            const callBack = args.at(-1)
            if (typeof callBack !== 'function') return query(...args)

            return query(...args.slice(0, -1), (error: unknown, result?: { rows?: unknown[] }) => {
              most = Math.max(most, result?.rows?.length ?? 0)
              callBack(error, result)
            })
          }
        },
      },
    })
    const own = world.createProcess({ sequelize: counted }).apiKeys

    expect(await own.revokeAll({ type: 'user', id: 'alice' }, { reason: 'left' })).toEqual({
      keys: keyCount,
    })

    const [rows] = await sequelize.query(
      `SELECT count(DISTINCT xmin::text)::int AS transactions,
              count(*) FILTER (WHERE status = 'REVOKED' AND revoked_at > now() - interval '1 minute')::int AS revoked
         FROM api_keys`,
    )
    expect(rows).toEqual([{ transactions: 1, revoked: keyCount }])
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(300)
  })

  it('writes an entry for each key, and seals them page by page', async () => {
    await insertKeys()

    await apiKeys.revokeAll(
      { type: 'user', id: 'alice' },
      { actor: { type: 'admin', id: 'root' }, reason: 'left' },
    )

    await until(async () => (await countUnsealed()) === 0)
    const { events } = await apiKeys.events({ userId: 'alice', limit: 100 })
    expect(events).toHaveLength(100)
    expect(new Set(events.map(({ apiKeyId }) => apiKeyId)).size).toBe(100)
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'admin',
      actorId: 'root',
      reason: 'left',
      before: { status: expect.stringMatching(/^(ACTIVE|SUSPENDED)$/) },
      after: { status: 'REVOKED' },
    })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      entries: 2 * keyCount,
      unverifiable: 0,
    })
  })

  it.each([
    ['its own transaction', false],
    ['the caller’s', true],
  ])('reports each key once %s has committed', async (_, isCallers) => {
    await insertKeys()
    const statuses = new Map<string, string | undefined>()
    apiKeys.on('revoked', ({ apiKey, before, reason, actor }) => {
      expect({ reason, actor }).toEqual({ reason: 'left', actor: { type: 'system' } })
      expect(before?.revokedAt).toBeNull()
      expect(apiKey.status).toBe('REVOKED')
      expect(Number(apiKey.revokedAt)).toBeGreaterThan(Number(apiKey.createdAt))
      statuses.set(apiKey.id, before?.status)
    })
    const errors: unknown[] = []
    let reportedBefore = 0
    apiKeys.on('error', ({ error }) => errors.push(error))

    await (isCallers
      ? sequelize.transaction(async (transaction) => {
          await apiKeys.revokeAll({ type: 'user', id: 'alice' }, { transaction, reason: 'left' })
          reportedBefore = statuses.size
        })
      : apiKeys.revokeAll({ type: 'user', id: 'alice' }, { reason: 'left' }))

    await until(() => statuses.size === keyCount || errors.length > 0)
    expect({ errors, reportedBefore }).toEqual({ errors: [], reportedBefore: 0 })
    expect([...statuses.values()].filter((status) => status === 'SUSPENDED')).toHaveLength(
      keyCount / 10,
    )
  })

  it('reports nothing that is rolled back', async () => {
    await insertKeys()
    const revoked: string[] = []
    apiKeys.on('revoked', ({ apiKey }) => revoked.push(apiKey.id))

    await expect(
      sequelize.transaction(async (transaction) => {
        await apiKeys.revokeAll({ type: 'user', id: 'alice' }, { transaction })
        throw new Error('rolled back')
      }),
    ).rejects.toThrow('rolled back')

    await createKey(apiKeys, { status: 'REVOKED', userId: 'bob' })
    expect(revoked).toHaveLength(1)
    expect(await apiKeys.countRevocable({ type: 'user', id: 'alice' })).toEqual({ keys: keyCount })
  })
})

async function rename(id: string, transaction: Transaction) {
  await sequelize.query(`UPDATE api_keys SET name = 'By hand' WHERE id = $1`, {
    bind: [id],
    transaction,
  })
}

/** Begins a transaction that keeps a key, and that no deadlock ends. */
async function begin(id: string): Promise<Transaction> {
  const transaction = await sequelize.transaction()
  await sequelize.query(`SET LOCAL deadlock_timeout = '1h'`, { transaction })
  await rename(id, transaction)
  return transaction
}

describe('a change that meets another transaction', () => {
  it('is made again after a deadlock', async () => {
    const ids = [(await createKey(apiKeys)).id, (await createKey(apiKeys)).id].toSorted()
    const [first = '', second = ''] = ids
    const other = await begin(second)
    const revoking = apiKeys.revokeAll({ type: 'user', id: 'alice' })
    await findBlockedSession(sequelize)

    await rename(first, other)
    await other.commit()

    expect(await revoking).toEqual({ keys: 2 })
    const { events } = await apiKeys.events({ action: 'revoked' })
    expect(events).toHaveLength(2)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('is not made again in a transaction of the caller', async () => {
    const ids = [(await createKey(apiKeys)).id, (await createKey(apiKeys)).id].toSorted()
    const [first = '', second = ''] = ids
    const other = await begin(second)
    const revoking = sequelize
      .transaction((transaction) =>
        apiKeys.revokeAll({ type: 'user', id: 'alice' }, { transaction }),
      )
      .catch((error: unknown) => error)
    await findBlockedSession(sequelize)

    await rename(first, other)
    await other.commit()

    expect(await revoking).toMatchObject({ parent: { code: '40P01' } })
    expect(await apiKeys.countRevocable({ type: 'user', id: 'alice' })).toEqual({ keys: 2 })
  })
})

describe('a statement_timeout of the app', () => {
  beforeEach(() => {
    const impatient = world.database.connect({ dialectOptions: { statement_timeout: 500 } })
    apiKeys = world.createProcess({ sequelize: impatient }).apiKeys
  })

  it('lets a change go on while the end of the trail is kept', async () => {
    const { id } = await createKey(apiKeys)
    const other = await sequelize.transaction()
    await sequelize.query('SELECT FROM api_key_audit_head FOR UPDATE', { transaction: other })

    const { status } = await apiKeys.revoke(id)
    await other.rollback()

    expect(status).toBe('REVOKED')
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 2 })
  })

  it('is named in a warning if it ends a call', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
    const other = await sequelize.transaction()
    await sequelize.query('LOCK TABLE api_keys', { transaction: other })

    await expect(apiKeys.list()).rejects.toMatchObject({ code: 'database_unavailable' })
    await other.rollback()

    expect(warnings).toHaveBeenCalledWith(expect.stringContaining('raise statement_timeout'), {
      type: 'ApiKeysWarning',
      code: 'API_KEYS_STATEMENT_TIMEOUT',
    })
    warnings.mockRestore()
  })

  it('does not end the verification of the trail', async () => {
    await createKey(apiKeys)
    // Reading an entry takes longer than the app’s limit.
    await sequelize.query(`
      CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.7); RETURN true; END $$;
      ALTER TABLE api_key_event_seals RENAME TO kept_seals;
      CREATE VIEW api_key_event_seals AS SELECT * FROM kept_seals WHERE slow()`)

    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ entries: 1 })
  })
})
