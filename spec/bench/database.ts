import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { createApiKeys } from 'express-api-keys'
import { Client } from 'pg'
import { Sequelize } from 'sequelize'

import { startPostgres } from '../../example-app/embedded-postgres'
import { initialSteps } from '../../migrations'
import { makeSteps } from '../../migrations/step'
import { exclusively } from '../../migrations/transaction'
import { keyPrefix, plainTexts, type MintedKey } from './keys'

/** The number of times that a process has sent each statement, by its text. */
export type Statements = ReadonlyMap<string, number>

/** A Postgres for the bench, with a database for every process that is measured. */
export interface Server {
  /** Creates a database, empty or as a copy, and returns its URL. */
  createDatabase(name: string, template?: string): Promise<string>
  /** Counts, on the server, the statements that a database has received so far. */
  countStatements(name: string): Promise<Statements>
  /** Returns how many milliseconds the server has spent on the statements of a database so far: planned and executed them. */
  statementTime(name: string): Promise<number>
  /**
   * Returns the processor time of the connections to a database so far, in milliseconds by process id. Only Linux says so; the
   * map is empty elsewhere.
   */
  processorTime(name: string): Promise<ReadonlyMap<number, number>>
  /** The folder in which the bench may leave its files. */
  folder: string
  stop(): Promise<void>
}

/** Committed changes survive a crash, as in production. There is no standby, and memory enough for the large table. */
const settings = {
  shared_preload_libraries: 'pg_stat_statements',
  wal_level: 'minimal',
  max_wal_senders: 0,
  max_wal_size: '8GB',
  shared_buffers: '1GB',
  maintenance_work_mem: '1GB',
  jit: 'off',
  max_connections: 600,
}

export async function startServer(): Promise<Server> {
  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-bench-'))
  const postgres = await startPostgres({ folder, settings })
  const client = new Client({ connectionString: postgres.url })
  await client.connect()
  await client.query('CREATE EXTENSION pg_stat_statements')

  return {
    folder,
    async createDatabase(name, template = 'template0') {
      await client.query(`CREATE DATABASE ${name} TEMPLATE ${template}`)
      const url = new URL(postgres.url)
      url.pathname = `/${name}`
      return url.href
    },
    async countStatements(name) {
      const { rows } = await client.query<{ query: string; calls: number }>(
        `SELECT query, sum(calls)::float8 AS calls
           FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
          WHERE datname = $1 GROUP BY query`,
        [name],
      )
      return new Map(rows.map(({ query, calls }) => [query, calls]))
    },
    async statementTime(name) {
      const { rows } = await client.query<{ ms: number | null }>(
        `SELECT sum(total_plan_time + total_exec_time) AS ms
           FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid WHERE datname = $1`,
        [name],
      )
      return rows[0]?.ms ?? 0
    },
    async processorTime(name) {
      const { rows } = await client.query<{ pid: number }>(
        'SELECT pid FROM pg_stat_activity WHERE datname = $1',
        [name],
      )
      return new Map(rows.flatMap(({ pid }) => processorTimeOf(pid)))
    },
    async stop() {
      await client.end()
      await postgres.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/**
 * Returns the time on a processor of a process, of its main thread alone. The first number of the file is that time in nanoseconds (Linux,
 * Documentation/scheduler/sched-stats.rst).
 */
export function processorTimeOf(pid: number): [pid: number, ms: number][] {
  try {
    const [nanoseconds] = readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')
    return [[pid, Number(nanoseconds) / 1e6]]
  } catch {
    // Not Linux, or the connection is gone.
    return []
  }
}

/** Returns the statements between two counts. */
export function statementsBetween(before: Statements, after: Statements): Statements {
  const counts = [...after].map(([text, calls]) => [text, calls - (before.get(text) ?? 0)] as const)
  return new Map(counts.filter(([, calls]) => calls > 0))
}

/**
 * The purpose of a statement: a look-up, another part of a request, work in the background, or a frame of other
 * statements.
 */
export type StatementPurpose = 'request' | 'poll' | 'usage' | 'frame'

/** Classifies a statement of the library by its text. An unknown statement counts as sent for a request. */
export function purposeOf(text: string): StatementPurpose {
  if (
    /^\s*(?:\/\*.*?\*\/\s*)*(?:START TRANSACTION|BEGIN|COMMIT|ROLLBACK|(?:UN)?LISTEN|NOTIFY|SET|SHOW)\b/i.test(
      text,
    )
  )
    return 'frame'
  // The listener tries its connection out. The server shows numbers as parameters.
  if (/^SELECT \$?1$/i.test(text.trim())) return 'poll'
  // A change of a key writes its entry, too.
  if (/\bapi_key_events\b/.test(text)) return 'request'
  if (/\blast_used_at\b/.test(text) && /\bUPDATE\b/.test(text)) return 'usage'
  if (/\bapi_key_usage\b/.test(text) && /\bINSERT\b/.test(text)) return 'usage'
  if (/api_key_(?:revisions|bounds|changes)/.test(text) && !/\bhash\b/.test(text)) return 'poll'
  return 'request'
}

/** Creates the tables of the library with these keys, and fills the table of keys up to a number of rows. */
export async function fillWithOurKeys(
  url: string,
  {
    keys,
    tableSize = keys.length,
    areBound = false,
  }: {
    keys: readonly MintedKey[]
    tableSize?: number
    /** True if the keys expire, work from some addresses only, and have metadata. */
    areBound?: boolean
  },
) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 1 } })
  // The rows come before the log of changes and the audit trail, which would note each of them.
  await exclusively(sequelize, 'public', (run) =>
    makeSteps(run, 'public', initialSteps('public').slice(0, 1)),
  )
  await sequelize.query('ALTER TABLE api_keys DISABLE TRIGGER USER')
  const others = tableSize - keys.length
  // The keys of the bench lie all over the table.
  const turns = others > 0 ? 50 : 1
  for (let turn = 0; turn < turns; turn++) {
    await insertOthers(sequelize, part(others, turn, turns))
    const { from, to } = part(keys.length, turn, turns)
    await insertOurKeys(sequelize, keys.slice(from, to))
  }

  await createApiKeys({ sequelize, keyPrefix, permissions: ['READ_GRAPH'] }).migrate()
  if (areBound) {
    await sequelize.query(
      `UPDATE api_keys SET expires_at = now() + interval '1 day',
                           allowed_ips = '{203.0.113.0/24,127.0.0.0/8}',
                           metadata = '{"plan": "gold"}'`,
    )
  }
  await sequelize.query('VACUUM ANALYZE')
  await sequelize.close()
}

