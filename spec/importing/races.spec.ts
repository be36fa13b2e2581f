import { legacyKey, legacySource } from '../support/imported-keys'
import { findBlockedSession } from '../support/blocked'
import { useWorldForEach } from '../support/world'

describe('an import, while another process has a key of it imported, revoked and deleted', () => {
  const world = useWorldForEach({ options: { imports: [legacySource] } })

  /** Starts the import of a key of alice, and keeps it between its look at the database and its transaction. */
  async function startImport(rows: readonly object[], options: object = {}) {
    const alice = await world.sequelize.transaction()
    await world.apiKeys.revokeAll({ type: 'user', id: 'alice' }, { transaction: alice })
    const { apiKeys } = world.createProcess({ imports: [legacySource] })
    const importing = apiKeys.importKeys('legacy', rows, options)
    await findBlockedSession(world.sequelize)
    return { importing, goOn: () => alice.commit() }
  }

  /** Imports the same key for bob, who is not locked, and revokes it. */
  async function importAndRevoke(row: object) {
    await world.apiKeys.importKeys('legacy', [{ ...row, userId: 'bob' }])
    const { apiKeys } = await world.apiKeys.list({ userId: 'bob' })
    await world.apiKeys.revoke(String(apiKeys[0]?.id))
    await world.rows(`UPDATE api_keys SET revoked_at = now() - interval '2 days'`)
  }

  it.each([{}, { dryRun: true }])('does not bring it back: %j', async (options) => {
    const { key, row } = legacyKey()
    const { importing, goOn } = await startImport([row, legacyKey().row], options)
    await importAndRevoke(row)
    expect(await world.apiKeys.pruneRevoked({ olderThanDays: 1 })).toEqual({ keys: 1 })

    await goOn()

    expect(await importing).toMatchObject({ imported: 1, known: 1 })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false })
    expect((await world.apiKeys.verifyAuditTrail()).faults).toEqual([])
  })

  it('does not bring it back if the deletion commits while the import waits to insert it', async () => {
    const { key, row } = legacyKey()
    const { importing, goOn } = await startImport([row])
    await importAndRevoke(row)
    const deletion = await world.sequelize.transaction()
    await world.sequelize.query('DELETE FROM api_keys', { transaction: deletion })
    await goOn()
    await findBlockedSession(world.sequelize)

    await deletion.commit()

    expect(await importing).toMatchObject({ imported: 0, known: 1 })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false })
  })
})
