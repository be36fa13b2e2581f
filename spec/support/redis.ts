import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { Redis } from 'ioredis'

import { hasRedis } from './has-redis'
import { until } from './until'

/** A `describe` for specs that need Redis. If Redis is not installed, they are skipped, and counted as skipped. */
export const describeWithRedis = hasRedis ? describe : describe.skip

/** A client of a Redis out of reach: nothing listens there. */
export const redisAway = new Redis(1, '127.0.0.1', {
  lazyConnect: true,
  enableOfflineQueue: false,
  retryStrategy: () => null,
  disconnectTimeout: 50,
})
redisAway.on('error', () => {})

export interface RedisServer {
  port: number
  /** Ends the server like a crash. */
  kill(): Promise<void>
  /** Stops all answers of the server, and lets it answer again. */
  freeze(): void
  thaw(): void
  /** Changes a setting of the running server. */
  /** Returns the names of the keys that it holds. */
  keys(): Promise<string[]>
  set(setting: string, value: string): Promise<unknown>
}

const startLimitMs = 10_000

async function findPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  // The bus of a cluster listens 10,000 higher.
  return port < 50_000 ? port : findPort()
}

/** Starts a Redis without persistence, on the given port or on a free port. */
export async function startRedis(
  settings: readonly string[] = [],
  givenPort?: number,
): Promise<RedisServer> {
  const port = givenPort ?? (await findPort())
  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-redis-'))
  const child = spawn(
    'redis-server',
    ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '', ...settings],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await listening(child)

  return {
    port,
    async kill() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
      await rm(folder, { recursive: true, force: true })
    },
    freeze: () => child.kill('SIGSTOP'),
    thaw: () => child.kill('SIGCONT'),
    keys: async () => (await redisCli(['-p', `${port}`, 'keys', '*'])).trim().split('\n'),
    set: (setting, value) => redisCli(['-p', `${port}`, 'config', 'set', setting, value]),
  }
}

async function listening(child: ChildProcess) {
  const limit = AbortSignal.timeout(startLimitMs)
  let log = ''
  while (!log.includes('Ready to accept connections')) {
    const [chunk] = (await once(child.stdout ?? child, 'data', { signal: limit })) as [Buffer]
    log += chunk.toString()
  }
  child.stdout?.resume()
}

/** Starts a cluster of three primaries. */
export async function startRedisCluster(): Promise<RedisServer[]> {
  const servers = [await startNode(), await startNode(), await startNode()]
  const addresses = servers.map(({ port }) => `127.0.0.1:${port}`)
  const create = ['--cluster', 'create', ...addresses, '--cluster-replicas', '0', '--cluster-yes']
  await redisCli(create)
  // The servers agree on their shares before each of them reports the cluster as up.
  for (const { port } of servers) {
    await until(async () =>
      (await redisCli(['-p', `${port}`, 'cluster', 'info'])).includes('cluster_state:ok'),
    )
  }
  return servers
}

async function redisCli(args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('redis-cli', args, { timeout: startLimitMs })
  return stdout
}

function startNode() {
  const whenOneIsAway = ['--cluster-require-full-coverage', 'no']
  const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '5000']
  return startRedis([...settings, ...whenOneIsAway])
}
