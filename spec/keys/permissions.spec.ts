import * as fc from 'fast-check'

import { createPermissions, type GivenPermission } from '../../lib/keys/permissions'
import { permissionsOf } from '../support/permissions'

/** Permissions of which each implies the names beside it. */
function implying(implied: Record<string, readonly string[]>): GivenPermission[] {
  return Object.entries(implied).map(([name, implies]) => ({ name, description: null, implies }))
}

describe('permissions', () => {
  const graphs = implying({ READ: [], WRITE: ['READ'], ADMIN: ['WRITE', 'DELETE'], DELETE: [] })
  const former = new Map([
    ['EDIT', 'WRITE'],
    ['CHANGE', 'WRITE'],
    ['GONE', null],
  ])
  const { described, heldBy, inBoth, namesGiving, namesOf } = createPermissions(graphs, former)

  it('come with all that they imply, in any number of steps', () => {
    expect(heldBy(['ADMIN']).names).toEqual(['READ', 'WRITE', 'ADMIN', 'DELETE'])
    expect(heldBy(['WRITE', 'DELETE']).names).toEqual(['READ', 'WRITE', 'DELETE'])
    expect(heldBy(['READ']).names).toEqual(['READ'])
    expect(heldBy([]).names).toEqual([])
  })

  it('may imply one another', () => {
    const circle = createPermissions(implying({ A: ['B'], B: ['C'], C: ['A'], D: ['D'] }))

    expect(circle.heldBy(['B']).names).toEqual(['A', 'B', 'C'])
    expect(circle.heldBy(['D']).names).toEqual(['D'])
    expect(circle.described[3]).toEqual({ name: 'D', description: null, implies: [] })
  })

  it('are described with all other permissions that they imply', () => {
    expect(described.map(({ name, implies }) => [name, implies])).toEqual([
      ['READ', []],
      ['WRITE', ['READ']],
      ['ADMIN', ['READ', 'WRITE', 'DELETE']],
      ['DELETE', []],
    ])
  })

  it('are found by former names, and count for nothing if the app does not know them', () => {
    expect(heldBy(['EDIT']).names).toEqual(['READ', 'WRITE'])
    expect(heldBy(['GONE', 'UNKNOWN', 'constructor', '__proto__', '']).names).toEqual([])
    expect(namesOf(['DELETE', 'EDIT', 'GONE', 'WRITE', 'UNKNOWN', 'CHANGE'])).toEqual([
      'DELETE',
      'WRITE',
    ])
  })

  it('are given by their own names, by former names, and by all that implies them', () => {
    expect(namesGiving('READ')).toEqual(['READ', 'WRITE', 'ADMIN', 'EDIT', 'CHANGE'])
    expect(namesGiving('CHANGE')).toEqual(['WRITE', 'ADMIN', 'EDIT', 'CHANGE'])
    expect(namesGiving('ADMIN')).toEqual(['ADMIN'])
    expect(namesGiving('GONE')).toEqual(['GONE'])
    expect(namesGiving('UNKNOWN')).toEqual(['UNKNOWN'])
  })

  it('may have the names of members of objects', () => {
    const odd = createPermissions(implying({ constructor: ['toString'], toString: [] }))

    expect(odd.heldBy(['constructor']).names).toEqual(['constructor', 'toString'])
    expect(odd.heldBy(['hasOwnProperty']).names).toEqual([])
  })

  it('are one frozen list for all keys that hold the same', () => {
    const set = heldBy(['ADMIN'])

    expect(heldBy(['DELETE', 'EDIT', 'ADMIN', 'UNKNOWN'])).toBe(set)
    expect(Object.isFrozen(set.names)).toBe(true)
    expect(inBoth(set, heldBy(['ADMIN', 'WRITE']))).toBe(set)
    expect(inBoth(set, heldBy(['EDIT', 'DELETE']))).toBe(heldBy(['DELETE', 'WRITE']))
  })

  it.each([8, 9, 40])('are found in a list of %d', (count) => {
    const names = Array.from({ length: count }, (_, index) => `READ_${index}`)
    const set = permissionsOf([...names, 'WRITE']).heldBy(names)

    expect(names.every((name) => set.has(name))).toBe(true)
    expect(set.hasAll(names)).toBe(true)
    expect([set.has('WRITE'), set.has('READ'), set.hasAll(['READ_0', 'WRITE'])]).toEqual([
      false,
      false,
      false,
    ])
  })
})

describe('a key and its owner', () => {
  const names = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J']
  const formerNames = ['OLD_A', 'OLD_B', 'OLD_C']
  const anyName = fc.constantFrom(...names, ...formerNames, 'UNKNOWN')
  const lists = fc.array(anyName, { maxLength: 5 })
  const app = fc.record({
    implied: fc.array(fc.tuple(fc.constantFrom(...names), fc.constantFrom(...names)), {
      maxLength: 15,
    }),
    former: fc.tuple(...formerNames.map(() => fc.option(fc.constantFrom(...names)))),
  })

  /** What a name gives, found by trying all permissions again and again, instead of following names. */
  function givenBy(
    given: readonly string[],
    implied: readonly (readonly string[])[],
    former: ReadonlyMap<string, string | null>,
  ): Set<string> {
    const all = new Set(
      given.map((name) => former.get(name) ?? name).filter((name) => names.includes(name)),
    )
    for (const _ of names) {
      for (const [from = '', to = ''] of implied) if (all.has(from)) all.add(to)
    }
    return all
  }

  it('hold together what either gives, never more, and all that it implies', () => {
    fc.assert(
      fc.property(app, lists, lists, ({ implied, former: targets }, key, granted) => {
        const given = names.map((name) => ({
          name,
          description: null,
          implies: implied.filter(([from]) => from === name).map(([, to]) => to),
        }))
        const former = new Map(formerNames.map((name, index) => [name, targets[index] ?? null]))
        const { heldBy, inBoth } = createPermissions(given, former)
        const [ofKey, ofOwner] = [givenBy(key, implied, former), givenBy(granted, implied, former)]

        const held = inBoth(heldBy(key), heldBy(granted))

        expect(held.names).toEqual(names.filter((name) => ofKey.has(name) && ofOwner.has(name)))
        for (const [from, to] of implied) expect(held.has(from) && !held.has(to)).toBe(false)
      }),
      { numRuns: 20_000 },
    )
  })
})
