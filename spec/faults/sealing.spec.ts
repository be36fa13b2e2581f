import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, Transaction } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKey, newKey } from '../support/keys'
import { until } from '../support/until'
import { secret } from './killed'
import { pgbouncerVersion, startPgbouncer } from './pgbouncer'
import { roundCount } from './rounds'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'changing.ts')

/** With ten rounds, 20 processes make 2,000 changes each. */
const isLong = roundCount >= 10
const processCount = isLong ? 20 : 4
const entryCount = processCount * (isLong ? 2_000 : 250)

/** The time between two kills. */
const killEveryMs = 250

let database: Database
const processes = new Set<ChildProcess>()

beforeEach(async () => {
  database = await createDatabase()
})

afterEach(async () => {
  await Promise.all([...processes].map(kill))
  await database.drop()
})

async function start(url = database.url) {
  const child = spawn(process.execPath, ['--require', register, program, url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  processes.add(child)
  await once(child.stdout, 'data')
  return child
}

async function kill(child: ChildProcess) {
  processes.delete(child)
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** Connects to count the rows of tables. */
function observe() {
  const sequelize = database.connect()
  return {
    sequelize,
    async count(table: string) {
      const sql = `SELECT count(*)::int AS count FROM ${table}`
      const [row] = await sequelize.query<{ count: number }>(sql, { type: QueryTypes.SELECT })
      return row?.count ?? 0
    },
  }
}

/** Has one process after the other verify keys, and so prune the log, until only the newest entry is left. */
async function pruneLog(count: () => Promise<number>) {
  // The first pruning is due at a random time, to come at once here.
  jest.spyOn(Math, 'random').mockReturnValue(0.999_999)
  for (let left = await count(); left > 1; left = await count()) {
    const apiKeys = createTestApiKeys(database, { secrets: [secret] })
    const { plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.verify(plainTextKey)
    await until(async () => (await count()) < left)
    await apiKeys.close()
  }
  jest.restoreAllMocks()
}

describe.each(['read committed', 'repeatable read'])('sealing, with %s as default', (isolation) => {
  it(
    `gives each of ${entryCount} entries one seal, while processes are killed and one stands still`,
    async () => {
      const { sequelize, count } = observe()
      const { pathname } = new URL(database.url)
      await sequelize.query(
        `ALTER DATABASE ${pathname.slice(1)} SET default_transaction_isolation = '${isolation}'`,
      )
      const [stopped] = await Promise.all(Array.from({ length: processCount }, () => start()))
      stopped?.kill('SIGSTOP')

      while ((await count('api_key_events')) < entryCount) {
        const living = [...processes].filter((child) => child !== stopped)
        const victim = living[Math.floor(Math.random() * living.length)]
        if (victim) await Promise.all([kill(victim), start()])
        await sleep(killEveryMs)
      }
      stopped?.kill('SIGCONT')
      await Promise.all([...processes].map(kill))
      // The server may still be at work on what the processes have sent.
      const writing = `pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL`
      await until(async () => (await count(writing)) === 0)

      const apiKeys = createTestApiKeys(database, { secrets: [secret] })
      await createKey(apiKeys, { userId: 'last' })
      await until(async () => (await count('api_key_unsealed_events')) === 0)
      const entries = await count('api_key_events')
      expect(await count('api_key_event_seals')).toBe(entries)
      // The program makes each kind of change once for each key.
      const repeated =
        '(SELECT FROM api_key_events GROUP BY api_key_id, action HAVING count(*) > 1) AS repeated'
      expect(await count(repeated)).toBe(0)
      const revoked = `api_keys WHERE status = 'REVOKED'`
      expect(await count(`api_key_events WHERE action = 'revoked'`)).toBe(await count(revoked))
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({
        isIntact: true,
        entries,
        unsealed: 0,
        faults: [],
      })
      expect((await apiKeys.health()).audit).toMatchObject({ waiting: 0, lost: 0 })

      await sequelize.query(`UPDATE api_key_revisions SET created_at = now() - interval '2 hours'`)
      await pruneLog(() => count('api_key_revisions'))
      expect(await count('api_key_changes')).toBeLessThanOrEqual(1)
    },
    isLong ? 3_600_000 : 180_000,
  )
})

const behindPgbouncer = pgbouncerVersion === undefined ? describe.skip : describe

behindPgbouncer('sealing behind PgBouncer in transaction mode', () => {
  it('goes on in another process if the process is killed that seals', async () => {
    const { count } = observe()
    const bouncer = await startPgbouncer(database.url)
    try {
      const [first] = await Promise.all([start(bouncer.url), start(bouncer.url)])
      await until(async () => (await count('api_key_event_seals')) > 20)
      if (first) await kill(first)
      const sealed = await count('api_key_event_seals')
      await until(async () => (await count('api_key_event_seals')) > sealed + 20)
      await Promise.all([...processes].map(kill))

      const apiKeys = createTestApiKeys(database, { secrets: [secret] })
      const entries = await count('api_key_events')
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({
        isIntact: true,
        entries,
        faults: [],
      })
    } finally {
      await bouncer.stop()
    }
  })
})

describe('sealing under an open snapshot', () => {
  const keyCount = isLong ? 200_000 : 20_000

  it(`gives each of ${keyCount} entries a seal`, async () => {
    const { sequelize, count } = observe()
    const snapshot = await sequelize.transaction({
      isolationLevel: Transaction.ISOLATION_LEVELS.REPEATABLE_READ,
    })
    await sequelize.query('SELECT FROM api_keys', { transaction: snapshot })
    await sequelize.query(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, ${keyCount}) AS n`)
    const apiKeys = createTestApiKeys(database, { secrets: [secret] })
    await createKey(apiKeys, { userId: 'bob' })

    await until(async () => (await count('api_key_unsealed_events')) === 0)

    await snapshot.rollback()
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: keyCount + 1,
      faults: [],
    })
  }, 300_000)
})
