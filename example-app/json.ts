/** What JSON can say. */
export type Json = null | boolean | number | string | Json[] | JsonObject
export type JsonObject = { [name: string]: Json }

/** Whether a value is an object and not, as `typeof` has it, also `null` or a list. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** How large a value may be: its lists and objects in depth, its items and characters in number. */
export interface SizeLimits {
  depth: number
  size: number
}

/**
 * Whether a value keeps within limits. It does not recurse, for it is to find the very values on
 * which a recursion, `JSON.stringify` among them, ends with a stack overflow.
 */
export function isWithin(limits: SizeLimits, value: Json): boolean {
  const pending = [{ value, depth: 0 }]
  let size = 0

  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { value: item, depth } = next
    size += typeof item === 'string' ? item.length : 1
    if (depth > limits.depth || size > limits.size) return false

    if (typeof item === 'object' && item !== null) {
      for (const child of Object.values(item)) pending.push({ value: child, depth: depth + 1 })
    }
  }
  return true
}
