import { runInNewContext } from 'node:vm'

import { createParsers } from '../../../lib/keys/input'
import {
  faultsOf,
  parse,
  permissionRule,
  settings,
  timeRule,
  type Refused,
} from '../../support/input'

const rangeRule = 'must be an address or a range in CIDR notation, such as 203.0.113.0/24'
const limitsRule = 'must be a JSON object of limits, by their names'

describe('a new key', () => {
  const rest = { name: 'CI', permissions: ['READ_GRAPH'] }
  const key = { ...rest, userId: 'alice' }
  const parsed = { ...rest, owner: { type: 'user', id: 'alice' } }

  it('needs a name, permissions and an owner', () => {
    expect(parse.newKeyOf(key)).toEqual(parsed)
    expect(faultsOf(() => parse.newKeyOf({}))).toEqual([
      '#/name is required',
      '#/permissions is required',
      '#/owner is required',
    ])
  })

  it.each<Refused>([
    ['two owners', { ...key, owner: parsed.owner }, ['#/userId must not be given beside owner']],
    [
      'an owner that is text',
      { ...rest, owner: 'alice' },
      ['#/owner must be an owner: { type, id }'],
    ],
    [
      'an owner without a type',
      { ...rest, owner: { id: 'alice' } },
      ['#/owner/type must be one of user'],
    ],
    [
      'an owner of a kind that the app does not have',
      { ...rest, owner: { type: 'organization', id: 'acme' } },
      ['#/owner/type must be one of user'],
    ],
    [
      'an owner without an id',
      { ...rest, owner: { type: 'user' } },
      ['#/owner/id must be a user id'],
    ],
    [
      'an owner with a name',
      { ...rest, owner: { type: 'user', id: 'alice', name: 'Alice' } },
      ['#/owner/name is not known here'],
    ],
  ])('is refused with %s', (_, input, faults) => {
    expect(faultsOf(() => parse.newKeyOf(input))).toEqual(faults)
  })

  it('may be of each kind of owner that the app has', () => {
    const { newKeyOf } = createParsers({
      ...settings,
      idTypes: { user: 'text', organization: 'integer', service: 'text' },
    })

    expect(newKeyOf({ ...rest, owner: { type: 'organization', id: '007' } }).owner).toEqual({
      type: 'organization',
      id: 7,
    })
    expect(newKeyOf({ ...rest, owner: { type: 'service', id: ' nightly import ' } }).owner).toEqual(
      {
        type: 'service',
        id: 'nightly import',
      },
    )
    for (const [owner, fault] of [
      [{ type: 'organization', id: 'acme' }, 'must be a whole number'],
      [{ type: 'service', id: '' }, 'must have 1 to 100 characters'],
      [{ type: 'service', id: 's'.repeat(101) }, 'must have 1 to 100 characters'],
      [{ type: 'service', id: 7 }, 'must be text'],
    ] as const) {
      expect(faultsOf(() => newKeyOf({ ...rest, owner }))).toEqual([`#/owner/id ${fault}`])
    }
  })

  it('has its text trimmed, and may have all there is', () => {
    const description = 'd'.repeat(500)
    const others = {
      allowedIps: ['203.0.113.7', '2001:db8::/32'],
      metadata: { plan: 'gold', tags: [1, null, true] },
    }

    expect(
      parse.newKeyOf({
        ...key,
        ...others,
        name: ` ${'n'.repeat(100)}\n`,
        description,
        limits: null,
      }),
    ).toEqual({ ...parsed, ...others, name: 'n'.repeat(100), description, limits: null })
    expect(parse.newKeyOf({ ...key, description: ' two\n\tlines ' })).toMatchObject({
      description: 'two\n\tlines',
    })
  })

  it('may have metadata of another realm, for example Jest’s', () => {
    const metadata = runInNewContext(`({ plan: 'gold', tags: [{ deep: true }] })`)

    expect(parse.newKeyOf({ ...key, metadata })).toEqual({ ...parsed, metadata })
  })

  it.each([
    '2099-01-01t00:00:00.123z',
    '2099-01-01T02:00:00.123+02:00',
    '2099-01-01t00:00:00.123Z',
    new Date('2099-01-01T00:00:00.123Z'),
  ])('expires at a time as RFC 3339 allows it: %s', (expiresAt) => {
    expect(parse.newKeyOf({ ...key, expiresAt }).expiresAt).toEqual(
      new Date('2099-01-01T00:00:00.123Z'),
    )
  })

  it('has addresses in their shortest form, and limits in the order of their names', () => {
    const limits = { monthly: null, burst: { limit: 5, windowSeconds: 60 } }
    const parsed = parse.newKeyOf({
      ...key,
      allowedIps: ['2001:DB8:0::1', '::ffff:10.0.0.1'],
      limits,
    })

    expect(parsed.allowedIps).toEqual(['2001:db8::1', '10.0.0.1'])
    expect(JSON.stringify(parsed.limits)).toBe(
      '{"burst":{"limit":5,"windowSeconds":60},"monthly":null}',
    )
  })

  it('may have limits of any name', () => {
    const limits = { constructor: null, prototype: null, toString: { limit: 1, windowSeconds: 1 } }

    expect(parse.newKeyOf({ ...key, limits }).limits).toEqual(limits)
  })

  it.each<Refused>([
    ['undefined', { name: undefined }, ['#/name is required']],
    ['null', { name: null }, ['#/name must be text']],
    ['a number', { name: 42 }, ['#/name must be text']],
    ['spaces', { name: ' \t ' }, ['#/name must have 1 to 100 characters']],
    ['too long', { name: 'x'.repeat(101) }, ['#/name must have 1 to 100 characters']],
    ['two lines', { name: 'a\nb' }, ['#/name must not contain control characters']],
    ['a NUL', { name: 'a\0b' }, ['#/name must not contain control characters']],
    ['half a character', { name: 'a\ud800' }, ['#/name must be well-formed Unicode']],
  ])('is refused with a name that is %s', (_, wish, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, ...(wish as object) }))).toEqual(faults)
  })

  it.each<Refused>([
    ['a list', ['x'], ['#/description must be text']],
    ['too long', 'x'.repeat(501), ['#/description must have at most 500 characters']],
    ['an escape', '\u001b[31m', ['#/description must not contain control characters']],
    ['half a character', '\ud800', ['#/description must be well-formed Unicode']],
  ])('is refused with a description that is %s', (_, description, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, description }))).toEqual(faults)
  })

  it.each<Refused>([
    ['undefined', undefined, ['#/permissions is required']],
    ['null', null, ['#/permissions must be a list of permissions']],
    ['a text', 'READ_GRAPH', ['#/permissions must be a list of permissions']],
    ['empty', [], ['#/permissions must name at least one permission']],
    ['unknown', ['READ_GRAPH', 'read_graph'], [`#/permissions/1 ${permissionRule}`]],
    [
      'repeated',
      ['READ_GRAPH', 'READ_BLOCK', 'READ_GRAPH'],
      ['#/permissions/2 must not be repeated'],
    ],
    [
      'unknown and repeated',
      ['READ_GRAPH', 'READ_ALL', 'READ_GRAPH', 7],
      [
        `#/permissions/1 ${permissionRule}`,
        `#/permissions/3 ${permissionRule}`,
        '#/permissions/2 must not be repeated',
      ],
    ],
    [
      'more than there are',
      ['READ_GRAPH', 'NOPE', 'NOPE', 'NOPE', 'NOPE'],
      ['#/permissions must name at most 4 permissions, which is all there are'],
    ],
  ])('is refused with permissions that are %s', (_, permissions, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, permissions }))).toEqual(faults)
    expect(faultsOf(() => parse.permissionSet({ permissions }))).toEqual(faults)
  })

  it.each<Refused>([
    ['past', new Date(Date.now() - 1), ['#/expiresAt must be in the future']],
    ['past, as text', '2020-01-01T00:00:00Z', ['#/expiresAt must be in the future']],
    [
      'of five digits',
      new Date(Date.UTC(10_000, 0)),
      ['#/expiresAt must be before the year 10000'],
    ],
    ['a day', '2099-01-01', [`#/expiresAt ${timeRule}`]],
    ['without an offset', '2099-01-01T00:00:00', [`#/expiresAt ${timeRule}`]],
    ['without seconds', '2099-01-01T00:00Z', [`#/expiresAt ${timeRule}`]],
    ['on a day that does not exist', '2099-02-29T00:00:00Z', [`#/expiresAt ${timeRule}`]],
    ['at an hour that does not exist', '2099-01-01T24:00:00Z', [`#/expiresAt ${timeRule}`]],
    ['a word', 'tomorrow', [`#/expiresAt ${timeRule}`]],
    ['a number', 4_102_444_800_000, [`#/expiresAt ${timeRule}`]],
    ['an invalid date', new Date(Number.NaN), [`#/expiresAt ${timeRule}`]],
  ])('is refused with an expiry that is %s', (_, expiresAt, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, expiresAt }))).toEqual(faults)
  })

  it.each<Refused>([
    ['empty', [], ['#/allowedIps must name at least one address; null means all']],
    ['a text', '203.0.113.7', ['#/allowedIps must be a list of addresses']],
    ['a name', ['203.0.113.7', 'localhost'], [`#/allowedIps/1 ${rangeRule}`]],
    ['a number', [7], [`#/allowedIps/0 ${rangeRule}`]],
    ['ambiguous', ['203.0.113.7/24'], ['#/allowedIps/0 must have no bits set behind its prefix']],
    ['the same twice', ['::1', '0::1'], ['#/allowedIps/1 must not be repeated']],
    [
      'too many',
      Array.from({ length: 101 }, (_, n) => `10.0.0.${n}`),
      ['#/allowedIps must name at most 100 addresses'],
    ],
  ])('is refused with addresses that are %s', (_, allowedIps, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, allowedIps }))).toEqual(faults)
  })

  it.each<Refused>([
    ['a list', [], ['#/metadata must be a JSON object']],
    ['null', null, ['#/metadata must be a JSON object']],
    ['text', 'gold', ['#/metadata must be a JSON object']],
    ['NUL', { a: '\0' }, ['#/metadata must hold well-formed Unicode without NUL']],
    ['NUL in a name', { '\0': 1 }, ['#/metadata must hold well-formed Unicode without NUL']],
    ['half a character', { a: '\ud800' }, ['#/metadata must hold well-formed Unicode without NUL']],
    ['a prototype', { ['__proto__']: { plan: 'gold' } }, ['#/metadata must not hold __proto__']],
    ['a deep prototype', { a: [{ ['__proto__']: 1 }] }, ['#/metadata must not hold __proto__']],
    [
      'a way to a prototype',
      { constructor: { prototype: { plan: 'gold' } } },
      ['#/metadata must not hold constructor.prototype'],
    ],
    [
      'a deep way to a prototype',
      { a: [{ constructor: { prototype: null } }] },
      ['#/metadata must not hold constructor.prototype'],
    ],
    ['a date', { at: new Date() }, ['#/metadata must hold nothing but JSON']],
    ['a function', { call: () => {} }, ['#/metadata must hold nothing but JSON']],
    ['infinity', { most: Infinity }, ['#/metadata must hold finite numbers']],
    ['a big integer', { id: 1n }, ['#/metadata must hold nothing but JSON']],
    ['nothing', { a: undefined }, ['#/metadata must hold nothing but JSON']],
    [
      'too much depth',
      { a: JSON.parse(`${'['.repeat(40)}${']'.repeat(40)}`) },
      ['#/metadata must not be nested more than 32 deep'],
    ],
    [
      'too much',
      { a: 'x'.repeat(4097 - '{"a":""}'.length) },
      ['#/metadata must have at most 4096 bytes as JSON'],
    ],
  ])('is refused with metadata that is or holds %s', (_, metadata, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, metadata }))).toEqual(faults)
  })

  it.each<Refused>([
    ['a list', [], [`#/limits ${limitsRule}`]],
    ['a text', 'burst', [`#/limits ${limitsRule}`]],
    ['of numbers', { burst: 5 }, ['#/limits/burst must be a JSON object']],
    ['without a window', { burst: { limit: 5 } }, ['#/limits/burst/windowSeconds is required']],
    [
      'zero',
      { burst: { limit: 0, windowSeconds: 60 } },
      ['#/limits/burst/limit must be a whole number from 1 to 1000000000000'],
    ],
    [
      'a fraction',
      { burst: { limit: 1.5, windowSeconds: 60 } },
      ['#/limits/burst/limit must be a whole number from 1 to 1000000000000'],
    ],
    [
      'of a window too long',
      { burst: { limit: 5, windowSeconds: 31_622_401 } },
      ['#/limits/burst/windowSeconds must be a whole number from 1 to 31622400'],
    ],
    [
      'more than a limit',
      { burst: { limit: 5, windowSeconds: 60, cost: 1 } },
      ['#/limits/burst/cost is not known here'],
    ],
    [
      'badly named',
      { 'a b': null },
      [
        '#/limits/a%20b its name must be a letter, and at most 31 more letters, digits, "_" and "-"',
      ],
    ],
    [
      'too many',
      Object.fromEntries(Array.from({ length: 11 }, (_, place) => [`limit${place}`, null])),
      ['#/limits must have at most 10 limits'],
    ],
    [
      'called __proto__',
      JSON.parse('{"__proto__": null}'),
      ['#/limits must not have a limit called __proto__'],
    ],
  ])('is refused with limits that are %s', (_, limits, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, limits }))).toEqual(faults)
  })

  it.each<Refused>([
    ['a status', { status: 'REVOKED' }, ['#/status is not known here']],
    [
      'all that only the library decides',
      { id: 'x', hash: 'x' },
      ['#/id is not known here', '#/hash is not known here'],
    ],
    [
      'names that a pointer has to escape',
      { 'a/b~c %': 1, '': 2, constructor: 3, '\ud800': 4 },
      [
        '#/a~1b~0c%20%25 is not known here',
        '#/ is not known here',
        '#/constructor is not known here',
        '#/%EF%BF%BD is not known here',
      ],
    ],
    [
      'names that are like those of fields',
      { expiresat: null, permisions: [], user: 'bob' },
      [
        '#/expiresat is not known here (did you mean expiresAt?)',
        '#/permisions is not known here (did you mean permissions?)',
        '#/user is not known here (did you mean userId?)',
      ],
    ],
    [
      'a name that is like that of a field which the app does not have',
      { enviroment: 'live' },
      ['#/enviroment is not known here'],
    ],
    [
      'a long name',
      { [`name${'x'.repeat(90)}`]: 1 },
      [`#/name${'x'.repeat(90)} is not known here`],
    ],
    ['a prototype', JSON.parse('{"__proto__":{}}'), ['#/__proto__ is not known here']],
  ])('is refused with more: %s', (_, more, faults) => {
    expect(faultsOf(() => parse.newKeyOf({ ...key, ...(more as object) }))).toEqual(faults)
  })

  it('is refused with an owner if it is the owner who makes it', () => {
    expect(faultsOf(() => parse.newKey(key))).toEqual(['#/userId is not known here'])
  })

  it('is refused with every fault at once, in the order of its fields', () => {
    const input = {
      color: 'red',
      name: '',
      description: `${'x'.repeat(501)}\0`,
      permissions: ['NOPE', 'READ_GRAPH', 'READ_GRAPH'],
      expiresAt: new Date(0),
    }

    expect(faultsOf(() => parse.newKeyOf(input))).toEqual([
      '#/name must have 1 to 100 characters',
      '#/description must have at most 500 characters',
      '#/description must not contain control characters',
      '#/expiresAt must be in the future',
      `#/permissions/0 ${permissionRule}`,
      '#/permissions/2 must not be repeated',
      '#/owner is required',
      '#/color is not known here',
    ])
  })

  it('is refused with 100 faults at most', () => {
    const unknown = Object.fromEntries(
      Array.from({ length: 5_000 }, (_, number) => [`x${number}`, 1]),
    )

    expect(faultsOf(() => parse.newKeyOf({ ...key, ...unknown }))).toHaveLength(100)
  })

  it.each([undefined, null, 'x', []])('is no %p', (input) => {
    expect(faultsOf(() => parse.newKeyOf(input))).toEqual(['# must be a JSON object'])
  })
})
