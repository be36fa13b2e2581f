import { inspect } from 'node:util'

import { closest, distance } from 'fastest-levenshtein'

/** Checks the options of a function, so that a mistake shows at start-up. */
export interface OptionChecks {
  /** Throws a `TypeError` that names the function, the option, the rule and, unless it is a secret, the given value. */
  check(option: string, isFine: boolean, rule: string, ...given: [unknown?]): void
  /** Throws a `TypeError` that names the nearest known option. */
  refuseUnknownNames(options: object, known: readonly string[], path?: string): void
}

/** Returns the checks of a function, which their messages name. */
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

/** Shows a value in a message. */
export function show(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  return typeof value === 'string' ? JSON.stringify(value) : inspect(value, { depth: 0 })
}

/** More known names than these do not fit into a message. */
const maxShown = 5

/** Returns a sentence for a message about an unknown name: the nearest known name, or all known names if they are few. */
export function suggest(name: unknown, known: readonly string[]): string {
  if (known.length === 0) return ' There are none.'
  const nearest = typeof name === 'string' ? nearestTo(name, known) : undefined
  if (nearest !== undefined) return ` Did you mean ${nearest}?`
  return known.length <= maxShown ? ` It must be one of ${known.join(', ')}.` : ''
}

/** Returns the known name that is most like an unknown name; `undefined` if none is like it. */
export function nearestTo(name: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined
  const nearest = closest(name, known)
  return distance(name, nearest) <= name.length / 2 ? nearest : undefined
}

/** Returns the last argument of a call. Refuses a value that is no object: it is a mistake, and would go unheeded. */
export function optionsOf<Options extends object>(options: Options | undefined): Partial<Options> {
  if (options === undefined) return {}
  if (typeof options === 'object' && options !== null && !Array.isArray(options)) return options
  throw new TypeError('the options of a call must be an object')
}
