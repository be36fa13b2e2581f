import { tablesOf } from '../../models/tables'
import { newKey } from '../support/keys'
import { useTrail } from '../support/trail'

const { apiKeys, sequelize, expectFaults } = useTrail()

/** Makes a key, takes its entry out before it is sealed, and puts it in again with other values. */
async function createMoved(values: string) {
  await sequelize.transaction(async (transaction) => {
    await apiKeys.create(newKey(), { transaction })
    const sql = `
      SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
      CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM api_key_events;
      DELETE FROM api_key_events;
      DELETE FROM api_key_unsealed_events;
      UPDATE moved SET ${values};
      INSERT INTO api_key_events OVERRIDING SYSTEM VALUE SELECT * FROM moved`
    await sequelize.query(sql, { transaction })
  })
}

describe('verifyAuditTrail, of an entry that was taken out before it was sealed, and put in again', () => {
  it.each([
    ['an earlier time', `created_at = created_at - interval '10 minutes'`],
    ['the first time that there is', `created_at = '-infinity'`],
    ['a time before our era', `created_at = (created_at::timestamp::text || ' BC')::timestamptz`],
    ['a later time', `created_at = created_at + interval '10 minutes'`],
    ['an earlier id', 'id = id - 600 * 1000000'],
  ])('finds that it has %s', async (_, values) => {
    await createMoved(values)

    await expectFaults(['inserted', 1])
    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults[0]?.message).toMatch(/^The entry has a time or an id from before/)
  })

  it('accepts it as it was', async () => {
    await createMoved('id = id')

    await expectFaults()
  })
})
