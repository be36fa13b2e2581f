import { setImmediate } from '../database/background'
import { InvalidInputError, type InputFault } from '../errors'
import { mostKeys } from '../keys/fields'
import type { NewKey } from '../keys/input'
import { nameOfOwner } from '../keys/owner'
import type { Circumstances, Parts } from './calls'
import * as policies from './policies'

/** How many keys are checked at once: so few that other requests do not wait, nor too many ask `grantable`. */
const checkedAtOnce = 16

/** The most faults that are reported. A longer list helps no reader. */
export const maxFaults = 100

/** Parses the keys and applies the policies of the app. Throws an error that lists the faults of all keys. */
export async function parseKeys(
  parts: Parts,
  given: unknown,
  circumstances: Circumstances,
): Promise<NewKey[]> {
  if (!Array.isArray(given)) refuse('#/apiKeys', 'must be a list of API keys')
  if (given.length > mostKeys) refuse('#/apiKeys', `must have at most ${mostKeys} API keys`)

  const asking = { ...parts, grantable: askedOnce(parts.grantable) }
  const keys: NewKey[] = []
  const faults: InputFault[] = []
  for (let first = 0; first < given.length; first += checkedAtOnce) {
    await nextTurn()
    // `slice` keeps the holes of a list, and `map` passes over them.
    const some = Array.from<unknown>(given.slice(first, first + checkedAtOnce))
    await Promise.all(
      some.map(async (input, index) => {
        const place = first + index
        try {
          const key = parts.parse.newKeyOf(input)
          await policies.refuseNewKey(asking, key, circumstances)
          keys[place] = key
        } catch (error) {
          if (!(error instanceof InvalidInputError)) throw error
          faults.push(...error.errors.map((fault) => faultAt(place, fault)))
        }
      }),
    )
    if (faults.length >= maxFaults) break
  }
  if (faults.length > 0) throw new InvalidInputError(faults.slice(0, maxFaults))
  return keys
}

function refuse(pointer: string, message: string): never {
  throw new InvalidInputError([{ pointer, message }])
}

/** Returns the fault of a key as a fault of the list. */
export function faultAt(place: number, { pointer, message }: InputFault): InputFault {
  return { pointer: `#/apiKeys/${place}${pointer.slice(1)}`, message }
}

/** Gives other work of the process its turn. */
export async function nextTurn() {
  await new Promise<void>((resolve) => {
    setImmediate(resolve)
  })
}

/** Makes a `grantable` that asks the app once for each owner. */
function askedOnce(grantable: Parts['grantable']): Parts['grantable'] {
  if (!grantable) return undefined

  const answers = new Map<string, ReturnType<typeof grantable>>()
  return (owner, context) => {
    const name = nameOfOwner(owner)
    const answer = answers.get(name) ?? grantable(owner, context)
    answers.set(name, answer)
    return answer
  }
}
