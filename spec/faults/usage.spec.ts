import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, type Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { countDeadlocks } from './deadlocks'
import { startFleet, startWorker } from './fleet'
import { startProxy } from '../support/proxy'
import { rounds } from './rounds'
import { createKeys, type IssuedKey } from './trial'
import { createCleanup, waitUntil, within } from './waiting'

const cleanup = createCleanup()
/** Every use is written, however soon it follows the use before. */
const options = { lastUsedResolutionMs: 1 }
const flushIntervalMs = 1000
/** How far timers may be early, and how far the clocks of the process and of the server may drift, in one interval. */
const clockMs = 50

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeAll(async () => {
  database = await createDatabase()
  cleanup.defer(() => database.drop())
  sequelize = database.connect()
  apiKeys = createTestApiKeys(database, { maxKeysPerOwner: Infinity })
  cleanup.defer(() => apiKeys.close())
})

afterAll(() => cleanup.run())

async function lastUses(keys: readonly IssuedKey[]): Promise<(number | null)[]> {
  const rows = await sequelize.query<{ id: string; usedAt: number | null }>(
    `SELECT id, (extract(epoch FROM last_used_at) * 1000)::float8 AS "usedAt"
       FROM api_keys WHERE id IN (:ids)`,
    { replacements: { ids: keys.map(({ id }) => id) }, type: QueryTypes.SELECT },
  )
  const byId = new Map(rows.map(({ id, usedAt }) => [id, usedAt]))
  return keys.map(({ id }) => byId.get(id) ?? null)
}

