import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { accountIds, answers, findFreePort } from './pgbouncer'
import type { Server } from './server'
import { waitUntil } from './waiting'

/** True if pgpool-II is installed here. */
export const hasPgpool = findProgram() !== undefined

/** Starts pgpool-II, which sends every statement to the standby that it may send there. */
export async function startPgpool(primary: Server, standby: Server) {
  const program = findProgram()
  if (program === undefined) throw new Error('pgpool is not installed')

  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-pgpool-'))
  const [port, controlPort] = [await findFreePort(), await findFreePort()]
  const { password } = new URL(primary.url)
  const settings = [
    `backend_clustering_mode = 'streaming_replication'`,
    `listen_addresses = '127.0.0.1'`,
    `port = ${port}`,
    `pcp_port = ${controlPort}`,
    ...['unix_socket_directories', 'socket_dir', 'pcp_socket_dir', 'logdir', 'work_dir'].map(
      (name) => `${name} = '${folder}'`,
    ),
    `pid_file_name = '${join(folder, 'pid')}'`,
    ...[primary, standby].flatMap((server, node) => [
      `backend_hostname${node} = '127.0.0.1'`,
      `backend_port${node} = ${server.port}`,
      `backend_weight${node} = ${node}`,
    ]),
    'load_balance_mode = on',
    // The list of its old sample configuration. Only these functions tie a statement to the primary.
    `write_function_list = 'nextval,setval'`,
    'allow_clear_text_frontend_auth = on',
    'sr_check_period = 1',
    `sr_check_user = 'postgres'`,
    `sr_check_password = '${password}'`,
    `sr_check_database = 'postgres'`,
    'num_init_children = 20',
    '',
  ]
  const file = join(folder, 'pgpool.conf')
  await writeFile(file, settings.join('\n'))
  const account = process.getuid?.() === 0 ? accountIds() : undefined
  await chmod(folder, 0o755)
  if (account) await chown(folder, account.uid, account.gid)

  // The shell ends it however this process ends.
  const script =
    '"$1" -n -f "$2" -a /dev/null & server=$!; read -r end; kill -INT "$server"; wait "$server"'
  const shell = spawn('/bin/sh', ['-c', script, 'sh', program, file], {
    cwd: folder,
    stdio: ['pipe', 'ignore', 'ignore'],
    ...account,
  })
  const ended = once(shell, 'exit')
  const pool = new URL(primary.url)
  pool.port = String(port)

  async function stop() {
    shell.stdin?.destroy()
    await ended
    await rm(folder, { recursive: true, force: true })
  }

  await waitUntil('pgpool listens', () => answers(port)).catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { url: pool.href, stop }
}

function findProgram(): string | undefined {
  return ['pgpool', '/usr/sbin/pgpool'].find((program) => {
    try {
      execFileSync(program, ['--version'], { stdio: 'ignore' })
      return true
    } catch {
      return false
    }
  })
}
