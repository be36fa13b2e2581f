import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Sequelize } from 'sequelize'

import { systemClock } from '../../lib/database/clock'
import { createOwnChanges } from '../../lib/database/own-changes'
import { createChangeLog } from '../../lib/freshness/change-log'
import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { findBin, instanceModule, jsonLines } from '../support/cli'
import { readOne, startServer, type Server } from './server'
import { createKeys, type IssuedKey } from './trial'
import { createCleanup, waitUntil, within } from './waiting'

const cleanup = createCleanup()
/** A statement that waited for the standby would wait until the end of the spec. */
const limitMs = 20_000

let server: Server
let database: Sequelize
let folder: string
let apiKeys: TestApiKeys
let keys: IssuedKey[]

/** Returns the number of sessions for which a condition is true. */
async function countSessions(condition: string): Promise<number> {
  const { sessions } = await readOne<{ sessions: number }>(
    database,
    `SELECT count(*)::int AS sessions FROM pg_stat_activity WHERE ${condition}`,
  )
  return sessions
}

interface Finding {
  check?: string
  state?: string
  finding: string
  remedy?: string
}

/** Returns what doctor says of the standbys. */
async function examineStandbys(): Promise<Finding> {
  const file = join(folder, 'api-keys.js')
  await writeFile(file, instanceModule())
  const child = spawn(process.execPath, [await findBin(), 'doctor', '--json', '--config', file], {
    env: { ...process.env, DATABASE_URL: server.url },
  })
  let printed = ''
  for await (const chunk of child.stdout) printed += String(chunk)
  const findings = jsonLines<Finding>(printed)
  return findings.find(({ check }) => check === 'standbys') ?? { finding: printed }
}

const isWaiting = `wait_event = 'SyncRep'`

/** A server whose commits wait for a standby that is away, and a process that starts beside it. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'express-api-keys-standby-'))
  cleanup.defer(() => rm(folder, { recursive: true, force: true }))
  server = await startServer()
  cleanup.defer(() => server.remove())
  const before = createTestApiKeys(server)
  await before.migrate()
  keys = await createKeys(before, 3)
  for (const { plainTextKey } of keys) await before.verify(plainTextKey)
  await before.close()
  // So long ago that a process confirms it before it relies on the log.
  database = server.connect()
  await database.query(`UPDATE api_key_bounds SET registered_at = now() - interval '2 hours'`)
  await database.query(
    `TRUNCATE api_key_revisions, api_key_changes;
     INSERT INTO api_key_revisions (created_at) VALUES (now() - interval '3 hours'), (now() - interval '2 hours'), (now());
     DELETE FROM api_key_changes`,
  )
  await database.query(
    `SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
     DELETE FROM api_key_revisions WHERE revision = (SELECT max(revision) FROM api_key_revisions)`,
  )
  await database.query(`ALTER SYSTEM SET synchronous_standby_names = 'standby'`)
  await server.stop()

  await server.start()
  database = server.connect()
  apiKeys = createTestApiKeys(server, { lastUsedResolutionMs: 1 })
  cleanup.defer(() => apiKeys.close())
})

afterAll(() => cleanup.run())

/** Starts a process. Its calls wait for the database as long as its pool does. */
function startProcess(acquire = 60_000) {
  const sequelize = new Sequelize(server.url, { logging: false, pool: { acquire } })
  const process = createTestApiKeys(server, { sequelize })
  cleanup.defer(async () => {
    await process.close()
    await sequelize.close()
  })
  return process
}

async function isValid({ plainTextKey }: IssuedKey, process = apiKeys) {
  return (await process.verify(plainTextKey)).valid
}

describe('while a synchronous standby is away,', () => {
  it('a process that starts confirms its bound and verifies keys', async () => {
    for (const { plainTextKey } of keys) {
      const verdict = await within(limitMs, 'verified', apiKeys.verify(plainTextKey))
      expect(verdict.valid).toBe(true)
    }

    expect(await apiKeys.health()).toMatchObject({ ok: true, feed: 'following' })
  })

  it('uses are written, and no connection of the server waits for the standby', async () => {
    await within(limitMs, 'written', apiKeys.flush())

    const { used } = await readOne<{ used: number }>(
      database,
      `SELECT count(*)::int AS used FROM api_keys WHERE last_used_at > pg_postmaster_start_time()`,
    )
    expect(used).toBe(keys.length)
    expect(await countSessions(isWaiting)).toBe(0)
  })

  it('the log of changes is pruned, which each process does once a minute', async () => {
    const log = createChangeLog({
      connection: { query: () => Promise.reject(new Error('not for this')) },
      sequelize: database,
      tables: tablesOf('public'),
      followed: 'keys',
      boundMs: 1_000,
      ownChanges: createOwnChanges(systemClock),
    })

    await within(limitMs, 'pruned', log.prune())

    const { entries } = await readOne<{ entries: number }>(
      database,
      'SELECT count(*)::int AS entries FROM api_key_revisions',
    )
    expect(entries).toBe(1)
    expect(await countSessions(isWaiting)).toBe(0)
  })
})

describe('a change while a synchronous standby is away', () => {
  it('is refused in time, holds from the end of the wait on, and is the answer if it is repeated', async () => {
    const [key] = keys as [IssuedKey]
    const [changing, other] = [startProcess(5_000), startProcess()]

    await expect(within(limitMs, 'answered', changing.revoke(key.id))).rejects.toMatchObject({
      code: 'database_unavailable',
    })
    expect(await countSessions(isWaiting)).toBe(1)
    await waitUntil('doctor reports it', async () => {
      const { state, finding, remedy } = await examineStandbys()
      const expected = 'sessions that wait for standby, which may be away: 1'
      return (
        state === 'fault' &&
        finding === expected &&
        remedy?.endsWith('in lib/freshness/README.md.') === true
      )
    })
    expect([await isValid(key), await isValid(key, other)]).toEqual([true, true])
    await database.query(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE ${isWaiting}`)

    await waitUntil('refused everywhere', async () => {
      const verdicts = [await isValid(key), await isValid(key, other), await isValid(key, changing)]
      return verdicts.every((valid) => !valid)
    })
    const again = await within(limitMs, 'answered', changing.revoke(key.id))
    expect(again.status).toBe('REVOKED')
  })

  it('leaves one session that waits with a seal, however many processes try to seal', async () => {
    const others = [startProcess(), startProcess()]
    for (const other of others) expect(await isValid(keys[1] as IssuedKey, other)).toBe(true)

    const isHeldUp = `wait_event_type = 'Lock' AND query LIKE '%api_key_audit_head%'`
    await waitUntil('another process waits', async () => (await countSessions(isHeldUp)) > 0)

    expect(await countSessions(isWaiting)).toBe(1)
  })

  it('is made as soon as the standby is given up, with all that waits', async () => {
    const [, key] = keys as [IssuedKey, IssuedKey]
    const changing = startProcess()
    const revoking = changing.revoke(key.id)
    await waitUntil('it waits', async () => (await countSessions(isWaiting)) === 2)
    await database.query(`ALTER SYSTEM SET synchronous_standby_names = ''`)

    await database.query('SELECT pg_reload_conf()')

    expect(await within(limitMs, 'answered', revoking)).toMatchObject({ status: 'REVOKED' })
    await waitUntil('no session waits', async () => (await countSessions(isWaiting)) === 0)
    expect(await changing.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})