describe.each(rounds)('the last uses of keys, round %i,', () => {
  it('are written by 50 flushes of 4 processes at once, without a deadlock and never backwards', async () => {
    const keys = await createKeys(apiKeys, 1000)
    await sequelize.query(
      `CREATE TABLE IF NOT EXISTS went_back (id uuid);
       CREATE OR REPLACE FUNCTION note_way_back() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO went_back VALUES (OLD.id);
           RETURN NULL;
         END
       $$;
       CREATE OR REPLACE TRIGGER way_back AFTER UPDATE ON api_keys FOR EACH ROW
         WHEN (NEW.last_used_at IS NULL AND OLD.last_used_at IS NOT NULL
               OR NEW.last_used_at < OLD.last_used_at)
         EXECUTE FUNCTION note_way_back()`,
    )
    const fleet = await startFleet({ size: 4, url: database.url, options })
    try {
      await fleet.watch(
        keys.map(({ plainTextKey }) => plainTextKey),
        { loops: 4, batch: 50, pauseMs: 5 },
      )
      const startedAt = Date.now()
      for (let time = 0; time < 5; time++) {
        await Promise.all(fleet.workers.map((worker) => worker.call('flush', 13)))
        await sleep(200)
      }
      await waitUntil(
        'every process has used every key',
        async () =>
          (await fleet.reports()).every(({ sightings }) =>
            sightings.every(({ accepted }) => accepted > 0),
          ),
        20_000,
      )
      await Promise.all(fleet.workers.map((worker) => worker.call('rest')))
      await Promise.all(fleet.workers.map((worker) => worker.call('flush', 13)))

      const backwards = await sequelize.query('SELECT * FROM went_back', {
        type: QueryTypes.SELECT,
      })
      expect(backwards).toEqual([])
      const written = (await lastUses(keys)).filter((usedAt) => Number(usedAt) > startedAt)
      expect(written).toHaveLength(keys.length)
      expect(await countDeadlocks(database)).toBe(0)
    } finally {
      await fleet.stop()
      await sequelize.query('DROP TRIGGER way_back ON api_keys')
    }
  })

  it('are written in one statement a second, however many more come in during the write', async () => {
    const keys = await createKeys(apiKeys, 200)
    await sequelize.query(
      `CREATE TABLE IF NOT EXISTS writes (at timestamptz DEFAULT clock_timestamp());
       CREATE OR REPLACE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO writes DEFAULT VALUES;
           RETURN NULL;
         END
       $$;
       CREATE OR REPLACE TRIGGER count_write AFTER UPDATE ON api_keys
         FOR EACH STATEMENT EXECUTE FUNCTION count_write()`,
    )
    const worker = await startWorker({ url: database.url, options })
    try {
      const plainTextKeys = keys.map(({ plainTextKey }) => plainTextKey)
      await worker.call('watch', plainTextKeys, { loops: 4, batch: 20, pauseMs: 0 })
      let times: number[] = []
      await waitUntil('four writes', async () => {
        const writes = await sequelize.query<{ at: Date }>('SELECT at FROM writes ORDER BY at', {
          type: QueryTypes.SELECT,
        })
        times = writes.map(({ at }) => at.getTime())
        return times.length >= 4
      })

      const pauses = times.slice(1).map((time, index) => time - Number(times[index]))
      expect(Math.min(...pauses)).toBeGreaterThanOrEqual(flushIntervalMs - clockMs)
    } finally {
      await worker.remove()
      await sequelize.query('DROP TRIGGER count_write ON api_keys; DROP TABLE writes')
    }
  })

  it('are lost only since the last write by a process that is killed', async () => {
    const keys = await createKeys(apiKeys, 1000)
    const worker = await startWorker({ url: database.url, options })
    try {
      const countWritten = async () =>
        (await lastUses(keys)).filter((usedAt) => usedAt !== null).length
      const unused = keys.values()
      async function useKeysUntil(isOver: (written: number) => boolean) {
        for (const { plainTextKey } of unused) {
          await worker.call('verify', plainTextKey)
          const written = await countWritten()
          if (isOver(written)) return written
        }
        throw new Error('the uses of all keys do not suffice')
      }
      const first = await useKeysUntil((written) => written > 0)
      await useKeysUntil((written) => written > first)
      worker.signal('SIGKILL')
      await waitUntil('the process is gone', () => worker.ending() !== undefined)

      // All uses before a write are in it. So a process loses only what came in since its last write began.
      const uses = await lastUses(keys)
      const lastWritten = uses.findLastIndex((usedAt) => usedAt !== null)
      expect(uses.slice(0, lastWritten)).not.toContain(null)
    } finally {
      await worker.remove()
    }
  })

  it('are all kept by a process that is closed', async () => {
    const keys = await createKeys(apiKeys, 200)
    const worker = await startWorker({ url: database.url, options })
    try {
      await worker.call(
        'verifyAll',
        keys.map(({ plainTextKey }) => plainTextKey),
      )
      await worker.call('close')

      expect((await lastUses(keys)).filter((usedAt) => usedAt === null)).toEqual([])
    } finally {
      await worker.remove()
    }
  })

  it('are written, and a process ends, if its connections have fallen silent', async () => {
    const keys = await createKeys(apiKeys, 20)
    const plainTextKeys = keys.map(({ plainTextKey }) => plainTextKey)
    const proxy = await startProxy(Number(new URL(database.url).port))
    const worker = await startWorker({ url: proxy.through(database.url), options })
    try {
      await worker.call('verifyAll', plainTextKeys)
      await worker.call('flush', 1)
      const silentSince = Date.now()
      proxy.freeze()
      await worker.call('verifyAll', plainTextKeys)
      proxy.thaw('abandoned')

      await waitUntil('all uses are written', async () =>
        (await lastUses(keys)).every((usedAt) => Number(usedAt) > silentSince - 1),
      )
      await within(5000, 'the process closes', worker.call('close'))
      expect(worker.ending()).toBeUndefined()
    } finally {
      await worker.remove()
      await proxy.close()
    }
  })

  it('are kept through an outage, and written after it', async () => {
    const keys = await createKeys(apiKeys, 20)
    const worker = await startWorker({ url: database.url, options })
    try {
      await worker.call(
        'verifyAll',
        keys.map(({ plainTextKey }) => plainTextKey),
      )
      await sequelize.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()`,
      )

      await waitUntil('all uses are written', async () => !(await lastUses(keys)).includes(null))
      expect(worker.ending()).toBeUndefined()
    } finally {
      await worker.remove()
    }
  })
})
