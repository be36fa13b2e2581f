import type { Background } from '../database/background'
import type { Clock } from '../database/clock'
import { isOutage } from '../database/failures'
import { within } from '../database/time-limit'
import type { Emitter } from './emitter'
import { nameOfOwner, type Owner } from './owner'
import { unprintable } from './unprintable'

/** An owner, with the name by which people know it. */
export type NamedOwner<O extends Owner = Owner> = O & { readonly name: string | null | undefined }

/** The app's option `ownerNames`: returns owners with their names. */
export type AskOwnerNames = (
  owners: readonly Owner[],
) => readonly NamedOwner[] | Promise<readonly NamedOwner[]>

/** Returns the names of owners, by the texts of `nameOfOwner`. An owner without one is missing. It never rejects. */
export type OwnerNames = (owners: Iterable<Owner>) => Promise<ReadonlyMap<string, string>>

/** How long a page does without names after the app has failed to give them. */
const restMs = 10_000

/** How long a name is cached, and of how many owners. */
const maxAgeMs = 60_000
const mostCached = 10_000

const longestName = 100

/** A text of spaces and joiners alone. */
const showsNothing = /^[\s\u200C\u200D]*$/u

/** Creates the function that finds the names of owners. Names are for people alone: no rule, no entry and no log has them. */
export function createOwnerNames(
  ask: AskOwnerNames,
  {
    background,
    clock,
    emitter,
    limitMs = 1_000,
  }: {
    background: Background
    clock: Clock
    emitter: Emitter
    /** How long a page waits for names. */
    limitMs?: number
  },
): OwnerNames {
  /** The names, the oldest first. */
  const cached = new Map<string, { name: string | undefined; endsAt: number }>()
  let restsUntil = -Infinity

  /** Returns the names that the app gives now. They are none if it fails. */
  async function askFor(owners: ReadonlyMap<string, Owner>) {
    try {
      const list = [...owners.values()]
      const answer: unknown = await background.run(() => within({ limitMs }, call(ask, list)))
      if (!Array.isArray(answer)) {
        throw new TypeError('createApiKeys: the option ownerNames must return a list of owners')
      }
      const names = new Map(answer.map((each) => [keyOf(each), readName(each)]))
      cache(owners.keys(), names)
      return names
    } catch (error) {
      restsUntil = clock.monotonic() + restMs
      emitter.emit('error', { error: explain(error, limitMs), notice: 'owner_names' })
      return new Map<string, undefined>()
    }
  }

  /** Caches names, and evicts those that are over. If too many are left, it evicts the oldest. */
  function cache(keys: Iterable<string>, names: ReadonlyMap<string, string | undefined>) {
    const now = clock.monotonic()
    for (const key of keys) {
      cached.delete(key)
      cached.set(key, { name: names.get(key), endsAt: now + maxAgeMs })
    }
    for (const [key, { endsAt }] of cached) {
      if (endsAt > now && cached.size <= mostCached) break
      cached.delete(key)
    }
  }

  return async function ownerNames(given) {
    const owners = new Map([...given].map((owner) => [nameOfOwner(owner), owner]))
    const now = clock.monotonic()
    // The page takes its names before it waits, because other pages may evict them meanwhile.
    const names = new Map<string, string>()
    const unknown = new Map<string, Owner>()
    for (const [key, owner] of owners) {
      const known = cached.get(key)
      if (known === undefined || known.endsAt <= now) unknown.set(key, owner)
      else if (known.name !== undefined) names.set(key, known.name)
    }
    if (unknown.size === 0 || now < restsUntil) return names

    const answered = await askFor(unknown)
    for (const key of unknown.keys()) {
      const name = answered.get(key)
      if (name !== undefined) names.set(key, name)
    }
    return names
  }
}

/** Names the option in the error of an answer that did not come in time. */
function explain(error: unknown, limitMs: number): unknown {
  if (!isOutage(error)) return error
  return new Error(`createApiKeys: the option ownerNames has not answered within ${limitMs} ms`)
}

/** Calls the option. What it throws becomes a rejection. An outage that it meets is not taken for its own delay. */
async function call(ask: AskOwnerNames, owners: readonly Owner[]) {
  try {
    return await ask(owners)
  } catch (error) {
    if (!isOutage(error)) throw error
    throw new Error('createApiKeys: the option ownerNames has failed', { cause: error })
  }
}

function keyOf(named: unknown): string {
  return nameOfOwner(Object(named) as Owner)
}

function readName(named: unknown): string | undefined {
  const { name } = Object(named) as { name?: unknown }
  if (typeof name !== 'string') return undefined
  const text = name.replaceAll(unprintable, '').trim()
  return showsNothing.test(text) ? undefined : Array.from(text).slice(0, longestName).join('')
}
