/** How many values are kept once for all that share them. */
const maxShared = 1_000

/**
 * Returns one value, made by `read`, for all equal texts. It starts over when it is full. The texts themselves are kept as
 * `keep` returns them.
 */
export function createInterner<Value>(
  read: (text: string) => Value,
  keep: (text: string) => string = (text) => text,
) {
  let values = new Map<string, Value>()

  return {
    of(text: string): Value {
      const known = values.get(text)
      if (known !== undefined) return known

      const value = read(text)
      if (values.size >= maxShared) values = new Map()
      values.set(keep(text), value)
      return value
    },
  }
}
