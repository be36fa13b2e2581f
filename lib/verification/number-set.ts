/** Numbers of 48 bits, in 11 to 22 bytes each. A Set of as many takes five times that. */
export type NumberSet = ReturnType<typeof createNumberSet>

const leastSize = 1_024
/** No member: a number has 48 bits. */
const free = -1

/** Makes a set of whole numbers below 2^48 that are spread evenly, as hashes are: a table with open addressing. */
export function createNumberSet() {
  let table = new Float64Array(leastSize).fill(free)
  let size = 0

  /** Returns the place of a number, or the free place where it belongs. */
  function placeOf(value: number): number {
    let place = value % table.length
    for (;;) {
      const present = table[place]
      if (present === free || present === value) return place
      place = place + 1 === table.length ? 0 : place + 1
    }
  }

  function grow() {
    const before = table
    table = new Float64Array(before.length * 2).fill(free)
    for (const value of before) if (value !== free) table[placeOf(value)] = value
  }

  return {
    get size() {
      return size
    },

    has(value: number): boolean {
      return table[placeOf(value)] === value
    },

    add(value: number) {
      const place = placeOf(value)
      if (table[place] === value) return
      table[place] = value
      size++
      // A fuller table takes ever more steps.
      if (size * 4 > table.length * 3) grow()
    },
  }
}
