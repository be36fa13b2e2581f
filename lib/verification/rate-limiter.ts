import { ApiKeysError, type LimitState } from '../errors'
import { causeOf } from '../keys/database'
import type { Emitter } from '../keys/emitter'
import type { NamedLimit } from '../keys/limits'
import type { Clock } from './clock'
import { within } from './time-limit'

/** What came of a use. One that is not allowed is not counted. */
export interface Consumption {
  isAllowed: boolean
  limits: readonly LimitState[]
}

/** A key whose uses are counted. */
export interface CountedKey {
  readonly id: string
  /** Where they are counted, if that is in this process: kept here, for a request to look up no more. */
  account?: Account | undefined
}

/** A use of a key, and what it is held against. */
export interface Use {
  key: CountedKey
  limits: readonly NamedLimit[]
  /** How many uses it counts for. */
  cost: number
}

export type RateLimiter = ReturnType<typeof createRateLimiter>

/** A client of `ioredis`, or of `redis` from version 4, for one server or a cluster. */
export interface RedisClient {
  eval(...args: never[]): Promise<unknown>
}

interface RateLimiterParts {
  redis: RedisClient | undefined
  onLimiterOutage: 'refuse' | 'allow'
  emitter: Pick<Emitter, 'emit'>
  clock: Clock
  /** How many keys are remembered; twice as many are counted in this process. */
  cacheSize: number
}

/** How long Redis may take for an answer, and how long nobody waits for one after it took longer. */
const redisLimitMs = 1_000
const restMs = 1_000

/** Counts the uses of keys: in this process, or in a Redis that a fleet shares. */
export function createRateLimiter(parts: RateLimiterParts) {
  const { redis, onLimiterOutage, emitter, clock } = parts
  const consumeHere = createMemoryCounters(clock, 2 * parts.cacheSize)
  const consumeThere = redis && createRedisCounters(redis)
  let outage: { error: unknown; endsAt: number } | undefined

  async function askRedis(use: Use, consume: (use: Use) => Promise<Consumption>) {
    if (outage) {
      const now = clock.monotonic()
      if (now < outage.endsAt) return giveUp(use, outage.error)
      // One finds out whether it is back, and what it asks may wait in the client: the others go without meanwhile.
      outage.endsAt = now + redisLimitMs + restMs
    }

    try {
      const consumption = await within({ limitMs: redisLimitMs }, consume(use))
      outage = undefined
      return consumption
    } catch (failure) {
      const error = causeOf(failure)
      // Of those who wait for one that hangs, each would wait as long. An error that comes in time keeps nobody waiting,
      // and may be that of one server of a cluster, or of a moment.
      const hangs = failure instanceof ApiKeysError
      outage = hangs ? { error, endsAt: clock.monotonic() + restMs } : undefined
      return giveUp(use, error)
    }
  }

  function giveUp({ key: { id } }: Use, cause: unknown): Consumption {
    const isAllowed = onLimiterOutage === 'allow'
    emitter.emit('limiter_unavailable', { apiKeyId: id, isAllowed, error: cause })
    if (!isAllowed) throw new ApiKeysError('limiter_unavailable', { cause })
    return { isAllowed, limits: [] }
  }

  return {
    /**
     * Counts a use of a key towards all of its limits, or towards none if one does not allow it. At once where the counts
     * are in this process. Rejects with `limiter_unavailable` where Redis is away and the app wants that.
     */
    consume(use: Use): Consumption | Promise<Consumption> {
      return consumeThere ? askRedis(use, consumeThere) : consumeHere(use)
    },
  }
}

/** What is counted of one key. */
class Account {
  /** Whether its uses are counted elsewhere from now on. */
  isClosed = false
  #limits: readonly NamedLimit[] = []
  /** For each limit in turn, when its window ends on the monotonic clock, and the uses in it: in one list, read at once. */
  #counts: number[] = []
  /** Of limits that the key had before. They may come back. */
  #former: readonly Window[] = []

  /** Comes to a moment, at which these are the limits. Windows that are over begin anew. */
  advance(limits: readonly NamedLimit[], now: number) {
    if (this.#limits !== limits) this.#change(limits, now)
    for (let place = 0; place < limits.length; place++) {
      if (this.#endOf(place) > now) continue
      this.#counts[2 * place] = now + (limits[place]?.windowSeconds ?? 0) * 1_000
      this.#counts[2 * place + 1] = 0
    }
  }

  allows(cost: number): boolean {
    return this.#limits.every(({ limit }, place) => this.#usedOf(place) + cost <= limit)
  }

  add(cost: number) {
    for (let place = 0; place < this.#limits.length; place++) {
      this.#counts[2 * place + 1] = this.#usedOf(place) + cost
    }
  }

  statesAt(now: number): LimitState[] {
    return this.#limits.map((limit, place) =>
      stateOf(limit, this.#usedOf(place), this.#endOf(place) - now),
    )
  }

  isOver(now: number): boolean {
    return this.#windows().every(({ endsAt }) => endsAt <= now)
  }

  /** A limit of the same name and length goes on with what was counted. */
  #change(limits: readonly NamedLimit[], now: number) {
    const windows = this.#windows().filter(({ endsAt }) => endsAt > now)
    const kept = limits.map(({ name, windowSeconds }) =>
      windows.find((window) => window.name === name && window.windowSeconds === windowSeconds),
    )
    this.#limits = limits
    this.#counts = kept.flatMap((window) => [window?.endsAt ?? -Infinity, window?.used ?? 0])
    this.#former = windows.filter((window) => !kept.includes(window))
  }

  #windows(): Window[] {
    const current = this.#limits.map(({ name, windowSeconds }, place) => ({
      name,
      windowSeconds,
      endsAt: this.#endOf(place),
      used: this.#usedOf(place),
    }))
    return [...current, ...this.#former]
  }

  #endOf(place: number): number {
    return this.#counts[2 * place] ?? -Infinity
  }

  #usedOf(place: number): number {
    return this.#counts[2 * place + 1] ?? 0
  }
}

