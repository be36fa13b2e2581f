/** The data that an app keeps with a key: a JSON object. */
export type Metadata = Readonly<Record<string, JsonValue>>

/** A value that JSON can hold. */
export type JsonValue =
  string | number | boolean | null | readonly JsonValue[] | { readonly [name: string]: JsonValue }

/** The size that metadata can have: in UTF-8, as JSON without spaces. */
const maxBytes = 4096

const maxDepth = 32

/** Returns the fault of metadata that is too large; `null` if it is not. */
export function faultOfSize(metadata: Metadata): string | null {
  const isFine = Buffer.byteLength(JSON.stringify(metadata)) <= maxBytes
  return isFine ? null : `must have at most ${maxBytes} bytes as JSON`
}

/** Returns why the database cannot store a value as JSON; `null` if it can. */
export function faultOfJson(value: unknown, depth = 0): string | null {
  if (depth > maxDepth) return `must not be nested more than ${maxDepth} deep`

  switch (typeof value) {
    case 'string':
      return isStorable(value) ? null : 'must hold well-formed Unicode without NUL'
    case 'number':
      return Number.isFinite(value) ? null : 'must hold finite numbers'
    case 'boolean':
      return null
    case 'object':
      return value === null ? null : faultOfMembers(value, depth)
    default:
      return 'must hold nothing but JSON'
  }
}

function faultOfMembers(value: object, depth: number): string | null {
  if (!Array.isArray(value) && !isPlainObject(value)) return 'must hold nothing but JSON'
  const dangerous = dangerousName(value)
  if (dangerous) return `must not hold ${dangerous}`
  for (const [name, member] of Object.entries(value)) {
    const fault = isStorable(name) ? faultOfJson(member, depth + 1) : faultOfJson(name)
    if (fault !== null) return fault
  }
  return null
}

/**
 * Returns the name of a member that changes prototypes, if there is one. If an app copies or merges metadata into an
 * object, `__proto__` sets the prototype of that object, and so gets around reserved names. `constructor.prototype`
 * even reaches the prototype of all objects.
 */
function dangerousName(value: object): string | null {
  if (Object.hasOwn(value, '__proto__')) return '__proto__'
  const { constructor } = value as { constructor?: unknown }
  // The inherited `constructor` is a function.
  const isWay =
    typeof constructor === 'object' &&
    constructor !== null &&
    Object.hasOwn(constructor, 'prototype')
  return isWay ? 'constructor.prototype' : null
}

/** True for an object that is no list and no instance of a class. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  // The prototype of another realm, for example Jest's, has a null prototype, too.
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** True for text that Postgres can store. Text has no NUL, and jsonb, which the audit trail uses, has no lone surrogates. */
function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}

/** Freezes a value and all its members, so that requests can share it. */
export function deepFreeze<Value>(value: Value): Value {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze)
    Object.freeze(value)
  }
  return value
}

/** True if two values are the same in JSON. */
export function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}

/** Returns JSON with the names of objects in order. The database keeps the meaning of JSON, but orders the names itself. */
export function canonical(value: unknown): string {
  return isInOrder(value) ? JSON.stringify(value ?? null) : inOrder(value)
}

/** True if the names of all objects are in order. Most are, and the engine writes their JSON in a fraction of the time. */
function isInOrder(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isInOrder)
  if (!isPlainObject(value)) return true
  let last = ''
  for (const name of Object.keys(value)) {
    if (name < last || !isInOrder(value[name])) return false
    last = name
  }
  return true
}

function inOrder(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value ?? null)
  // Loops, because lists of members and their texts took twice the time.
  let members = ''
  if (Array.isArray(value)) {
    for (const member of value) members += `${members && ','}${inOrder(member)}`
    return `[${members}]`
  }
  if (!isPlainObject(value)) return JSON.stringify(value)
  for (const name of Object.keys(value).toSorted()) {
    const member = value[name]
    if (member === undefined) continue
    members += `${members && ','}${JSON.stringify(name)}:${inOrder(member)}`
  }
  return `{${members}}`
}
