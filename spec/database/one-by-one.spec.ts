import { createBackground } from '../../lib/database/background'
import { systemClock } from '../../lib/database/clock'
import { createConnections } from '../../lib/database/connections'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { database, rows, holdLock } = useWorld()

function connect() {
  const { usage } = createConnections({
    appSequelize: database.connect(),
    background: createBackground(),
    clock: systemClock,
    maxStalenessMs: 1_000,
    listen: false,
  })
  return usage
}

/** Returns how many sessions have a text in their latest statement. */
async function countSessions(text: string): Promise<number> {
  const found = await rows(
    `SELECT FROM pg_stat_activity WHERE query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid() AND query NOT LIKE '%pg_stat_activity%'`,
    [text],
  )
  return found.length
}

describe('a connection that closes when it is idle', () => {
  it('answers the statements that are under way and wait, and is closed then', async () => {
    const connection = connect()
    const lock = await holdLock('SELECT pg_advisory_xact_lock(11)')
    const first = connection.query(`SELECT 'first' AS name FROM pg_advisory_xact_lock(11)`, 10_000)
    const second = connection.query(`SELECT 'second' AS name`, 10_000)
    await lock.waitedFor()

    connection.closeIdle()
    const third = connection.query(`SELECT 'third' AS name`, 10_000)
    await lock.release()

    const answers = await Promise.all([first, second, third])
    expect(answers.map(({ rows: [row] }) => row?.name)).toEqual(['first', 'second', 'third'])
    await until(async () => (await countSessions(`'third' AS name`)) === 0)
  })

  it('rejects them if it is closed at once', async () => {
    const connection = connect()
    const lock = await holdLock('SELECT pg_advisory_xact_lock(12)')
    const query = connection.query('SELECT pg_advisory_xact_lock(12)', 10_000)
    await lock.waitedFor()

    connection.close()

    await expect(query).rejects.toMatchObject({ code: 'database_unavailable' })
    await lock.release()
  })
})
