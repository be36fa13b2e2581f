import v = require('valibot')

import { show, suggest } from '../../models/option-checks'
import { refuseRepeats } from './fields'
import type { GrantableContext } from './grantable'
import { createInterner } from './interner'
import { deepFreeze, isPlainObject } from './metadata'
import type { Owner } from './owner'
import { documentedAs, documentedLike, isObject, readInput } from './parse-input'

/**
 * The ids to which a key is bound, by the types of the app's resources. A type that is left out is not bound. An empty list stands for no
 * resource of its type.
 */
export type Resources<Type extends string = string> = {
  readonly [Name in Type]?: readonly string[]
}

/** The resources that a request is about, an id for each type. */
export type RequestedResources<Type extends string = string> = {
  readonly [Name in Type]?: string | undefined
}

/**
 * Returns true if an owner may bind a key to these ids. It is asked about ids that a key does not have yet, and about all ids of a key that
 * gets another owner.
 */
export type MayBind<O extends Owner = Owner> = (
  ids: readonly string[],
  owner: O,
  context: GrantableContext,
) => boolean | null | undefined | Promise<boolean | null | undefined>

/** The types of the app's resources, each with the function that is asked about its ids; `true` if any ids may be bound. */
export type ResourceTypes = ReadonlyMap<string, MayBind | true>

/** The option `resources` of the app. */
export const resourcesOption = v.pipe(
  v.custom<object>(
    (value) => isObject(value) && !Array.isArray(value),
    'must be an object of types of resources, each with true or a function',
  ),
  v.transform((value) => new Map<string, unknown>(Object.entries(value))),
  v.check(({ size }) => size > 0, 'must name at least one type'),
  v.map(
    v.custom<string>(
      // A key that is not bound to a type has no list of that name.
      (name) => /^[A-Za-z][\w-]{0,31}$/.test(String(name)) && !(String(name) in {}),
      'must be called by a letter, and at most 31 more letters, digits, "_" and "-", not by a member of all objects',
    ),
    v.custom<MayBind | true>(
      (value) => value === true || typeof value === 'function',
      'must be true or a function',
    ),
  ),
)

/**
 * Returns the answer of an app's function for ids of a type. Throws a `TypeError` if it is neither true nor false: a list, for example of
 * the ids that may be bound, would count as true.
 */
export function readMayBind(type: string, answer: unknown): boolean {
  if (answer === undefined || answer === null) return false
  if (typeof answer === 'boolean') return answer
  throw new TypeError(
    `createApiKeys: the option resources.${type} must return true or false, got ${show(answer)}`,
  )
}

/** A set of so many ids takes 8 kB of each process that has the key in its cache. */
const maxIds = 100

/** In UTF-8, as JSON without spaces. The table has the same limit. */
const maxBytes = 16_384

const ids = v.pipe(
  v.array(
    v.pipe(
      readInput(toId, 'must be text of 1 to 255 characters, well-formed Unicode without NUL'),
      documentedAs({ type: 'string', minLength: 1, maxLength: 255 }),
    ),
    'must be a list of ids',
  ),
  refuseRepeats(),
  documentedAs({ uniqueItems: true }),
)

/** Makes the schema of what a key is bound to. Types and ids are sorted, so that equal bindings look equal; `null` for none. */
export function resourceLists(types: readonly string[]) {
  return v.pipe(
    v.custom<object>(isPlainObject, 'must be a JSON object of lists of ids, by their types'),
    // The length comes first, because a body has room for thousands of ids.
    v.check((value) => countIds(value) <= maxIds, `must have at most ${maxIds} ids in all`),
    // Valibot's `record` passes over names such as `constructor`.
    v.transform((value) => new Map<string, unknown>(Object.entries(value))),
    v.map(v.picklist(types, `is not one of the types ${types.join(', ')}`), ids),
    v.transform((lists): Resources | null => {
      const sorted = [...lists].toSorted(([a], [b]) => (a < b ? -1 : 1))
      return lists.size === 0
        ? null
        : Object.fromEntries(sorted.map(([type, list]) => [type, list.toSorted()]))
    }),
    v.check(
      (value) => Buffer.byteLength(JSON.stringify(value)) <= maxBytes,
      `must have at most ${maxBytes} bytes as JSON`,
    ),
    documentedLike(v.partial(v.object(Object.fromEntries(types.map((type) => [type, ids]))))),
  )
}

function countIds(lists: object): number {
  return Object.values(lists).reduce<number>(
    (count, list) => count + (Array.isArray(list) ? list.length : 0),
    0,
  )
}

/** Returns an id as text, in which ids are compared: `7` is `'7'`, and not `'07'`. Returns `null` for what is no id. */
export function toId(value: unknown): string | null {
  const isText =
    typeof value === 'string' || typeof value === 'bigint' || Number.isSafeInteger(value)
  const id = isText ? String(value) : ''
  return id.length >= 1 && id.length <= 255 && !id.includes('\0') && id.isWellFormed() ? id : null
}

/** The resources to which a key is bound, in the form in which requests are compared with them. */
export interface Bindings {
  /** The form that the app gets; `null` for a key that is not bound. */
  readonly resources: Resources | null
  /** The same as sets. A list, because a request goes through all of it. */
  readonly sets: readonly { readonly type: string; readonly ids: ReadonlySet<string> }[]
  /** The types of the app's resources. */
  readonly types: readonly string[]
}

/** Makes the function that reads the bindings of a key from JSON. Keys with equal bindings share one frozen object. */
export function createBindingsReader(types: readonly string[]) {
  const unbound: Bindings = deepFreeze({ resources: null, sets: [], types })
  const intern = createInterner((json) => readBindings(JSON.parse(json), types))

  return function read(json: string | null | undefined): Bindings {
    return json ? intern(json) : unbound
  }
}

/** Reads bindings. A program may have written them by SQL, so that a list which is none stands for no resource. */
function readBindings(value: unknown, types: readonly string[]): Bindings {
  const lists = Object.entries(Object(value)).map(([type, list]): [string, string[]] => [
    type,
    (Array.isArray(list) ? list : []).map(toId).filter((id) => id !== null),
  ])
  return deepFreeze({
    resources: lists.length === 0 ? null : Object.fromEntries(lists),
    sets: lists.map(([type, list]) => ({ type, ids: new Set(list) })),
    types,
  })
}

/** True if a key may be used for a resource. Throws a `TypeError` for a type that the app does not have. */
export function allows({ sets, types }: Bindings, type: string, id: string): boolean {
  if (!types.includes(type)) {
    throw new TypeError(
      `allows: ${show(type)} is not one of the app's types of resources.${suggest(type, types)}`,
    )
  }
  const bound = sets.find((set) => set.type === type)
  return bound === undefined || includes(bound.ids, id)
}

/** True if a key may be used for the resources of a request, which must name one of each type to which the key is bound. */
export function allowsAll(
  { sets }: Bindings,
  requested: Readonly<Record<string, unknown>>,
): boolean {
  for (const { type, ids } of sets) {
    if (!includes(ids, requested[type])) return false
  }
  return true
}

function includes(ids: ReadonlySet<string>, id: unknown): boolean {
  const text = typeof id === 'string' ? id : toId(id)
  return text !== null && ids.has(text)
}
