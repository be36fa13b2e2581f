import { execFile } from 'node:child_process'
import { join } from 'node:path'

import { Sequelize } from 'sequelize'

import type { ImportReport } from '../../lib'
import { createTestApiKeys, type Options } from '../support/app'
import { tableOfOwn } from '../support/imported-keys'
import { startProxy } from '../support/proxy'
import { secret, useTrail } from '../support/trail'
import { createCleanup } from './waiting'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'killed.ts')

const { createOf, database, sequelize, rows, holdLock, meddle } = useTrail()

const cleanup = createCleanup()
afterEach(() => cleanup.run())

/** Two thousands, and a half. */
const count = 2_500

/** More statements than such an import has. */
const mostStatements = 60

const withImports = { secrets: [secret], imports: [tableOfOwn.source] } as Options

/** Imports in a process that is killed after a number of statements. Returns the way in which the process ended. */
function importKilled(statements: number): Promise<string> {
  const change = ['importKeys', `${count}`, `${statements}`, secret.toString('hex')]
  const args = ['--require', register, program, database.url, ...change]
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, (_, stdout, stderr) => {
      resolve(child.signalCode ?? (stdout || stderr))
    })
  })
}

/** Returns how many keys there are, and how many keys and entries there are of them. */
async function countAll() {
  const [found] = await rows<{ keys: number; names: number; entries: number }>(
    `SELECT (SELECT count(*) FROM api_keys)::int AS keys, (SELECT count(DISTINCT name) FROM api_keys)::int AS names,
            (SELECT count(DISTINCT api_key_id) FROM api_key_events WHERE action = 'imported')::int AS entries`,
  )
  return found
}

describe('importKeys', () => {
  it('imports whole thousands with their entries, whenever its process is killed, and goes on from there', async () => {
    const apiKeys = createOf(withImports)

    const imported = [0]
    let ending: string | undefined
    for (let statements = 1; ending !== 'done'; statements += 2) {
      expect(statements).toBeLessThan(mostStatements)
      ending = await importKilled(statements)
      expect(['SIGKILL', 'done']).toContain(ending)
      const found = await countAll()
      const keys = Number(found?.keys)
      expect(found).toEqual({ keys, names: keys, entries: keys })
      expect([0, 1_000, 2_000, count]).toContain(keys)
      imported.push(keys)
    }
    const again = await apiKeys.importKeys('legacy', tableOfOwn.rows(count))

    expect(imported).toEqual(imported.toSorted((a, b) => a - b))
    expect(new Set(imported).size).toBeGreaterThan(2)
    expect(again).toMatchObject({ imported: 0, known: count, changed: 0, refused: [] })
    for (const place of [0, 999, 1_000, count - 1]) {
      expect(await apiKeys.verify(tableOfOwn.keyAt(place))).toMatchObject({ valid: true })
    }
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: count })
  })

  it('is refused if the database goes away, and goes on from there', async () => {
    const proxy = await startProxy(Number(new URL(database.url).port))
    cleanup.defer(() => proxy.close())
    const remote = new Sequelize(proxy.through(database.url), { logging: false })
    const far = createTestApiKeys({ connect: () => remote }, withImports)
    cleanup.defer(async () => {
      await far.close()
      await remote.close()
    })
    await sequelize.query(`
      CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
      CREATE TRIGGER pause BEFORE INSERT ON api_keys FOR EACH ROW WHEN (NEW.name = 'Key 1500') EXECUTE FUNCTION pause()`)
    cleanup.defer(() => meddle('DROP FUNCTION IF EXISTS pause CASCADE'))
    const lock = await holdLock('SELECT pg_advisory_xact_lock(4711)')
    const reports: ImportReport[] = []

    const call = far
      .importKeys('legacy', tableOfOwn.rows(count), {
        onProgress: (report) => reports.push(report),
      })
      .catch((error: unknown) => error)
    await lock.waitedFor()
    proxy.refuse()
    const refusal = await call
    await lock.release()
    await proxy.accept()
    const { imported, known, refused } = await far.importKeys('legacy', tableOfOwn.rows(count))

    expect(refusal).toMatchObject({ code: 'database_unavailable', status: 503 })
    expect(reports).toMatchObject([{ imported: 1_000, known: 0, refused: [] }])
    expect({ sum: imported + known, refused }).toEqual({ sum: count, refused: [] })
    expect([1_000, 2_000]).toContain(known)
    expect(await countAll()).toEqual({ keys: count, names: count, entries: count })
    expect(await far.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: count })
  })
})
