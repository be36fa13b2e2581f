/*
 * One process of an app whose keys have limits that it counts in Redis. On an order over IPC, it uses a key over and
 * over and reports the outcomes (see `shared-limits.spec.ts`).
 */
import { Cluster, Redis } from 'ioredis'
import { createClient, createCluster } from 'redis'
import { Sequelize } from 'sequelize'

import type { ApiKeysError } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'

export interface LimitedProcessSettings {
  url: string
  ports: number[]
  client: 'ioredis' | 'redis'
}

export interface Order {
  plainTextKey: string
  uses: number
}

/** The numbers of uses that passed, and of uses that were refused, by code. */
export type Outcomes = Record<string, number>

/** The number of uses under way at once. */
const concurrency = 50

function createRedisClient({ ports, client }: LimitedProcessSettings) {
  const nodes = ports.map((port) => ({ host: '127.0.0.1', port }))
  const [port = 0] = ports
  if (client === 'ioredis') return ports.length > 1 ? new Cluster(nodes) : new Redis(port)

  const urls = ports.map((port) => ({ url: `redis://127.0.0.1:${port}` }))
  return ports.length > 1 ? createCluster({ rootNodes: urls }) : createClient({ ...urls[0] })
}

async function open(settings: LimitedProcessSettings) {
  const sequelize = new Sequelize(settings.url, { logging: false })
  const redis = createRedisClient(settings)
  // When its server is gone, a new server comes.
  redis.on('error', () => {})
  if ('connect' in redis && settings.client === 'redis') await redis.connect()
  return createTestApiKeys({ connect: () => sequelize }, { redis })
}

async function run(apiKeys: TestApiKeys, { plainTextKey, uses }: Order) {
  const outcomes: Outcomes = {}
  let left = uses

  async function useOneByOne() {
    while (left-- > 0) {
      const verdict = await apiKeys.verify(plainTextKey)
      if (!verdict.valid) throw new Error(verdict.code)
      const outcome = await apiKeys.consume(verdict.apiKey).then(
        () => 'passed',
        (error: ApiKeysError) => error.code,
      )
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
  }
  await Promise.all(Array.from({ length: concurrency }, useOneByOne))
  return outcomes
}

let apiKeys: TestApiKeys

const commands = {
  async open(settings: LimitedProcessSettings) {
    await apiKeys?.close()
    apiKeys = await open(settings)
  },
  run: (order: Order) => run(apiKeys, order),
}

process.on('message', ({ name, argument }: { name: keyof typeof commands; argument: never }) => {
  void commands[name](argument).then((outcomes) => process.send?.(outcomes ?? {}))
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
