import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { QueryTypes, Sequelize } from 'sequelize'

import { startPostgres, type EmbeddedPostgres } from '../../example-app/embedded-postgres'
import { monotonicMs, waitUntil } from './waiting'

const run = promisify(execFile)

type ServerSettings = Record<string, string | number>

/** A Postgres of one spec, which the spec stops, crashes and copies. Its port changes with every start. */
export interface Server {
  readonly url: string
  readonly port: number
  /** Connects to the server as it runs now. Closed with the server. */
  connect(): Sequelize
  /** Stops it in order. */
  stop(): Promise<void>
  /** Kills it with all its processes, at one moment. */
  crash(): Promise<void>
  start(settings?: ServerSettings): Promise<void>
  /** Stops the server, copies it as a hot standby, and starts both. The standby finds its primary at `primaryPort`. */
  copyAsStandby(standBehind: (primaryPort: number) => Promise<number> | number): Promise<Server>
  remove(): Promise<void>
}

const fast = { fsync: 'off', full_page_writes: 'off', autovacuum: 'off', jit: 'off' }

export async function startServer(settings: ServerSettings = {}): Promise<Server> {
  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-fault-'))
  return startIn(folder, settings)
}

async function startIn(folder: string, firstSettings: ServerSettings): Promise<Server> {
  let settings = firstSettings
  let postgres: EmbeddedPostgres | undefined
  let connections: Sequelize[] = []

  function running() {
    if (!postgres) throw new Error('the server does not run')
    return postgres
  }

  async function start(changed: ServerSettings = {}) {
    settings = { ...settings, ...changed }
    postgres = await startPostgres({ folder, settings: { ...fast, ...settings } })
  }

  function connect() {
    const sequelize = new Sequelize(running().url, { logging: false, pool: { max: 5 } })
    connections.push(sequelize)
    return sequelize
  }

  async function closeConnections() {
    const open = connections
    connections = []
    for (const sequelize of open) await sequelize.close().catch(() => {})
  }

  async function stop() {
    await closeConnections()
    const stopping = postgres
    postgres = undefined
    await stopping?.stop()
  }

  await start().catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true })
    throw error
  })

  return {
    get url() {
      return running().url
    },
    get port() {
      return running().port
    },
    connect,
    stop,
    start,

    async crash() {
      const postmaster = await postmasterOf(connect())
      const pids = [postmaster, ...(await childrenOf(postmaster))]
      for (const pid of pids) kill(pid)
      postgres = undefined
      await waitUntil('the server is dead', () => pids.every((pid) => !isAlive(pid)))
      await closeConnections()
    },

    async copyAsStandby(standBehind) {
      const data = await dataFolderOf(connect())
      await stop()
      const copy = await mkdtemp(join(tmpdir(), 'express-api-keys-fault-'))
      await run('cp', ['-a', data, join(copy, 'data')])
      await run('cp', ['-a', join(folder, 'password'), join(copy, 'password')])
      await writeFile(join(copy, 'data', 'standby.signal'), '')
      await start({ wal_keep_size: '256MB' })

      const { password } = new URL(running().url)
      const port = await standBehind(running().port)
      return startIn(copy, {
        ...settings,
        primary_conninfo: `host=127.0.0.1 port=${port} user=postgres password=${password}`,
        wal_retrieve_retry_interval: '100ms',
      })
    },

    async remove() {
      await stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Resolves once the standby has replayed everything that the primary has written. */
export async function waitForReplay(primary: Sequelize, standby: Sequelize) {
  const { position } = await readOne<{ position: string }>(
    primary,
    'SELECT pg_current_wal_flush_lsn()::text AS position',
  )
  await waitUntil('the standby has caught up', async () => {
    const { isThere } = await readOne<{ isThere: boolean }>(
      standby,
      `SELECT coalesce(pg_last_wal_replay_lsn() >= '${position}'::pg_lsn, false) AS "isThere"`,
    )
    return isThere
  })
}

/** Returns the one row that a query answers. */
export async function readOne<Row extends object>(sequelize: Sequelize, sql: string): Promise<Row> {
  const [row] = await sequelize.query<Row>(sql, { type: QueryTypes.SELECT })
  if (!row) throw new Error(`no row: ${sql}`)
  return row
}

/** Makes a change, and returns the time when its COMMIT was answered. */
export async function commitAt(work: () => Promise<unknown>): Promise<number> {
  await work()
  return monotonicMs()
}

async function dataFolderOf(sequelize: Sequelize) {
  const { folder } = await readOne<{ folder: string }>(
    sequelize,
    `SELECT current_setting('data_directory') AS folder`,
  )
  return folder
}

async function postmasterOf(sequelize: Sequelize): Promise<number> {
  const lock = await readFile(join(await dataFolderOf(sequelize), 'postmaster.pid'), 'utf8')
  const pid = Number.parseInt(lock, 10)
  if (!(pid > 1)) throw new Error('the server has no process')
  return pid
}

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await run('ps', ['-o', 'pid=', '--ppid', String(pid)])
  return stdout.split('\n').map(Number).filter(Boolean)
}

function kill(pid: number) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
