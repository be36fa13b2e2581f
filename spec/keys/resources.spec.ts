import { array, assert, constantFrom, property, uniqueArray, string as text } from 'fast-check'
import v = require('valibot')

import {
  allows,
  allowsAll,
  createBindingsReader,
  resourceLists,
  toId,
  type Resources,
} from '../../lib/keys/resources'

const types = ['graph', 'project']
const lists = resourceLists(types)

/** Returns what a key is bound to; the faults if the input is refused. */
function read(input: unknown): unknown {
  const { success, output, issues } = v.safeParse(lists, input)
  if (success) return output
  return issues.map(({ path, message }) =>
    [...(path ?? []).map(({ key }) => String(key)), message].join(' '),
  )
}

/** Returns so many ids with one start. */
function some(count: number, start: string): string[] {
  return Array.from({ length: count }, (_, index) => `${start}${index}`)
}

/** Returns the bindings of a key that has them in its row. */
const bindingsOf = createBindingsReader(types)

function bindings(resources: Resources | null) {
  return bindingsOf(resources && JSON.stringify(resources))
}

describe('resourceLists', () => {
  it('takes lists of ids by their types, and sorts both', () => {
    const output = read({ project: ['b', 'a'], graph: ['7', '10'] })

    expect(JSON.stringify(output)).toBe('{"graph":["10","7"],"project":["a","b"]}')
  })

  it('takes an empty list, which stands for no resource', () => {
    expect(read({ graph: [] })).toEqual({ graph: [] })
  })

  it('takes an object without types for a key that is not bound', () => {
    expect(read({})).toBeNull()
  })

  it('takes whole numbers as text', () => {
    expect(read({ graph: [7, 0, -1, 12n] })).toEqual({ graph: ['-1', '0', '12', '7'] })
  })

  it('takes an id as it is, with its spaces and zeros', () => {
    expect(read({ graph: ['07', ' 7', '7', '\u00e9', 'e\u0301'] })).toEqual({
      graph: [' 7', '07', '7', 'e\u0301', '\u00e9'],
    })
  })

  it('takes 100 ids in all, and no more', () => {
    expect(read({ graph: some(60, 'g'), project: some(40, 'p') })).toMatchObject({
      graph: { length: 60 },
      project: { length: 40 },
    })
    expect(read({ graph: some(60, 'g'), project: some(41, 'p') })).toEqual([
      'must have at most 100 ids in all',
    ])
    expect(read({ graph: Object.assign([], { length: 1_000_000_000 }) })).toEqual([
      'must have at most 100 ids in all',
    ])
  })

  it('takes 16,384 bytes as JSON, and no more', () => {
    // Each id is JSON of 200 bytes: 99 two-byte characters and the quotes. A comma is between two ids.
    const ids = Array.from({ length: 81 }, (_, index) => `${index + 10}${'é'.repeat(98)}`)
    const rest = 16_384 - Buffer.byteLength(JSON.stringify({ graph: ids }))

    expect(read({ graph: [...ids, 'x'.repeat(rest - 3)] })).toMatchObject({ graph: { length: 82 } })
    expect(read({ graph: [...ids, 'x'.repeat(rest - 2)] })).toEqual([
      'must have at most 16384 bytes as JSON',
    ])
  })

  const idRule = 'must be text of 1 to 255 characters, well-formed Unicode without NUL'

  it.each([
    ['a list', ['7'], ['must be a JSON object of lists of ids, by their types']],
    ['text', '7', ['must be a JSON object of lists of ids, by their types']],
    [
      'a map',
      new Map([['graph', ['7']]]),
      ['must be a JSON object of lists of ids, by their types'],
    ],
    ['another type', { block: ['7'] }, ['block is not one of the types graph, project']],
    [
      '__proto__',
      JSON.parse('{"__proto__":["7"]}'),
      ['__proto__ is not one of the types graph, project'],
    ],
    ['constructor', { constructor: ['7'] }, ['constructor is not one of the types graph, project']],
    ['an id alone', { graph: '7' }, ['graph must be a list of ids']],
    ['null', { graph: null }, ['graph must be a list of ids']],
    ['undefined', { graph: undefined }, ['graph must be a list of ids']],
    ['empty text', { graph: [''] }, [`graph 0 ${idRule}`]],
    ['long text', { graph: ['x'.repeat(256)] }, [`graph 0 ${idRule}`]],
    ['a NUL', { graph: ['a\0'] }, [`graph 0 ${idRule}`]],
    ['half a character', { graph: ['\ud800'] }, [`graph 0 ${idRule}`]],
    ['a fraction', { graph: [7.5] }, [`graph 0 ${idRule}`]],
    ['a number beyond the exact ones', { graph: [2 ** 53] }, [`graph 0 ${idRule}`]],
    ['NaN', { graph: [NaN] }, [`graph 0 ${idRule}`]],
    ['a hole', { graph: Object.assign([], { length: 1 }) }, [`graph 0 ${idRule}`]],
    [
      'objects',
      { graph: [{}, ['7'], null, true] },
      [0, 1, 2, 3].map((at) => `graph ${at} ${idRule}`),
    ],
    ['repeats', { graph: ['7', '8', 7] }, ['graph 2 must not be repeated']],
    [
      'faults of several types',
      { graph: [''], project: ['x', 'x'], block: [] },
      [
        `graph 0 ${idRule}`,
        'project 1 must not be repeated',
        'block is not one of the types graph, project',
      ],
    ],
  ])('refuses %s', (_, input: unknown, faults) => {
    expect(read(input)).toEqual(faults)
  })
})

