import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { Cluster } from 'ioredis'
import { createCluster } from 'redis'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import {
  describeWithRedis,
  startRedis,
  startRedisCluster,
  type RedisServer,
} from '../support/redis'
import { until } from '../support/until'
import type { LimitedProcessSettings, Order, Outcomes } from './limited-process'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'limited-process.ts')

const hour = 3_600

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

async function startProcess(): Promise<ChildProcess> {
  const child = fork(program, { execArgv: ['--require', register] })
  await once(child, 'message')
  return child
}

/** Gives all processes the same order, and adds up their outcomes. */
async function orderAll(
  processes: readonly ChildProcess[],
  order: { name: 'open'; argument: LimitedProcessSettings } | { name: 'run'; argument: Order },
) {
  const reports = await Promise.all(
    processes.map(async (child) => {
      child.send(order)
      const [outcomes] = (await once(child, 'message')) as [Outcomes]
      return outcomes
    }),
  )
  const sum = (outcome: string) => reports.reduce((all, one) => all + (one[outcome] ?? 0), 0)
  return { passed: sum('passed'), limited: sum('rate_limited') }
}

describeWithRedis('limits that four processes share', () => {
  const servers: RedisServer[] = []
  let processes: ChildProcess[]
  let apiKeys: TestApiKeys

  beforeAll(async () => {
    processes = await Promise.all([1, 2, 3, 4].map(startProcess))
    apiKeys = createTestApiKeys(database)
  })

  afterAll(async () => {
    const exits = processes.map((child) => once(child, 'exit'))
    for (const child of processes) child.disconnect()
    await Promise.all(exits)
    for (const server of servers) await server.kill()
  })

  describe.each([
    ['one Redis', 'ioredis', async () => [await startRedis()]],
    ['one Redis', 'redis', async () => [await startRedis()]],
    ['a cluster of three', 'ioredis', startRedisCluster],
    ['a cluster of three', 'redis', startRedisCluster],
  ] as const)('on %s, with the package %s', (_, client, start) => {
    beforeAll(async () => {
      const started = await start()
      servers.push(...started)
      const ports = started.map(({ port }) => port)
      await orderAll(processes, { name: 'open', argument: { url: database.url, ports, client } })
    })

    it('let through exactly as many as one limit says', async () => {
      const limits = { hourly: { limit: 1_000, windowSeconds: hour } }
      const { plainTextKey } = await apiKeys.create(newKey({ limits }))

      const outcomes = await orderAll(processes, {
        name: 'run',
        argument: { plainTextKey, uses: 5_000 },
      })

      expect(outcomes).toEqual({ passed: 1_000, limited: 19_000 })
    })

    it('let through as many as the least of several limits says, and count nothing else', async () => {
      const limits = {
        hourly: { limit: 200, windowSeconds: hour },
        daily: { limit: 190, windowSeconds: 24 * hour },
        monthly: { limit: 500, windowSeconds: 30 * 24 * hour },
      }
      const { apiKey, plainTextKey } = await apiKeys.create(newKey({ limits }))

      const { passed, limited } = await orderAll(processes, {
        name: 'run',
        argument: { plainTextKey, uses: 500 },
      })

      expect({ passed, limited }).toEqual({ passed: 190, limited: 1_810 })
      await apiKeys.update(apiKey.id, { limits: { ...limits, daily: null } })
      // Each process notices that at another time.
      let more = 0
      await until(async () => {
        const argument = { plainTextKey, uses: 5 }
        more += (await orderAll(processes, { name: 'run', argument })).passed
        return more >= 10
      })
      expect(more).toBe(10)
    })
  })
})

describeWithRedis('a cluster of which one server is frozen', () => {
  const limits = { hourly: { limit: 1_000, windowSeconds: hour } }
  let servers: RedisServer[]
  let client: { disconnect?(): void; destroy?(): void } | undefined

  beforeAll(async () => {
    servers = await startRedisCluster()
  })

  afterEach(() => {
    for (const server of servers) server.thaw()
    ;(client?.destroy ?? client?.disconnect)?.call(client)
  })

  afterAll(async () => {
    for (const server of servers) await server.kill()
  })

  async function connect(kind: string) {
    const ports = servers.map(({ port }) => port)
    const cluster =
      kind === 'ioredis'
        ? new Cluster(ports.map((port) => ({ host: '127.0.0.1', port })))
        : createCluster({ rootNodes: ports.map((port) => ({ url: `redis://127.0.0.1:${port}` })) })
    cluster.on('error', () => {})
    if (kind === 'redis') await cluster.connect()
    client = cluster
    return cluster
  }

  /** Makes keys and uses each key once, so that their counts are on the servers. */
  async function useKeys(apiKeys: TestApiKeys) {
    const keys = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const { plainTextKey } = await apiKeys.create(newKey({ limits }))
        const verdict = await apiKeys.verify(plainTextKey)
        if (!verdict.valid) throw new Error(verdict.code)
        return verdict.apiKey
      }),
    )
    for (const key of keys) await apiKeys.consume(key)
    return keys
  }

  it.each(['ioredis', 'redis'])('refuses no key of the other servers: package %s', async (kind) => {
    const apiKeys = createTestApiKeys(database, { redis: await connect(kind) })
    const keys = await useKeys(apiKeys)
    const [frozen] = servers
    if (!frozen) throw new Error('there is no cluster')
    const counters = (await frozen.keys()).join()
    const [lost, others] = [true, false].map((isLost) =>
      keys.filter(({ id }) => counters.includes(id) === isLost),
    )

    frozen.freeze()
    const outcomesOf = async (group: typeof keys = []) =>
      Promise.all(
        [...group, ...group].map((key) =>
          apiKeys.consume(key).then(
            () => 'passed',
            (error: { code: string }) => error.code,
          ),
        ),
      )
    const lostOutcomes = await outcomesOf(lost)
    const outcomes = [...(await outcomesOf(others)), ...(await outcomesOf(others))]

    expect(new Set(lostOutcomes)).toEqual(new Set(['limiter_unavailable']))
    expect(new Set(outcomes)).toEqual(new Set(['passed']))
    frozen.thaw()
    await until(async () => (await outcomesOf(lost)).every((outcome) => outcome === 'passed'))
  })
})
