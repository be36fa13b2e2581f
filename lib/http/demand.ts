import { show, suggest } from '../../models/option-checks'
import { MissingPermissionError, type ApiKeysError } from '../errors'
import { isListOfNames } from '../keys/grantable'
import type { PermissionSet, Permissions } from '../keys/permissions'

/**
 * The permissions that a request needs: one, all of a list, or any of several. `{ any: ['ADMIN', { all: ['READ', 'WRITE'] }] }` lets a
 * key through that holds `ADMIN`, and a key that holds both others.
 */
export type Demand<Permission extends string = string> =
  | Permission
  | readonly Permission[]
  | { readonly any: readonly (Permission | { readonly all: readonly Permission[] })[] }

/** Returns the refusal of a key whose permissions lack what a guard demands; `null` if the key may pass. */
export type PermissionCheck = (held: PermissionSet) => ApiKeysError | null

/** Makes the check of a demand. Throws a `TypeError` if the demand names nothing, or what the app does not have. */
export function createPermissionCheck(
  caller: string,
  demand: unknown,
  { names }: Pick<Permissions, 'names'>,
): PermissionCheck {
  const alternatives = readAlternatives(caller, demand)
  checkNames(caller, alternatives, names)
  const [first = [], ...others] = alternatives
  const [only = ''] = first
  if (others.length > 0) return (held) => lacksAll(held, alternatives)
  if (first.length > 1) return (held) => (held.hasAll(first) ? null : lacks(held, first))
  return (held) => (held.has(only) ? null : lacks(held, first))
}

/** Returns the lists of permissions of which a key needs one. */
function readAlternatives(caller: string, demand: unknown): readonly (readonly string[])[] {
  const { any, ...others } = isObject(demand) ? (demand as { any?: unknown }) : {}
  if (!isObject(demand) || Array.isArray(demand)) return [[demand].flat() as string[]]

  const [unknown] = Object.keys(others)
  if (!Array.isArray(any) || unknown !== undefined) {
    throw new TypeError(
      `${caller}: takes a permission, a list of permissions, or { any: [...] }, got ${show(demand)}`,
    )
  }
  return any.map((each: unknown) => {
    if (!isObject(each)) return [each as string]
    const { all, ...others } = each as { all?: unknown }
    if (isListOfNames(all) && Object.keys(others).length === 0) return all.slice()
    throw new TypeError(
      `${caller}: any takes permissions, and lists of them as { all: [...] }, got ${show(each)}`,
    )
  })
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** It suggests the nearest name. */
function checkNames(
  caller: string,
  alternatives: readonly (readonly string[])[],
  known: readonly string[],
) {
  if (alternatives.length === 0 || alternatives.some(({ length }) => length === 0)) {
    throw new TypeError(`${caller}: needs at least one permission`)
  }
  for (const name of alternatives.flat()) {
    if (!known.includes(name)) {
      throw new TypeError(
        `${caller}: ${show(name)} is not one of the app's permissions.${suggest(name, known)}`,
      )
    }
  }
}

function lacks(held: PermissionSet, needed: readonly string[]): ApiKeysError {
  const missing = needed.filter((name) => !held.has(name))
  return new MissingPermissionError(needed, missing)
}

/** The refusal names the alternative that lacks the fewest permissions, and lists all alternatives. */
function lacksAll(
  held: PermissionSet,
  alternatives: readonly (readonly string[])[],
): ApiKeysError | null {
  // A function for each alternative would be made at every request.
  for (const needed of alternatives) if (held.hasAll(needed)) return null

  const missing = alternatives.map((needed) => needed.filter((name) => !held.has(name)))
  const fewest = Math.min(...missing.map(({ length }) => length))
  const nearest = missing.findIndex(({ length }) => length === fewest)
  return new MissingPermissionError(
    alternatives[nearest] ?? [],
    missing[nearest] ?? [],
    alternatives,
  )
}
