import { limitStateOf } from '../keys/limits'
import type { RedisClient } from '../options'
import type { Consumption, Use } from './memory'

/**
 * Counts a use towards all of its limits, or towards none, in one step. A use that costs nothing is not counted: it begins no window. The reply is text: clients and mocks convert the
 * numbers and arrays of a script in different ways, by options of the app's.
 */
const countAll = `
  local allowed, used, left, states = 1, {}, {}, {}
  for i, key in ipairs(KEYS) do
    used[i] = tonumber(redis.call('get', key) or 0)
    left[i] = redis.call('pttl', key)
    if used[i] + tonumber(ARGV[1]) > tonumber(ARGV[2 * i]) then allowed = 0 end
  end
  local counts = allowed == 1 and tonumber(ARGV[1]) > 0
  for i, key in ipairs(KEYS) do
    if counts then used[i] = redis.call('incrby', key, ARGV[1]) end
    if counts and left[i] < 0 then redis.call('pexpire', key, ARGV[2 * i + 1]) end
    if left[i] < 0 then left[i] = tonumber(ARGV[2 * i + 1]) end
    states[i] = string.format('%.0f %.0f', used[i], left[i])
  end
  return allowed .. ' ' .. table.concat(states, ' ')`

/** Counts uses in Redis. */
export type RedisCounters = ReturnType<typeof createRedisCounters>

/** Counts uses in a Redis that all processes share. */
export function createRedisCounters(given: RedisClient) {
  const client: AnyClient = given
  const run = scriptRunnerOf(client)
  const isCluster = Array.isArray(client.slots)

  return {
    /** True if the client has no connection, and opens none by itself. */
    get isClosed() {
      return client.isOpen === false || client.status === 'end'
    },

    /** Returns a name of the server that has the counts of a key: its address, or the slot if no address is known. */
    serverOf({ id }: Use['key']): string | number {
      if (!isCluster) return 'the only one'
      const slot = slotOf(id)
      const servers = client.slots?.[slot]
      return (servers && 'master' in servers ? servers.master?.address : servers?.[0]) ?? slot
    },

    /** Counts a use in Redis. */
    async consume({ key: { id }, limits, cost }: Use): Promise<Consumption> {
      // In a cluster, the braces keep all counts of a key on one server.
      const keys = limits.map(
        ({ name, windowSeconds }) => `express-api-keys:{${id}}:${name}:${windowSeconds}`,
      )
      const sizes = limits.flatMap(({ limit, windowSeconds }) => [limit, windowSeconds * 1_000])
      const reply = await run(keys, [cost, ...sizes].map(String))
      const [allowed, ...states] = numbersOf(reply, 1 + 2 * limits.length)
      return {
        isAllowed: allowed === 1,
        limits: limits.map((limit, place) =>
          limitStateOf(limit, states[2 * place] ?? 0, states[2 * place + 1] ?? 0),
        ),
      }
    },
  }
}

/** The members of all kinds of clients. Each kind has some of them. */
interface AnyClient {
  eval(...args: unknown[]): Promise<unknown>
  readonly options?: { legacyMode?: boolean } | undefined
  /** The usual commands of a client of `redis` 4 that is in its legacy mode. */
  readonly v4?: AnyClient
  /** Only in `redis`. */
  readonly isOpen?: boolean
  /** Only in `ioredis`. */
  readonly status?: string
  readonly defineCommand?: unknown
  /** The known slots of a cluster, by their numbers. `ioredis` has the addresses of the servers, the primary first. */
  readonly slots?: readonly (readonly string[] | { master?: { address?: string } } | undefined)[]
  /** Only in clusters of `redis`. */
  sendCommand?(firstKey: string, isReadonly: boolean, command: string[]): Promise<unknown>
}

type RunScript = (keys: string[], args: string[]) => Promise<unknown>

/** Returns the function that runs the script. The options were checked, so the client is of a known kind. */
function scriptRunnerOf(given: AnyClient): RunScript {
  // In the legacy mode of `redis` 4, the client's own `eval` takes a callback and returns nothing.
  const client = (given.options?.legacyMode === true ? given.v4 : undefined) ?? given
  if ('defineCommand' in client) {
    return (keys, args) => client.eval(countAll, keys.length, ...keys, ...args)
  }
  if (Array.isArray(client.slots)) {
    // A cluster of `redis` 4 sends the script of `eval` to any of its servers.
    return async (keys, args) => {
      const command = ['EVAL', countAll, `${keys.length}`, ...keys, ...args]
      return client.sendCommand?.(keys[0] ?? '', false, command)
    }
  }
  return (keys, args) => client.eval(countAll, { keys, arguments: args })
}

/** Reads the reply of the script. It may be bytes, and a mock may return anything. */
function numbersOf(reply: unknown, count: number): number[] {
  const text = typeof reply === 'string' || Buffer.isBuffer(reply) ? String(reply) : ''
  const numbers = text.split(' ').map(Number)
  if (text !== '' && numbers.length === count && numbers.every(Number.isFinite)) return numbers

  throw new Error(
    "The Redis client returned no reply that the limits can be read from. Pass a client of ioredis, or of redis from version 4, that runs Lua scripts as Redis does, and returns a script's text as text.",
  )
}

/** Returns the slot of the counts of a key (Redis Cluster specification, "Key distribution model"): CRC-16/XMODEM. */
function slotOf(id: string): number {
  let crc = 0
  for (const byte of Buffer.from(id)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc & 0x80_00) === 0 ? crc << 1 : (crc << 1) ^ 0x10_21
    }
  }
  return crc & 0x3f_ff
}
