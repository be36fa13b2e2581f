import type { Background } from '../database/background'
import type { Clock } from '../database/clock'
import { isOutage } from '../database/failures'
import { within } from '../database/time-limit'
import type { Emitter } from './emitter'
import { nameOfOwner, type Owner } from './owner'

/** An owner, with the name by which people know it. */
export type NamedOwner<O extends Owner = Owner> = O & { readonly name: string | null | undefined }

/** The app's option `ownerNames`: returns owners with their names. */
export type AskOwnerNames = (
  owners: readonly Owner[],
) => readonly NamedOwner[] | Promise<readonly NamedOwner[]>

/** Returns the names of owners, by the texts of `nameOfOwner`. An owner without one is missing. It never rejects. */
export type OwnerNames = (owners: Iterable<Owner>) => Promise<ReadonlyMap<string, string>>

/** How long a page waits for names, and how long it does without them after the app has failed to give them. */
const limitMs = 1_000
const restMs = 10_000

/** How long a name is cached, and of how many owners. */
const maxAgeMs = 60_000
const mostCached = 10_000

const longestName = 100

/** Characters that could turn a text, hide it, or end a line. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** Creates the function that finds the names of owners. Names are for people alone: no rule, no entry and no log has them. */
export function createOwnerNames(
  ask: AskOwnerNames,
  { background, clock, emitter }: { background: Background; clock: Clock; emitter: Emitter },
): OwnerNames {
  const cached = new Map<string, { name: string | undefined; endsAt: number }>()
  let restsUntil = -Infinity

  async function askFor(owners: ReadonlyMap<string, Owner>) {
    try {
      const list = [...owners.values()]
      const answer: unknown = await background.run(() => within({ limitMs }, call(ask, list)))
      if (!Array.isArray(answer)) {
        throw new TypeError('createApiKeys: the option ownerNames must return a list of owners')
      }
      const names = new Map(answer.map((each) => [keyOf(each), readName(each)]))
      if (cached.size > mostCached) cached.clear()
      const endsAt = clock.monotonic() + maxAgeMs
      for (const key of owners.keys()) cached.set(key, { name: names.get(key), endsAt })
    } catch (error) {
      restsUntil = clock.monotonic() + restMs
      emitter.emit('error', { error: explain(error), notice: 'owner_names' })
    }
  }

  return async function ownerNames(given) {
    const owners = new Map([...given].map((owner) => [nameOfOwner(owner), owner]))
    const now = clock.monotonic()
    const isKnown = (key: string) => (cached.get(key)?.endsAt ?? -Infinity) > now
    const unknown = new Map([...owners].filter(([key]) => !isKnown(key)))
    if (unknown.size > 0 && now >= restsUntil) await askFor(unknown)
    return new Map(
      [...owners.keys()].flatMap((key) => {
        const name = cached.get(key)?.name
        return name === undefined ? [] : [[key, name]]
      }),
    )
  }
}

/** Names the option in the error of an answer that did not come in time. */
function explain(error: unknown): unknown {
  if (!isOutage(error)) return error
  const message = `createApiKeys: the option ownerNames has not answered within ${limitMs} ms`
  return new Error(message)
}

/** Calls the option. What it throws becomes a rejection. */
async function call(ask: AskOwnerNames, owners: readonly Owner[]) {
  return ask(owners)
}

function keyOf(named: unknown): string {
  return nameOfOwner(Object(named) as Owner)
}

function readName(named: unknown): string | undefined {
  const { name } = Object(named) as { name?: unknown }
  if (typeof name !== 'string') return undefined
  const text = name.replaceAll(unprintable, '').trim()
  return text === '' ? undefined : Array.from(text).slice(0, longestName).join('')
}
