const { setUp } = require('./set-up.cjs')

/* Uses five keys 30 times each, through a client of Redis, and prints the outcome: clients.cjs <client> <port>... */

const [kind, ...ports] = process.argv.slice(2)
const [port] = ports
const url = `redis://127.0.0.1:${port}`
const rootNodes = ports.map((port) => ({ url: `redis://127.0.0.1:${port}` }))

const makers = {
  'ioredis-mock': () => new (require('ioredis-mock'))(),
  'ioredis 5': () => new (require('ioredis').Redis)(port),
  'ioredis 5, a cluster': () => new (require('ioredis').Cluster)(ports.map((port) => ({ port }))),
  'redis 4': () => require('redis-4').createClient({ url }),
  'redis 4, legacy mode': () => require('redis-4').createClient({ url, legacyMode: true }),
  'redis 4, a cluster': () => require('redis-4').createCluster({ rootNodes }),
  'redis 5': () => require('redis-5').createClient({ url }),
  'redis 5, a pool': () => require('redis-5').createClientPool({ url }),
  'redis 5, a cluster': () => require('redis-5').createCluster({ rootNodes }),
}

async function main() {
  const redis = makers[kind]()
  if (kind.startsWith('redis')) await redis.connect()
  const limits = { hourly: { limit: 20, windowSeconds: 3600 } }
  const { apiKeys } = setUp({ redis, limits })
  const outcomes = {}

  async function use(apiKey) {
    const outcome = await apiKeys.consume(apiKey).then(
      () => 'passed',
      ({ code, cause }) => [code, cause?.message].filter(Boolean).join(': '),
    )
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  }

  for (let number = 0; number < 5; number++) {
    const { plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'Counted',
      permissions: ['READ_GRAPH'],
    })
    const { apiKey } = await apiKeys.verify(plainTextKey)
    await Promise.all(Array.from({ length: 30 }, () => use(apiKey)))
  }
  console.log(JSON.stringify(outcomes))
  process.exit()
}

void main()
