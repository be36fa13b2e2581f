import { installAdopter, type Adopter } from '../support/adopter'
import {
  describeWithRedis,
  startRedis,
  startRedisCluster,
  type RedisServer,
} from '../support/redis'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('redis')
})

afterAll(() => adopter.remove())

/** The uses of five keys with a limit of 20, each used 30 times. */
const exactly = { passed: 100, rate_limited: 50 }

describe('limits that a mock counts', () => {
  it('are exact with ioredis-mock', async () => {
    expect(JSON.parse(await adopter.run('node', 'clients.cjs', 'ioredis-mock'))).toEqual(exactly)
  })
})

describeWithRedis.each([
  [
    'one Redis',
    async () => [await startRedis()],
    ['ioredis 5', 'redis 4', 'redis 4, legacy mode', 'redis 5', 'redis 5, a pool'],
  ],
  [
    'a cluster of three',
    startRedisCluster,
    ['ioredis 5, a cluster', 'redis 4, a cluster', 'redis 5, a cluster'],
  ],
] as const)('limits that %s counts', (_, start, clients) => {
  let servers: RedisServer[]

  beforeAll(async () => {
    servers = await start()
  })

  afterAll(async () => {
    for (const server of servers) await server.kill()
  })

  it.each(clients)('are exact with %s', async (client) => {
    const ports = servers.map(({ port }) => String(port))

    const printed = await adopter.run('node', 'clients.cjs', client, ...ports)

    expect(JSON.parse(printed)).toEqual(exactly)
  })
})