export type { Account }

interface Window {
  name: string
  windowSeconds: number
  endsAt: number
  used: number
}

/** Counts in this process, the uses of so many keys: when there are more, those go that came first. */
function createMemoryCounters(clock: Clock, maxKeys: number) {
  const accounts = new Map<string, Account>()
  /** Goes round the keys: two for each that comes in, of which those go whose windows are all over. */
  let hand = accounts.entries()

  function sweep(now: number) {
    for (let looked = 0; looked < 2; looked++) {
      const { value, done } = hand.next()
      if (done === true) {
        hand = accounts.entries()
        return
      }
      const [id, account] = value
      if (accounts.size < maxKeys && !account.isOver(now)) continue
      account.isClosed = true
      accounts.delete(id)
    }
  }

  function openAccount(id: string, now: number): Account {
    sweep(now)
    const account = new Account()
    accounts.set(id, account)
    return account
  }

  /** A key has as many of these as it has secrets: all of them lead to one account. */
  function accountOf(key: CountedKey, now: number): Account {
    const { account } = key
    if (account && !account.isClosed) return account

    key.account = accounts.get(key.id) ?? openAccount(key.id, now)
    return key.account
  }

  return function consume({ key, limits, cost }: Use): Consumption {
    // Whole, so that what was added comes out again when it is taken off.
    const now = Math.floor(clock.monotonic())
    const account = accountOf(key, now)
    account.advance(limits, now)

    const isAllowed = account.allows(cost)
    if (isAllowed) account.add(cost)
    return { isAllowed, limits: account.statesAt(now) }
  }
}

/** Counts a use towards all of its limits, or towards none: in one step, so that no other comes between. */
const countAll = `
  local allowed, used, left = 1, {}, {}
  for i, key in ipairs(KEYS) do
    used[i] = tonumber(redis.call('get', key) or 0)
    left[i] = redis.call('pttl', key)
    if used[i] + tonumber(ARGV[1]) > tonumber(ARGV[2 * i]) then allowed = 0 end
  end
  for i, key in ipairs(KEYS) do
    if allowed == 1 then used[i] = redis.call('incrby', key, ARGV[1]) end
    if allowed == 1 and left[i] < 0 then redis.call('pexpire', key, ARGV[2 * i + 1]) end
    if left[i] < 0 then left[i] = tonumber(ARGV[2 * i + 1]) end
  end
  return { allowed, used, left }`

/** What it returns: whether the use is allowed, and of each limit the uses and the milliseconds that are left. */
type Counted = [allowed: Numeral, used: Numeral[], left: Numeral[]]

/** As text where the app has told its client to leave numbers so. */
type Numeral = number | string

type RunScript = (keys: string[], args: string[]) => Promise<unknown>

function createRedisCounters(client: RedisClient) {
  const run = scriptRunnerOf(client)

  return async function consume({ key: { id }, limits, cost }: Use): Promise<Consumption> {
    // In a cluster, what stands in braces has the counters of one key on one server.
    const keys = limits.map(
      ({ name, windowSeconds }) => `express-api-keys:{${id}}:${name}:${windowSeconds}`,
    )
    const sizes = limits.flatMap(({ limit, windowSeconds }) => [limit, windowSeconds * 1_000])
    const [allowed, used, left] = (await run(keys, [cost, ...sizes].map(String))) as Counted
    return {
      isAllowed: Number(allowed) === 1,
      limits: limits.map((limit, place) =>
        stateOf(limit, Number(used[place]), Number(left[place])),
      ),
    }
  }
}

/** How the two kinds of clients take a script. */
interface Ioredis {
  eval(script: string, keyCount: number, ...rest: string[]): Promise<unknown>
}
interface NodeRedis {
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
}

function isIoredis(client: object): client is Ioredis {
  return 'defineCommand' in client
}

function scriptRunnerOf(client: object): RunScript {
  if (isIoredis(client)) {
    return (keys, args) => client.eval(countAll, keys.length, ...keys, ...args)
  }
  // One or the other it is: that was asked when the options were read.
  const nodeRedis = client as NodeRedis
  return (keys, args) => nodeRedis.eval(countAll, { keys, arguments: args })
}

function stateOf(limit: NamedLimit, used: number, resetMs: number): LimitState {
  const { name, windowSeconds } = limit
  const remaining = Math.max(limit.limit - used, 0)
  return { name, limit: limit.limit, windowSeconds, remaining, resetMs }
}
