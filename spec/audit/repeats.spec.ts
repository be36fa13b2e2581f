import { createKey } from '../support/keys'
import { useTrail } from '../support/trail'

const { apiKeys, sequelize, rows, makeOld, sealAll, expectFaults } = useTrail()

const alice = { type: 'user', id: 'alice' } as const
const byRoot = { actor: { type: 'admin', id: 'root' } } as const

const columns = `ref, salt, api_key_id, owner_type, owner_id, action, actor_type, actor_id, reason, before, after, personal_before, personal_after, entry_mac`

/** SQL that copies entries, with their signatures, as any role can that may write entries. */
function copySql(condition: string): string {
  return `INSERT INTO api_key_events (${columns}) SELECT ${columns} FROM api_key_events WHERE ${condition}`
}

describe('verifyAuditTrail, of entries that were copied', () => {
  it('finds the copy of an entry that seems to end a suspension', async () => {
    await apiKeys.suspendOwner(alice, byRoot)
    await apiKeys.reactivateOwner(alice, byRoot)
    await apiKeys.suspendOwner(alice, byRoot)
    await sealAll()

    await sequelize.transaction(async (transaction) => {
      await sequelize.query(copySql(`action = 'owner_reactivated'`), { transaction })
      await sequelize.query('DELETE FROM api_key_suspended_owners', { transaction })
    })

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      { kind: 'inserted', position: 4, message: 'The entry repeats another one.' },
    ])
  })

  it('finds the copy of a note of an erasing', async () => {
    await createKey(apiKeys)
    await apiKeys.eraseOwner(alice, { reason: 'request 4711', revoke: true, ...byRoot })
    await expectFaults()
    const [last] = await rows<{ position: number }>(
      'SELECT max(position)::int AS position FROM api_key_event_seals',
    )

    await sequelize.query(copySql(`action = 'owner_erased'`))

    await expectFaults(['inserted', Number(last?.position) + 1])
  })

  it('finds a copy whose id is among those that were pruned', async () => {
    await makeOld(10)
    const { id } = await createKey(apiKeys)
    await apiKeys.update(id, { name: 'Backup' })
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 5 })).toEqual({ events: 1 })
    await expectFaults()

    await sequelize.query(`
      INSERT INTO api_key_events (id, ${columns}) OVERRIDING SYSTEM VALUE
      SELECT last_pruned_id - 1, ${columns} FROM api_key_events, (SELECT last_pruned_id FROM api_key_audit_head) AS head WHERE action = 'updated'`)

    await expectFaults(['inserted', 4])
  })
})
