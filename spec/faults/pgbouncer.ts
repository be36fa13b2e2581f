import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { waitUntil } from './waiting'

/** The version of the installed PgBouncer; undefined if none is installed. */
export const pgbouncerVersion = findVersion()

/** Starts PgBouncer in transaction mode in front of a server. Named statements fail in it. */
export async function startPgbouncer(url: string) {
  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-pgbouncer-'))
  const port = await findFreePort()
  const { port: serverPort, username, password, pathname } = new URL(url)
  const settings = [
    '[databases]',
    `* = host=127.0.0.1 port=${serverPort} user=${username} password=${password}`,
    '[pgbouncer]',
    'listen_addr = 127.0.0.1',
    `listen_port = ${port}`,
    'unix_socket_dir =',
    'auth_type = any',
    'pool_mode = transaction',
    'default_pool_size = 6',
    'max_client_conn = 500',
    // From 1.21 on, PgBouncer prepares statements unless this setting forbids it. Older versions do not have the
    // setting.
    ...(isFrom121() ? ['max_prepared_statements = 0'] : []),
    '',
  ]
  const file = join(folder, 'pgbouncer.ini')
  await writeFile(file, settings.join('\n'))
  await chmod(folder, 0o755)

  // The shell ends it however this process ends. PgBouncer refuses to run as root.
  const script = 'pgbouncer -q "$1" & server=$!; read -r end; kill -INT "$server"; wait "$server"'
  const shell = spawn('/bin/sh', ['-c', script, 'sh', file], {
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    ...(process.getuid?.() === 0 ? accountIds() : {}),
  })
  const ended = once(shell, 'exit')
  const bouncer = new URL(url)
  bouncer.port = String(port)
  bouncer.pathname = pathname

  async function stop() {
    shell.stdin?.destroy()
    await ended
    await rm(folder, { recursive: true, force: true })
  }

  await waitUntil('PgBouncer listens', () => answers(port)).catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { url: bouncer.href, stop }
}

function findVersion(): string | undefined {
  try {
    const words = execFileSync('pgbouncer', ['--version'], { encoding: 'utf8' })
    return /PgBouncer ([\d.]+)/.exec(words)?.[1]
  } catch {
    return undefined
  }
}

function isFrom121(): boolean {
  const [major = 0, minor = 0] = (pgbouncerVersion ?? '').split('.').map(Number)
  return major > 1 || minor >= 21
}

/** Returns an account that is not root: neither PgBouncer nor pgpool-II runs as root. */
export function accountIds(): { uid: number; gid: number } {
  try {
    return { uid: idOf('-u', 'postgres'), gid: idOf('-g', 'postgres') }
  } catch {
    return { uid: idOf('-u', 'nobody'), gid: idOf('-g', 'nobody') }
  }
}

function idOf(flag: '-u' | '-g', account: string): number {
  const stdio = ['ignore', 'pipe', 'ignore'] as const
  return Number(execFileSync('id', [flag, account], { encoding: 'utf8', stdio: [...stdio] }))
}

export async function findFreePort(): Promise<number> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  listener.close()
  await once(listener, 'close')
  return port
}

export async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