const batchSize = 20_000

async function insertOurKeys(sequelize: Sequelize, keys: readonly MintedKey[]) {
  for (let at = 0; at < keys.length; at += batchSize) {
    const batch = keys.slice(at, at + batchSize)
    await sequelize.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, secret_id, permissions)
       SELECT md5(hash)::uuid::text, 'Deployment', prefix, postfix, hash, secret_id, '{READ_GRAPH}'
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
           AS keys (hash, prefix, postfix, secret_id)`,
      {
        bind: [
          batch.map(({ hash }) => hash),
          batch.map(({ prefix }) => prefix),
          batch.map(({ postfix }) => postfix),
          batch.map(({ secretId }) => secretId),
        ],
      },
    )
  }
}

async function insertOthers(sequelize: Sequelize, { from, to }: { from: number; to: number }) {
  await sequelize.query(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
     SELECT md5(number::text)::uuid::text, 'Deployment', 'agpt_000000', '00000000',
            encode(sha256(number::text::bytea), 'hex'), '{READ_GRAPH}'
       FROM generate_series($1::int, $2::int) AS number`,
    { bind: [from + 1, to] },
  )
}

function part(count: number, turn: number, turns: number) {
  return {
    from: Math.floor((count * turn) / turns),
    to: Math.floor((count * (turn + 1)) / turns),
  }
}

/** The table of an app without the library. */
export async function fillWithSequelizeKeys(url: string, keys: readonly MintedKey[]) {
  await withClient(url, async (client) => {
    await client.query(
      `CREATE TABLE keys (
         id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
         user_id text NOT NULL,
         hash text NOT NULL UNIQUE,
         permissions text[] NOT NULL,
         status text NOT NULL DEFAULT 'ACTIVE',
         expires_at timestamptz,
         last_used_at timestamptz
       )`,
    )
    await client.query(
      `INSERT INTO keys (user_id, hash, permissions)
       SELECT md5(hash)::uuid::text, hash, '{READ_GRAPH}' FROM unnest($1::text[]) AS hash`,
      [plainTexts(keys).map((key) => createHash('sha256').update(key).digest('hex'))],
    )
    await client.query('VACUUM ANALYZE')
  })
}

export async function withClient(url: string, work: (client: Client) => Promise<void>) {
  const client = new Client({ connectionString: url })
  await client.connect()
  await work(client)
  await client.end()
}
