import { createKey } from '../support/keys'
import { useTrail, type Tampering } from '../support/trail'

const { apiKeys, sequelize, sealAll, expectFaults } = useTrail()

/** Suspends a key, and runs the SQL of a superuser in the same transaction, so that no process can seal the entry before. */
async function meddleBeforeSeal(sql: string) {
  const { id } = await createKey(apiKeys)
  await sealAll()
  const guards = ['refuse_update', 'allow_erasing', 'refuse_delete']
  const each = (action: string) =>
    `ALTER TABLE api_key_events ${guards.map((name) => `${action} TRIGGER api_key_${name}`).join(', ')}`

  await sequelize.transaction(async (transaction) => {
    await apiKeys.suspend(id, { transaction })
    await sequelize.query(`${each('DISABLE')}; ${sql}; ${each('ENABLE ALWAYS')}`, { transaction })
  })
}

describe('verifyAuditTrail, of an entry that was changed before it was sealed', () => {
  const suspended = `action = 'suspended'`

  it.each<Tampering>([
    [
      'an edit',
      `UPDATE api_key_events SET reason = 'Found.' WHERE ${suspended}`,
      [['inserted', 2]],
    ],
    [
      'another time of the signature',
      `UPDATE api_key_events SET entry_mac = regexp_replace(entry_mac, ':[0-9]+:', ':1:') WHERE ${suspended}`,
      [['inserted', 2]],
    ],
    [
      'a removed entry',
      `DELETE FROM api_key_events WHERE ${suspended}`,
      [
        ['removed', 2],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'an entry that was removed and does not wait for its seal',
      `DELETE FROM api_key_unsealed_events; DELETE FROM api_key_events WHERE ${suspended}`,
      [
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'an entry that does not wait for its seal',
      'DELETE FROM api_key_unsealed_events',
      [['inserted', null]],
    ],
  ])('finds %s', async (_, sql, faults) => {
    await meddleBeforeSeal(sql)

    await expectFaults(...faults)
  })
})
