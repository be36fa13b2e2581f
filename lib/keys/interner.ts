/** The most values that an interner keeps. */
const maxShared = 1_000

/** Creates what returns one value of `read` for all equal texts. When it is full it starts over. `keep` copies the texts. */
export function createInterner<Value>(
  read: (text: string) => Value,
  keep: (text: string) => string = (text) => text,
) {
  let values = new Map<string, Value>()

  return function intern(text: string): Value {
    const known = values.get(text)
    if (known !== undefined) return known

    const value = read(text)
    if (values.size >= maxShared) values = new Map()
    values.set(keep(text), value)
    return value
  }
}
