import type { Clock } from '../database/clock'
import type { LimitState } from '../errors'
import { limitStateOf, type NamedLimit } from '../keys/limits'

/** The answer to a use. A use that is not allowed is not counted. */
export interface Consumption {
  isAllowed: boolean
  limits: readonly LimitState[]
}

/** A key whose uses are counted against limits. */
export interface LimitedKey {
  readonly id: string
  /** Its counts, if they are in this process. They are kept here, so that a request searches no map. */
  account?: Account | undefined
}

/** A use of a key, and the limits that it counts towards. */
export interface Use {
  key: LimitedKey
  limits: readonly NamedLimit[]
  /** The number of uses that it counts for. */
  cost: number
}

/** The counts of one key. */
export interface Account {
  /** True once another account counts the uses of the key. */
  isClosed: boolean
  /** The limits that the windows are of, in their order. */
  limits: readonly NamedLimit[]
  windows: Window[]
  /** The windows of limits that the key had before. The limits may come back. */
  former: Window[]
}

/** The uses of a key under a limit, until a moment of the monotonic clock. */
interface Window {
  limit: NamedLimit
  endsAt: number
  used: number
}

/** Counts uses in this process, for at most `maxKeys` keys. Further keys evict the keys that came first. `read` counts nothing. */
export function createMemoryCounters(clock: Clock, maxKeys: number) {
  const accounts = new Map<string, Account>()
  /** Goes round the keys. For each new key it looks at two keys, and evicts them if their windows are over. */
  let hand = accounts.entries()

  function sweep(now: number) {
    for (let looked = 0; looked < 2; looked++) {
      const { value, done } = hand.next()
      if (done === true) {
        hand = accounts.entries()
        return
      }
      const [id, account] = value
      if (accounts.size < maxKeys && !isOver(account, now)) continue
      account.isClosed = true
      accounts.delete(id)
    }
  }

  function openAccount(id: string, now: number): Account {
    sweep(now)
    const account = { isClosed: false, limits: [], windows: [], former: [] }
    accounts.set(id, account)
    return account
  }

  /** Each secret of a key is a `LimitedKey` of its own. All of them share one account. */
  function accountOf(key: LimitedKey, now: number): Account {
    const { account } = key
    if (account && !account.isClosed) return account

    key.account = accounts.get(key.id) ?? openAccount(key.id, now)
    return key.account
  }

  function read({ key, limits }: Pick<Use, 'key' | 'limits'>): LimitState[] {
    const now = Math.floor(clock.monotonic())
    const account = accounts.get(key.id)
    const windows = account ? windowsOf(account).filter(({ endsAt }) => endsAt > now) : []
    return limits.map((limit) => {
      const window = windows.find((one) => isOfLimit(one, limit))
      const resetMs = window ? window.endsAt - now : limit.windowSeconds * 1_000
      return limitStateOf(limit, window?.used ?? 0, resetMs)
    })
  }

  function consume({ key, limits, cost }: Use): Consumption {
    // A whole number, because subtracting a fraction would not give back exactly what was added.
    const now = Math.floor(clock.monotonic())
    const account = accountOf(key, now)
    if (account.limits !== limits) changeLimits(account, limits, now)
    const { windows } = account
    let isAllowed = true
    for (const window of windows) {
      if (window.endsAt <= now) {
        window.endsAt = now + window.limit.windowSeconds * 1_000
        window.used = 0
      }
      isAllowed &&= window.used + cost <= window.limit.limit
    }
    if (isAllowed) for (const window of windows) window.used += cost
    return {
      isAllowed,
      limits: windows.map(({ limit, used, endsAt }) => limitStateOf(limit, used, endsAt - now)),
    }
  }

  return { consume, read }
}

/** Applies other limits. A limit of the same name and length keeps its count. */
function changeLimits(account: Account, limits: readonly NamedLimit[], now: number) {
  const known = windowsOf(account).filter(({ endsAt }) => endsAt > now)
  const kept = limits.map((limit) => known.find((window) => isOfLimit(window, limit)))
  account.limits = limits
  account.windows = limits.map((limit, place) => ({
    limit,
    endsAt: kept[place]?.endsAt ?? -Infinity,
    used: kept[place]?.used ?? 0,
  }))
  account.former = known.filter((window) => !kept.includes(window))
}

/** A limit of the same name and length has the same count, whatever it allows. */
function isOfLimit({ limit }: Window, { name, windowSeconds }: NamedLimit): boolean {
  return limit.name === name && limit.windowSeconds === windowSeconds
}

function windowsOf({ windows, former }: Account): Window[] {
  return [...windows, ...former]
}

function isOver(account: Account, now: number): boolean {
  return windowsOf(account).every(({ endsAt }) => endsAt <= now)
}
