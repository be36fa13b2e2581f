import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, Transaction, type Sequelize } from 'sequelize'

import { createOwnChanges } from '../../lib/database/own-changes'
import { createChangeLog } from '../../lib/freshness/change-log'
import { systemClock } from '../../lib/database/clock'
import type { Connection } from '../../lib/database/connection'
import { tablesOf } from '../../models/tables'
import { findBlockedSession } from '../support/blocked'
import { createDatabase, type Database } from '../support/database'
import { runsOf } from '../support/runs'

const { READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE } = Transaction.ISOLATION_LEVELS

const writingMs = runsOf(4_000, 1_000)
/** More changes than a process reads one by one. */
const crowdSize = runsOf(12_000, 5_000)

let database: Database
let sequelize: Sequelize

beforeEach(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterEach(() => database.drop())

/** One committed transaction in the log. */
interface Entry {
  revision: number
  mark: string
  keyIds: string[]
}

function readLog(after: number): Promise<Entry[]> {
  return sequelize.query<Entry>(
    `SELECT revision::float8, mark,
            array(SELECT key_id::text FROM api_key_changes AS change
                   WHERE change.mark = entry.mark ORDER BY key_id) AS "keyIds"
       FROM api_key_revisions AS entry WHERE revision > $1 ORDER BY revision`,
    { bind: [after], type: QueryTypes.SELECT },
  )
}

/** A reader like every process: it reads on from the newest revision that it has seen. */
async function followLog() {
  const seen = await readLog(0)
  const over = new AbortController()

  async function readOn() {
    const newest = seen.at(-1)?.revision ?? 0
    const entries = await readLog(newest)
    seen.push(...entries)
    return entries.length
  }

  async function readUntilOver() {
    while (!over.signal.aborted) await readOn()
  }
  const reading = readUntilOver()

  return {
    /** Returns everything that it has seen, once the writers rest. */
    async stop(): Promise<Entry[]> {
      over.abort()
      await reading
      await readOn()
      return seen
    },
    /** Resolves once it has seen so many entries more than at the start. */
    async hasSeen(revision: number) {
      while ((seen.at(-1)?.revision ?? 0) < revision) await sleep(5)
    },
  }
}

async function createKeys(count: number): Promise<string[]> {
  const rows = await sequelize.query<{ id: string }>(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, event_ref)
     SELECT 'alice', 'one of many', 'agpt_000000', '00000000',
            encode(sha256((gen_random_uuid()::text || n)::bytea), 'hex'), '{READ_GRAPH}',
            gen_random_uuid()
       FROM generate_series(1, ${count}) AS n
     RETURNING id::text`,
    { type: QueryTypes.SELECT },
  )
  return rows.map(({ id }) => id)
}

/** Runs a statement in a transaction. */
type Run = (sql: string, bind?: unknown[]) => Promise<unknown>

interface Writer {
  isolationLevel: Transaction.ISOLATION_LEVELS
  /** Changes keys, and returns the ids of the keys that must be in the log if the transaction commits. */
  write(run: Run): Promise<string[]>
  ends: 'commits' | 'rolls back' | 'either'
}

/** Writes over and over for a time, and returns the ids of each committed transaction. */
async function writeFor(ms: number, { isolationLevel, write, ends }: Writer) {
  const connection = database.connect({ pool: { max: 1 } })
  const committed: string[][] = []
  const failures: string[] = []
  const until = performance.now() + ms

  do {
    const transaction = await connection.transaction({ isolationLevel })
    const isKept = ends === 'commits' || (ends === 'either' && Math.random() < 0.5)
    try {
      const ids = await write((sql, bind = []) => connection.query(sql, { bind, transaction }))
      if (isKept) {
        await transaction.commit()
        committed.push(ids.toSorted())
      } else await transaction.rollback()
    } catch (error) {
      failures.push(String(error))
      await transaction.rollback().catch(() => {})
    }
  } while (performance.now() < until)

  return { committed, failures }
}

/** Like the library, whose changes leave no entry of the database in the audit trail. */
function change(run: Run, ids: readonly string[]) {
  return run(
    'UPDATE api_keys SET name = $1, event_ref = gen_random_uuid() WHERE id = ANY($2::uuid[])',
    [randomUUID(), ids],
  )
}

/** Changes keys in a transaction of the database's first connection, or in one of its own. */
function changeIn(transaction: Transaction | null, ids: readonly string[]) {
  return change((sql, bind = []) => sequelize.query(sql, { bind, transaction }), ids)
}

/** Six ways in which apps change keys, each with keys of its own. */
async function createWriters(): Promise<Writer[]> {
  const crowd = await createKeys(crowdSize)

  async function changeOne(): Promise<Pick<Writer, 'write'>> {
    const [id = ''] = await createKeys(1)
    return {
      async write(run) {
        // Takes a snapshot that is old when the change is made, like an app that reads first.
        await run('SELECT count(*) FROM api_key_migrations')
        await sleep(Math.random() * 4)
        await change(run, [id])
        return [id]
      },
    }
  }

  async function changeWithSavepoints(): Promise<Pick<Writer, 'write'>> {
    const [first = '', undone = '', last = ''] = await createKeys(3)
    return {
      async write(run) {
        const isFirstUndone = Math.random() < 0.5
        if (!isFirstUndone) await change(run, [first])
        await run('SAVEPOINT one')
        await change(run, [undone])
        await run('ROLLBACK TO SAVEPOINT one')
        await run('SAVEPOINT two')
        await change(run, [last])
        await run('RELEASE SAVEPOINT two')
        return isFirstUndone ? [last] : [first, last]
      },
    }
  }

  return [
    { isolationLevel: READ_COMMITTED, ends: 'commits', ...(await changeOne()) },
    { isolationLevel: REPEATABLE_READ, ends: 'commits', ...(await changeOne()) },
    { isolationLevel: SERIALIZABLE, ends: 'commits', ...(await changeOne()) },
    { isolationLevel: REPEATABLE_READ, ends: 'commits', ...(await changeWithSavepoints()) },
    { isolationLevel: READ_COMMITTED, ends: 'either', ...(await changeWithSavepoints()) },
    {
      isolationLevel: READ_COMMITTED,
      ends: 'commits',
      async write(run) {
        await change(run, crowd)
        return crowd
      },
    },
  ]
}

const asText = (ids: readonly string[]) => ids.toSorted().join()

/** Takes the lock out of the function that numbers the entries. */
async function removeLock() {
  const [{ definition } = { definition: '' }] = await sequelize.query<{ definition: string }>(
    `SELECT pg_get_functiondef('api_key_number_entry'::regproc) AS definition`,
    { type: QueryTypes.SELECT },
  )
  const unlocked = definition.replace(
    /PERFORM FROM[^;]*FOR UPDATE;\s*IF NOT FOUND.*?END IF;\s*END IF;/s,
    '',
  )
  if (unlocked === definition) throw new Error('there was no lock to take out')
  await sequelize.query(unlocked)
}

/** Begins a transaction that has its number and has not committed, like every transaction for an instant. */
async function beginNumbered(ids: readonly string[]): Promise<Transaction> {
  const transaction = await sequelize.transaction()
  await changeIn(transaction, ids)
  await sequelize.query('SET CONSTRAINTS ALL IMMEDIATE', { transaction })
  return transaction
}

describe('the log of changes', () => {
  it('hides nothing from a reader that reads on from the newest revision, and fails no writer', async () => {
    const writers = await createWriters()
    const before = await readLog(0)
    const reader = await followLog()

    const outcomes = await Promise.all(writers.map((writer) => writeFor(writingMs, writer)))
    const seen = await reader.stop()

    const written = outcomes.flatMap(({ committed }) => committed)
    expect(outcomes.flatMap(({ failures }) => failures)).toEqual([])
    expect(outcomes.map(({ committed }) => committed.length > 0)).toEqual(writers.map(() => true))
    // Each committed transaction is there once, whole, and no transaction that was rolled back.
    const noticed = seen.slice(before.length)
    expect(noticed.map(({ keyIds }) => asText(keyIds)).toSorted()).toEqual(
      written.map(asText).toSorted(),
    )
    // The entries that were read first are still there at the end.
    expect(seen.map(nameOf)).toEqual((await readLog(0)).map(nameOf))
    expect(new Set(seen.map(({ mark }) => mark)).size).toBe(seen.length)
  })

  it('numbers transactions in the order of their commits: the next one waits', async () => {
    const [one = '', other = ''] = await createKeys(2)
    const reader = await followLog()

    const first = await beginNumbered([one])
    const second = changeIn(null, [other])
    await findBlockedSession(sequelize)
    await first.commit()
    await second

    const seen = await reader.stop()
    expect(seen.slice(-2).map(({ keyIds }) => keyIds)).toEqual([[one], [other]])
    expect(seen.map(nameOf)).toEqual((await readLog(0)).map(nameOf))
  })

  it('would hide changes without its lock, and this spec would see it', async () => {
    await removeLock()
    const [one = '', other = ''] = await createKeys(2)
    const reader = await followLog()
    const newest = (await readLog(0)).at(-1)?.revision ?? 0

    const first = await beginNumbered([one])
    await changeIn(null, [other])
    await reader.hasSeen(newest + 2)
    await first.commit()

    const seen = await reader.stop()
    const missed = (await readLog(0)).filter(({ mark }) => !seen.some((each) => each.mark === mark))
    expect(missed.map(({ keyIds }) => keyIds)).toEqual([[one]])
  })

  it('keeps no change waiting for a transaction that has changed keys and stays open', async () => {
    const [one = '', other = ''] = await createKeys(2)
    const open = await sequelize.transaction()
    try {
      await changeIn(open, [one])

      await changeIn(null, [other])

      expect((await readLog(0)).at(-1)?.keyIds).toEqual([other])
    } finally {
      await open.rollback()
    }
  })

  it('begins a second entry for changes that a transaction makes after it was numbered', async () => {
    const [one = '', other = ''] = await createKeys(2)

    const transaction = await beginNumbered([one])
    await changeIn(transaction, [other])
    await transaction.commit()

    expect((await readLog(0)).slice(-2).map(({ keyIds }) => keyIds)).toEqual([[one], [other]])
  })

  it('is read at the same cost whatever one transaction has left in it', async () => {
    const [id = ''] = await createKeys(crowdSize)
    const from = (await readLog(0)).at(-1) ?? null
    await changeIn(null, [id])
    await sequelize.query('ANALYZE api_key_changes, api_key_revisions')
    const plans: PlanNode[] = []

    await createReader({
      async query(statement) {
        plans.push(await explain(typeof statement === 'string' ? statement : statement.text))
        return { rows: [], sentAt: { monotonic: 0, wall: 0 } }
      },
    }).read(from, 1_000)

    const readings = plans.flatMap(withChildren).filter((node) => node['Relation Name'])
    expect(readings.map((node) => node['Relation Name'])).toContain('api_key_changes')
    for (const { 'Actual Rows': rows } of readings) expect(rows).toBeLessThan(20)
  })

  it('refuses changes while the row that it locks is missing', async () => {
    const [id = ''] = await createKeys(1)
    await sequelize.query('DELETE FROM api_key_log_lock')

    const change = sequelize.query(`UPDATE api_keys SET name = 'new' WHERE id = '${id}'`)

    await expect(change).rejects.toThrow(/api_key_log_lock/)
  })
})

function createReader(connection: Pick<Connection, 'query'>) {
  return createChangeLog({
    connection,
    sequelize,
    tables: tablesOf('public'),
    followed: 'keys',
    boundMs: 1_000,
    ownChanges: createOwnChanges(systemClock),
  })
}

interface PlanNode {
  'Relation Name'?: string
  'Actual Rows': number
  Plans?: PlanNode[]
}

/** Runs the SELECT of a text with several statements, and returns the work of the server for it. */
async function explain(text: string): Promise<PlanNode> {
  const [select = ''] = /SELECT newest.*(?=;\s*COMMIT)/s.exec(text) ?? []
  const [row] = await sequelize.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(
    `EXPLAIN (ANALYZE, FORMAT JSON) ${select}`,
    { type: QueryTypes.SELECT },
  )
  if (!row) throw new Error('there is no plan')
  return row['QUERY PLAN'][0].Plan
}

function withChildren(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(withChildren)]
}

function nameOf({ revision, mark }: Entry) {
  return `${revision} ${mark}`
}
