import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

import { createSecretFormat } from '../../lib/keys/secret'
import { setClock } from '../support/clock'
import { useWorldForEach, type Process } from '../support/world'

/** Makes an instance that writes every use. By default, only one use in a minute is written. */
const world = useWorldForEach({ options: { lastUsedResolutionMs: 0 } })

afterEach(() => {
  jest.useRealTimers()
})

function countWrites({ statements }: Process = world) {
  return statements.all.filter((sql) => sql.includes('SET last_used_at')).length
}

/** Reads the last use from the database. */
async function lastUsedAt(id: string): Promise<Date | null | undefined> {
  const [row] = await world.rows<{ lastUsedAt: Date | null }>(
    'SELECT last_used_at AS "lastUsedAt" FROM api_keys WHERE id = $1',
    [id],
  )
  return row?.lastUsedAt
}

const now = new Date('2026-11-01T12:00:00.001Z')

describe('flush', () => {
  it('makes no query if no key was used', async () => {
    const { plainTextKey } = await world.createKey()
    await world.apiKeys.verify(plainTextKey)
    await world.apiKeys.flush()

    await world.apiKeys.flush()
    const other = world.createProcess()
    await other.apiKeys.flush()

    expect(countWrites()).toBe(1)
    expect(countWrites(other)).toBe(0)
  })

  it('drops the use of a key that is gone', async () => {
    const { id, plainTextKey } = await world.createKey()
    await world.apiKeys.verify(plainTextKey)
    await world.sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`)

    await world.apiKeys.flush()
    await world.apiKeys.flush()

    expect(countWrites()).toBe(1)
  })

  it('keeps no later write from being made if a write is under way', async () => {
    const [one, other] = [await world.createKey(), await world.createKey()]
    for (const { plainTextKey } of [one, other]) await world.apiKeys.verify(plainTextKey)
    const first = world.apiKeys.flush()
    // By now, the write is under way.
    await nextTurn()
    await world.apiKeys.verify(one.plainTextKey)
    await Promise.all([first, world.apiKeys.flush()])

    // Waits until after the time of the next write, if there were anything to write.
    await sleep(1_200)
    const later = new Date(Date.now() + 1)
    setClock(later)
    await world.apiKeys.verify(other.plainTextKey)
    await world.apiKeys.flush()

    expect(await lastUsedAt(other.id)).toEqual(later)
  })

  it('writes the uses of all keys, 5,000 in a statement', async () => {
    const format = createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false })
    const minted = Array.from({ length: 5_001 }, () => format.mint('agpt'))
    await world.sequelize.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'a crowd', 'one of many', 'agpt_000000', '00000000', hash, '{READ_GRAPH}'
         FROM unnest($1::text[]) AS hash`,
      { bind: [minted.map(({ hash }) => hash)] },
    )
    const other = world.createProcess({ maxStalenessMs: 600_000 })
    setClock(now)

    await Promise.all(minted.map(({ plainTextKey }) => other.apiKeys.verify(plainTextKey)))
    await other.apiKeys.flush()

    const [count] = await world.rows(
      `SELECT count(*)::int AS used FROM api_keys
        WHERE user_id = 'a crowd' AND last_used_at IS NOT NULL`,
    )
    expect(count).toEqual({ used: minted.length })
    expect(countWrites(other)).toBeGreaterThan(1)
  })
})

describe('flush, while another statement on its connection is under way', () => {
  it('writes the uses if that statement fails', async () => {
    const { id, plainTextKey } = await world.createKey()
    await world.apiKeys.flush()
    const lock = await world.holdLock('LOCK TABLE api_key_unsealed_events')
    setClock(now)
    await world.apiKeys.verify(plainTextKey)
    // The look for entries without a seal.
    const pid = await lock.waitedFor()

    const flushing = world.apiKeys.flush()
    await nextTurn()
    await world.rows('SELECT pg_cancel_backend($1)', [pid])
    await lock.release()
    await flushing

    expect(await lastUsedAt(id)).toEqual(now)
  })
})

describe('close', () => {
  it('writes all noted uses, and leaves the app its connections', async () => {
    const { id, plainTextKey } = await world.createKey()
    setClock(now)
    await world.apiKeys.verify(plainTextKey)

    await world.apiKeys.close()

    expect(await lastUsedAt(id)).toEqual(now)
    expect(await world.apiKeys.get(id)).toMatchObject({ lastUsedAt: now })
  })
})
