import { inspect } from 'node:util'

import { closest, distance } from 'fastest-levenshtein'

/** How a function holds its options against its rules, so that a mistake shows at start-up. */
export interface OptionChecks {
  /** Throws a `TypeError` that names the function, the option, the rule and, where it is no secret, what was given. */
  check(option: string, isFine: boolean, rule: string, ...given: [unknown?]): void
  /** Throws a `TypeError` that names the nearest known option. */
  refuseUnknownNames(options: object, known: readonly string[], path?: string): void
}

export function createOptionChecks(caller: string): OptionChecks {
  return {
    check(option, isFine, rule, ...given) {
      if (isFine) return

      const got = given.length > 0 ? `, got ${show(given[0])}` : ''
      throw new TypeError(`${caller}: the option ${option} ${rule}${got}`)
    },

    refuseUnknownNames(options, known, path = '') {
      for (const name of Object.keys(options)) {
        if (!known.includes(name)) {
          throw new TypeError(
            `${caller}: there is no option ${path}${name}.${suggest(name, known)}`,
          )
        }
      }
    },
  }
}

export function show(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  return typeof value === 'string' ? JSON.stringify(value) : inspect(value, { depth: 0 })
}

/** How many known names fit into a message. */
const maxShown = 5

/** Returns what to add to a message about an unknown name: the nearest known one, or all of them if they are few. */
export function suggest(name: unknown, known: readonly string[]): string {
  const given = String(name)
  const nearest = closest(given, known)
  if (distance(given, nearest) <= given.length / 2) return ` Did you mean ${nearest}?`
  return known.length <= maxShown ? ` It must be one of ${known.join(', ')}.` : ''
}