describe('the bindings of a key', () => {
  it('allow all if there are none', () => {
    for (const none of [bindingsOf(null), bindingsOf(undefined), bindingsOf('{}')]) {
      expect(none.resources).toBeNull()
      expect(allows(none, 'graph', '7')).toBe(true)
      expect(allowsAll(none, {})).toBe(true)
    }
  })

  it('allow the ids of a type that they name, and all ids of the other types', () => {
    const bound = bindings({ graph: ['7', '8'] })

    expect(allows(bound, 'graph', '7')).toBe(true)
    expect(allows(bound, 'graph', '9')).toBe(false)
    expect(allows(bound, 'project', '9')).toBe(true)
  })

  it('allow nothing of a type with an empty list', () => {
    const bound = bindings({ graph: [] })

    expect(allows(bound, 'graph', '7')).toBe(false)
    expect(allowsAll(bound, { graph: '7' })).toBe(false)
  })

  it('compare ids exactly, and numbers as text', () => {
    const bound = bindings({ graph: ['7'] })
    const given: unknown[] = [
      '07',
      ' 7',
      '7 ',
      '7.0',
      '+7',
      'VII',
      7.5,
      NaN,
      null,
      undefined,
      ['7'],
      {},
      true,
    ]

    expect(given.filter((id) => allows(bound, 'graph', id as string))).toEqual([])
    expect(allows(bound, 'graph', 7 as unknown as string)).toBe(true)
    expect(allows(bound, 'graph', 7n as unknown as string)).toBe(true)
  })

  it('want a resource of each type to which the key is bound', () => {
    const bound = bindings({ graph: ['7'], project: ['a', 'b'] })

    expect(allowsAll(bound, { graph: '7', project: 'b' })).toBe(true)
    expect(allowsAll(bound, { graph: '7', project: 'b', block: 'x' })).toBe(true)
    expect(allowsAll(bound, { graph: '7', project: 'c' })).toBe(false)
    expect(allowsAll(bound, { graph: '7' })).toBe(false)
    expect(allowsAll(bound, { graph: '7', project: undefined })).toBe(false)
    expect(allowsAll(bound, {})).toBe(false)
  })

  it('refuse a question for a type that the app does not have', () => {
    expect(() => allows(bindingsOf(null), 'grahp', '7')).toThrow(
      new TypeError(
        'allows: "grahp" is not one of the app\'s types of resources. Did you mean graph?',
      ),
    )
    expect(() => allows(bindingsOf(null), 'constructor', '7')).toThrow(TypeError)
  })

  it('are one frozen object for all keys with equal ones', () => {
    const bound = bindings({ graph: ['7'] })

    expect(bindings({ graph: ['7'] })).toBe(bound)
    expect(bindings({ graph: ['8'] })).not.toBe(bound)
    expect(bindingsOf(null)).toBe(bindingsOf(undefined))
    expect(() => Object.assign(bound.resources ?? {}, { graph: ['8'] })).toThrow(TypeError)
    expect(Object.isFrozen(bound.resources?.graph)).toBe(true)
  })

  it.each([
    ['text', '{"graph":"7"}'],
    ['a number', '{"graph":7}'],
    ['null', '{"graph":null}'],
    ['an object', '{"graph":{"7":true,"length":1}}'],
    ['a list of lists', '{"graph":[["7"]]}'],
    ['a list of null', '{"graph":[null]}'],
  ])('allow nothing of a type if a program has written %s', (_, json) => {
    const bound = bindingsOf(json)

    expect(bound.resources).toEqual({ graph: [] })
    expect(
      ['7', '', 'null', 'undefined', '[object Object]'].filter((id) => allows(bound, 'graph', id)),
    ).toEqual([])
  })

  it('hold for types that the app has no longer, and for names of members of all objects', () => {
    const written = ['block', '__proto__', 'constructor', 'toString']
    const bound = written.map((type) => bindingsOf(`{"${type}":["7"]}`))

    expect(bound.map((each) => allowsAll(each, { graph: '7' }))).toEqual(written.map(() => false))
    expect(bound.map((each, at) => Object.keys(each.resources ?? {})[0] === written[at])).toEqual(
      written.map(() => true),
    )
    expect(Reflect.get({}, 'graph')).toBeUndefined()
  })

  it('allow exactly the ids that a key was given', () => {
    const id = text({ minLength: 1, maxLength: 8, unit: 'binary' }).filter(
      (value) => toId(value) !== null,
    )
    const list = uniqueArray(id, { maxLength: 10 })

    assert(
      property(
        list,
        list,
        array(id),
        constantFrom('graph', 'project'),
        (graph, project, others, type) => {
          const given: Resources = { graph, project }
          const bound = bindings(v.parse(lists, given))
          const asked = [...graph, ...project, ...others]

          expect(asked.filter((id) => allows(bound, type, id))).toEqual(
            asked.filter((id) => given[type]?.includes(id)),
          )
          const [other] = project
          expect(asked.filter((id) => allowsAll(bound, { graph: id, project: other }))).toEqual(
            asked.filter((id) => other !== undefined && graph.includes(id)),
          )
        },
      ),
    )
  })
})
