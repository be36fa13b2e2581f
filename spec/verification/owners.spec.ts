import { setFlagsFromString } from 'node:v8'
import { runInThisContext } from 'node:vm'

import { createOwnerCache } from '../../lib/verification/owners'

describe('createOwnerCache', () => {
  it('gives the objects of all owners one shape, because each request reads one', () => {
    const owners = createOwnerCache(100)

    const made = Array.from({ length: 50 }, (_, id) => owners.of({ type: 'user', id }))

    const [first, ...others] = made
    for (const other of others) expect(haveOneShape(first, other)).toBe(true)
    for (const { shown } of others) expect(haveOneShape(first?.shown, shown)).toBe(true)
  })
})

/** True if two objects have one shape. V8 says so to its own tests. */
function haveOneShape(one: unknown, other: unknown): boolean {
  setFlagsFromString('--allow-natives-syntax')
  // The text is a function of these types.
  const haveSameMap = runInThisContext('(one, other) => %HaveSameMap(one, other)') as (
    one: unknown,
    other: unknown,
  ) => boolean
  try {
    return haveSameMap(one, other)
  } finally {
    setFlagsFromString('--no-allow-natives-syntax')
  }
}
