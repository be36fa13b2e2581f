import v = require('valibot')

import { show, suggest, type OptionChecks } from '../../models/option-checks'
import { isListOfNames } from './grantable'
import { isObject, pathTo } from './parse-input'
import type { GivenPermission } from './permissions'

/** The text that shows a permission to users, and the other permissions that a key has with it. */
export interface PermissionDescription<Permission extends string = string> {
  description: string
  /** The permissions that a key has with this one, and all that those imply; `'*'` for all permissions. */
  implies?: readonly Permission[] | '*' | undefined
}

type DescribedNames = Readonly<Record<string, string | PermissionDescription>>

/** The rules of the option `permissions`. */
export const permissionsOption = v.pipe(
  v.custom<readonly string[] | DescribedNames>(
    isObject,
    'must be a list of names, or an object of names and descriptions',
  ),
  v.rawCheck(({ dataset: { value }, addIssue }) => {
    for (const [name, description] of Array.isArray(value) ? [] : Object.entries(Object(value))) {
      const message = faultOfDescription(description, Object.keys(Object(value)))
      if (message !== null) addIssue({ path: pathTo(Object(value), name), message })
    }
  }),
  v.transform(readPermissions),
  v.check(
    (all) => all.every(({ name }) => isScopeToken(name)),
    ({ input }) => {
      const wrong = input.find(({ name }) => !isScopeToken(name))?.name
      return `must have names of 1 to 100 printable ASCII characters without space, " and \\, got ${show(wrong)}`
    },
  ),
  v.check(
    (all) => new Set(all.map(({ name }) => name)).size === all.length,
    'must not repeat a name',
  ),
  v.check((all) => all.length > 0, 'must name at least one'),
)

function faultOfDescription(value: unknown, names: readonly string[]): string | null {
  if (typeof value === 'string') return null
  const { description, implies, ...others } = Object(value) as Record<string, unknown>
  if (!isObject(value) || typeof description !== 'string') {
    return `must be a description, or an object with one, got ${show(value)}`
  }
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) {
    return `has no member ${unknown}.${suggest(unknown, ['description', 'implies'])}`
  }
  if (implies === undefined || implies === '*') return null
  if (!isListOfNames(implies))
    return `must imply a list of permissions, or '*', got ${show(implies)}`

  const strange = implies.find((name) => !names.includes(name))
  return strange === undefined
    ? null
    : `implies ${show(strange)}, which is not one of the permissions.${suggest(strange, names)}`
}

function readPermissions(given: readonly string[] | DescribedNames): readonly GivenPermission[] {
  if (Array.isArray(given)) {
    return (given as readonly string[]).map((name) => ({ name, description: null, implies: [] }))
  }
  const names = Object.keys(given)
  return Object.entries(given as DescribedNames).map(([name, value]) => {
    if (typeof value === 'string') return { name, description: value, implies: [] }
    const { description, implies = [] } = value
    return { name, description, implies: implies === '*' ? names : implies }
  })
}

/** The rule of the option `formerPermissions`. `readFormer` checks it together with the permissions. */
export const formerPermissionsOption = v.optional(
  v.custom<Readonly<Record<string, string | null>>>(
    (value) => isObject(value) && !Array.isArray(value),
    'must be an object of former names and their new names',
  ),
  {},
)

/** Returns the name of today for each former name, or `null` if its permission was dropped. Refuses names that lead nowhere. */
export function readFormer(
  former: Readonly<Record<string, unknown>>,
  permissions: readonly GivenPermission[],
  checks: OptionChecks,
): ReadonlyMap<string, string | null> {
  const names = permissions.map(({ name }) => name)
  const given = new Map(Object.entries(former))

  function check(name: string, isFine: boolean, rule: string) {
    checks.check(`formerPermissions.${name}`, isFine, rule)
  }

  /** Returns what a former name stands for: another name, or `null`. */
  function targetOf(name: string): string | null {
    const target = given.get(name)
    if (target === null) return null
    if (typeof target !== 'string') {
      check(name, false, `must be the new name, or null if it was dropped, got ${show(target)}`)
      return null
    }
    const others = [...names, ...given.keys()].filter((other) => other !== name)
    const hint = suggest(target, others)
    const isKnown = names.includes(target) || given.has(target)
    check(name, isKnown, `is ${show(target)}, which is not one of the permissions.${hint}`)
    return target
  }

  /** Follows a name to the name of today. */
  function follow(name: string): string | null {
    const path = [name]
    let next = targetOf(name)
    while (next !== null && !names.includes(next)) {
      const circle = [...path, next].join(', ')
      const isNew = !path.includes(next)
      check(name, isNew, `leads nowhere, because these names go round in a circle: ${circle}`)
      path.push(next)
      next = targetOf(next)
    }
    return next
  }

  for (const name of given.keys()) {
    check(name, isScopeToken(name), 'is not a name that a permission can have')
    const rule = 'is also one of the permissions of today: leave it out of one of the two options'
    check(name, !names.includes(name), rule)
  }
  return new Map([...given.keys()].map((name) => [name, follow(name)]))
}

/** True for a scope token (RFC 6749, section 3.3). Challenges name permissions in `scope`. */
export function isScopeToken(name: unknown): name is string {
  return typeof name === 'string' && /^[\x21\x23-\x5b\x5d-\x7e]{1,100}$/.test(name)
}
