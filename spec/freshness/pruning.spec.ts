import { randomUUID } from 'node:crypto'

import { createOwnChanges } from '../../lib/database/own-changes'
import { systemClock } from '../../lib/database/clock'
import { createChangeLog } from '../../lib/freshness/change-log'
import { tablesOf } from '../../models/tables'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach()

/** Replaces the log by entries of these ages, in hours. */
async function fillLog(ages: readonly number[]) {
  await world.sequelize.query(
    `TRUNCATE api_key_revisions, api_key_changes;
     INSERT INTO api_key_revisions (created_at) SELECT now() - age * interval '1 hour' FROM unnest(ARRAY[${ages.join(', ')}]) AS age;
     DELETE FROM api_key_changes`,
  )
  // The TRUNCATE has left an entry of its own.
  await world.sequelize.query(
    `SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
     DELETE FROM api_key_revisions WHERE revision = (SELECT max(revision) FROM api_key_revisions)`,
  )
}

/** Returns the numbers and marks of the entries, the oldest first. */
async function readLog(): Promise<string[]> {
  const rows = await world.rows<{ entry: string }>(
    `SELECT concat(revision, ' ', mark) AS entry FROM api_key_revisions ORDER BY revision`,
  )
  return rows.map(({ entry }) => entry)
}

function prune() {
  const log = createChangeLog({
    connection: { query: () => Promise.reject(new Error('not for this')) },
    sequelize: world.sequelize,
    tables: tablesOf('public'),
    followed: 'keys',
    boundMs: 1_000,
    ownChanges: createOwnChanges(systemClock),
  })
  return log.prune()
}

describe('pruning the log', () => {
  it('begins with the oldest entry, and waits for another process that prunes', async () => {
    await fillLog([8, 6, 4, 2, 0])
    const before = await readLog()
    const lock = await world.holdLock(
      'SELECT FROM api_key_revisions ORDER BY revision LIMIT 1 FOR UPDATE',
    )

    const pruning = prune()
    await lock.waitedFor()
    const meanwhile = await readLog()
    await lock.release()
    await pruning

    expect(meanwhile).toEqual(before)
    expect(await readLog()).toEqual(before.slice(-1))
  })

  it('ends at the first entry that is younger, whatever follows', async () => {
    // The clock of the server was set back by five hours in between.
    await fillLog([8, 0, 5, 4, 0])
    const [, ...others] = await readLog()

    await prune()

    expect(await readLog()).toEqual(others)
  })

  it('keeps the newest entry, however old it is', async () => {
    await fillLog([8, 5])
    const [, newest] = await readLog()

    await prune()

    expect(await readLog()).toEqual([newest])
  })

  it('warns if old entries cannot be removed, because the log would grow', async () => {
    // The first pruning is due at a random time, to come at once here.
    jest.spyOn(Math, 'random').mockReturnValue(0.999)
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await world.sequelize.query(
      `CREATE ROLE ${role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role};
       REVOKE DELETE ON api_key_revisions FROM ${role}`,
    )
    const { apiKeys } = world.createProcess({
      sequelize: world.database.connect({ dialectOptions: { options: `-c role=${role}` } }),
      maxStalenessMs: 300,
    })
    const { plainTextKey } = await world.createKey()

    await apiKeys.verify(plainTextKey)

    await until(() =>
      warned.mock.calls.some(([text, options]) =>
        /permission denied/.test(`${String(text)} ${JSON.stringify(options)}`),
      ),
    )
    expect(JSON.stringify(warned.mock.calls)).toContain('API_KEYS_LOG_NOT_PRUNED')
    jest.restoreAllMocks()
    await apiKeys.close()
    await world.sequelize.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  })
})
