import { createKey } from '../support/keys'
import { otherSecret, secret, shown, useTrail, type Fault, type Tampering } from '../support/trail'

const { apiKeys, sequelize, rows, makeOld, ageSeals, meddle, expectFaults, createOf } = useTrail()

const pruning = { olderThanDays: 1 }

async function origins() {
  return rows<{ id: string; state: Record<string, unknown> }>(
    'SELECT api_key_id AS id, state FROM api_key_origins ORDER BY as_of',
  )
}

async function setCreatedAt(sql: string) {
  await sequelize.query(`
    ALTER TABLE api_keys ALTER COLUMN created_at SET DEFAULT ${sql};
    ALTER TABLE api_key_events ALTER COLUMN created_at SET DEFAULT ${sql}`)
}

/** Has keys and entries look as if they were written so many days ago. */
async function whenOld(days: number, work: () => Promise<unknown>) {
  await setCreatedAt(`clock_timestamp() - ${days} * interval '1 day' - interval '1 minute'`)
  await work()
  await setCreatedAt('clock_timestamp()')
  await apiKeys.auditHead()
  await ageSeals()
}

describe('the origins that pruning leaves', () => {
  it('hold the last state of each key in the pruned entries', async () => {
    const [{ id }, other] = [await makeOld(5), await makeOld(5)]
    await whenOld(4, () => apiKeys.update(id, { name: 'Backup' }))
    await apiKeys.suspend(id)
    await meddle(`UPDATE api_keys SET description = 'by hand' WHERE id = '${id}'`)

    await apiKeys.pruneAuditTrail(pruning)

    expect(await origins()).toMatchObject([
      { id: other.id, state: { name: other.name, status: 'ACTIVE' } },
      { id, state: { name: 'Backup', status: 'ACTIVE', description: null } },
    ])
    expect((await origins())[0]?.state).toHaveProperty('hashDigest')
  })

  it('end with their keys', async () => {
    const [{ id }, kept] = [await makeOld(9), await makeOld(9)]
    await whenOld(6, () => createKey(apiKeys, { userId: 'bob' }))
    await apiKeys.pruneAuditTrail({ olderThanDays: 7 })
    const before = await origins()
    await whenOld(4, () => sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`))
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail(pruning)

    expect(before).toHaveLength(2)
    expect(await origins()).toMatchObject([{ id: kept.id }, { state: { userId: 'bob' } }])
    await expectFaults()
  })

  it('end with all keys', async () => {
    await makeOld(6)
    await whenOld(4, () => sequelize.query('TRUNCATE api_keys CASCADE'))
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail(pruning)

    expect(await origins()).toEqual([])
    await expectFaults()
  })

  it('are right if two processes prune three pages at once', async () => {
    await whenOld(4, () =>
      sequelize.query(`
        INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
        SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
          FROM generate_series(1, 4500) AS n`),
    )
    await createKey(apiKeys, { userId: 'bob' })
    await apiKeys.flush()
    const other = createOf({ secrets: [secret] })

    const pruned = await Promise.all([
      apiKeys.pruneAuditTrail(pruning),
      other.pruneAuditTrail(pruning),
    ])

    expect((pruned[0]?.events ?? 0) + (pruned[1]?.events ?? 0)).toBe(4_500)
    expect(await origins()).toHaveLength(4_500)
    await expectFaults()
  })

  it.each<Tampering>([
    [
      'edited',
      `UPDATE api_key_origins SET state = state || '{"name": "Mine"}'`,
      [['contradicted', null]],
    ],
    ['dated otherwise', 'UPDATE api_key_origins SET as_of = as_of + 1', []],
    ['removed', 'DELETE FROM api_key_origins', [['contradicted', null]]],
    [
      'added',
      `INSERT INTO api_key_origins VALUES (gen_random_uuid(), 1, '{}')`,
      [['contradicted', null]],
    ],
  ])('are a fault if one was %s, under another secret too', async (_, sql, faults) => {
    await makeOld(3)
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail(pruning)
    await expectFaults()

    await meddle(sql)

    const all: Fault[] = [...faults, ['checkpoint_changed', 1]]
    await expectFaults(...all)
    const later = createOf({ secrets: [otherSecret, secret] })
    await later.auditHead()
    const { faults: found } = await createOf({ secrets: [otherSecret] }).verifyAuditTrail()
    expect(shown(found)).toEqual(all)
  })

  it('are summed again under another first secret', async () => {
    await makeOld(3)
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail(pruning)
    await createOf({ secrets: [otherSecret, secret] }).auditHead()

    expect(await createOf({ secrets: [otherSecret] }).verifyAuditTrail()).toMatchObject({
      isIntact: true,
      faults: [],
    })
  })

  it('hold the keys from before the trail', async () => {
    await meddle(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      VALUES ('alice', 'Old', 'agpt_abc123', 'abcd1234', md5('a') || md5('b'), '{READ_GRAPH}')`)
    await createKey(apiKeys)
    const { adopted } = await apiKeys.verifyAuditTrail()
    await createKey(apiKeys)

    expect(adopted).toBe(1)
    expect(await origins()).toMatchObject([{ state: { name: 'Old' } }])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ adopted: 1 })
  })
})
