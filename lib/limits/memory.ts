import type { LimitState } from '../errors'
import { limitStateOf, type NamedLimit } from '../keys/limits'
import type { Clock } from '../database/clock'

/** What came of a use. A use that is not allowed is not counted. */
export interface Consumption {
  isAllowed: boolean
  limits: readonly LimitState[]
}

/** A key whose uses are counted. */
export interface LimitedKey {
  readonly id: string
  /** Its counts, if they are in this process. They are kept here, so that a request makes no lookup. */
  account?: Account | undefined
}

/** A use of a key, and the limits that it counts towards. */
export interface Use {
  key: LimitedKey
  limits: readonly NamedLimit[]
  /** How many uses it counts for. */
  cost: number
}

/** The counts of one key. */
export class Account {
  /** True once another account counts the uses of the key. */
  isClosed = false
  #limits: readonly NamedLimit[] = []
  /** For each limit in turn: when its window ends by the monotonic clock, and the uses in it. One list is fast to read. */
  #counts: number[] = []
  /** The windows of limits that the key had before. The limits may come back. */
  #former: readonly Window[] = []

  /** Applies the limits that hold at a moment. Windows that are over begin anew. */
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
      limitStateOf(limit, this.#usedOf(place), this.#endOf(place) - now),
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

interface Window {
  name: string
  windowSeconds: number
  endsAt: number
  used: number
}

/** Counts uses in this process, for at most `maxKeys` keys. Further keys evict those that came first. */
export function createMemoryCounters(clock: Clock, maxKeys: number) {
  const accounts = new Map<string, Account>()
  /** Goes round the keys. For each new key it looks at two, and evicts those whose windows are all over. */
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

  /** Each secret of a key has a `LimitedKey` of its own. All of them share one account. */
  function accountOf(key: LimitedKey, now: number): Account {
    const { account } = key
    if (account && !account.isClosed) return account

    key.account = accounts.get(key.id) ?? openAccount(key.id, now)
    return key.account
  }

  return function consume({ key, limits, cost }: Use): Consumption {
    // A whole number, because subtracting a fraction would not give back exactly what was added.
    const now = Math.floor(clock.monotonic())
    const account = accountOf(key, now)
    account.advance(limits, now)

    const isAllowed = account.allows(cost)
    if (isAllowed) account.add(cost)
    return { isAllowed, limits: account.statesAt(now) }
  }
}
