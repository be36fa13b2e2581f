import { randomUUID } from 'node:crypto'

import { InvalidInputError } from '../../lib/errors'
import { formatEventCursor, formatKeyCursor } from '../../lib/keys/cursor'
import { createParsers } from '../../lib/keys/input'

const settings = {
  permissions: ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'],
  userIdType: 'text',
  maxGracePeriodSeconds: 2_592_000,
} as const
const parse = createParsers(settings)

/** Input that is refused, and its faults, each with a pointer and a message. */
type Refused = [title: string, input: unknown, faults: string[]]

/** Returns the faults that a parse function finds. */
function faultsOf(call: () => unknown): string[] {
  try {
    call()
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error
    return error.errors.map(({ pointer, message }) => `${pointer} ${message}`)
  }
  return []
}

/** Titles each row with its input. */
function titled(rows: [input: object, fault: string][]): Refused[] {
  return rows.map(([input, fault]) => [JSON.stringify(input), input, [fault]])
}

const permissionRule = 'must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK'
const timeRule = 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'
const rangeRule = 'must be an address or a range in CIDR notation, such as 203.0.113.0/24'
const limitsRule = 'must be a JSON object of limits, by their names'
const pageRule = 'must be a whole number from 1 to 100'
const daysRule = 'must be a whole number of days from 1 to 36500'
const cursorRule = 'must be the nextCursor of a page before'
const statusRule = 'must be one of ACTIVE, SUSPENDED, REVOKED'
const textRule = 'must have 1 to 200 characters'

describe('a new key', () => {
  const key = { name: 'CI', permissions: ['READ_GRAPH'], userId: 'alice' }

  it('needs a name, permissions and an owner', () => {
    expect(parse.newKeyOf(key)).toEqual(key)
    expect(faultsOf(() => parse.newKeyOf({}))).toEqual([
      '#/name is required',
      '#/permissions is required',
      '#/userId is required',
    ])
  })

  it('has its text trimmed, and may have all there is', () => {
    const description = 'd'.repeat(500)
    const rest = {
      allowedIps: ['203.0.113.7', '2001:db8::/32'],
      metadata: { plan: 'gold', tags: [1, null, true] },
    }

    expect(
      parse.newKeyOf({ ...key, ...rest, name: ` ${'n'.repeat(100)}\n`, description, limits: null }),
    ).toEqual({ ...key, ...rest, name: 'n'.repeat(100), description, limits: null })
    expect(parse.newKeyOf({ ...key, description: ' two\n\tlines ' })).toMatchObject({
      description: 'two\n\tlines',
    })
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
      '#/userId is required',
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

describe('changes of a key', () => {
  it('may be none, and set fields back', () => {
    expect(parse.changes({})).toEqual({})
    const nothing = { description: null, expiresAt: null, allowedIps: null, limits: null }
    expect(parse.changes(nothing)).toEqual(nothing)
  })

  it('are refused with what other routes change, and with every fault at once', () => {
    const changes = {
      name: null,
      description: 7,
      expiresAt: 'tomorrow',
      permissions: ['EXECUTE_GRAPH'],
      status: 'REVOKED',
      userId: 'bob',
    }

    expect(faultsOf(() => parse.changes(changes))).toEqual([
      '#/name must be text',
      '#/description must be text',
      `#/expiresAt ${timeRule}`,
      '#/permissions is not changed here: use PUT /:id/permissions, or setPermissions()',
      '#/status is not known here',
      '#/userId is not known here',
    ])
  })
})

describe('a set of permissions', () => {
  it('comes alone', () => {
    const permissions = ['READ_GRAPH']

    expect(parse.permissionSet({ permissions })).toEqual({ permissions })
    expect(faultsOf(() => parse.permissionSet({ permissions, name: 'x' }))).toEqual([
      '#/name is not known here',
    ])
    expect(faultsOf(() => parse.permissionSet(permissions))).toEqual(['# must be a JSON object'])
  })
})

describe('a rotation', () => {
  it('has a grace period of a day, unless the app allows less', () => {
    const strict = createParsers({ ...settings, maxGracePeriodSeconds: 60 })

    expect(parse.rotation({})).toEqual({ gracePeriodSeconds: 86_400 })
    expect(parse.rotation({ gracePeriodSeconds: 0 })).toEqual({ gracePeriodSeconds: 0 })
    expect(strict.rotationWish({})).toEqual({ gracePeriodSeconds: 60 })
  })

  it.each([-1, 1.5, '60', null, 2_592_001])('is refused with a grace of %j', (given) => {
    expect(faultsOf(() => parse.rotationWish({ gracePeriodSeconds: given }))).toEqual([
      '#/gracePeriodSeconds must be a whole number of seconds from 0 to 2592000',
    ])
  })
})

describe('a reason', () => {
  it('is trimmed, and may be left out', () => {
    expect(parse.explanation({ reason: ' Lost the laptop.\nAgain. ' })).toEqual({
      reason: 'Lost the laptop.\nAgain.',
    })
    expect(parse.explanation({})).toEqual({})
  })

  it.each<Refused>(
    titled([
      [{ reason: '' }, '#/reason must have 1 to 500 characters'],
      [{ reason: 'x'.repeat(501) }, '#/reason must have 1 to 500 characters'],
      [{ reason: 7 }, '#/reason must be text'],
      [{ because: 'x' }, '#/because is not known here'],
    ]),
  )('is refused: %s', (_, input, faults) => {
    expect(faultsOf(() => parse.explanation(input))).toEqual(faults)
  })
})

describe('the options of a call', () => {
  it('are read, with the address in its shortest form', () => {
    expect(
      parse.circumstances({
        userId: 7,
        address: '[2001:DB8::1]:443',
        reason: 'x',
        actor: { type: 'admin', id: 8n },
      }),
    ).toEqual({
      userId: '7',
      address: '2001:db8::1',
      reason: 'x',
      actor: { type: 'admin', id: '8' },
    })
    expect(parse.circumstances({ actor: { type: 'system' } })).toEqual({
      actor: { type: 'system' },
    })
  })

  it('are refused with every fault at once', () => {
    const options = {
      actor: { type: 'robot' },
      address: 'localhost',
      reason: 'x'.repeat(501),
      user: 'alice',
    }

    expect(faultsOf(() => parse.circumstances(options))).toEqual([
      '#/address must be an IP address',
      '#/reason must have 1 to 500 characters',
      '#/actor must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
      '#/user is not known here',
    ])
    expect(faultsOf(() => parse.circumstances({ actor: { type: 'user', id: '' } }))).toEqual([
      '#/actor/id must have 1 to 255 characters',
    ])
  })
})

describe('the query of a change', () => {
  it('has administrators wait if they say so', () => {
    expect(parse.everywhere({})).toEqual({ everywhere: false })
    expect(parse.everywhere({ everywhere: 'true' })).toEqual({ everywhere: true })
    expect(parse.everywhere({ everywhere: 'false' })).toEqual({ everywhere: false })
  })

  it.each(['yes', '', '1', ['true', 'true']])('is refused with everywhere=%j', (given) => {
    expect(faultsOf(() => parse.everywhere({ everywhere: given }))).toEqual([
      '#/everywhere must be true or false',
    ])
  })

  it('is refused with a reason if nothing waits for the change', () => {
    const parseQuery = parse.notEverywhere('is for administrators')

    expect(parseQuery({})).toEqual({})
    expect(faultsOf(() => parseQuery({ everywhere: 'false', everywere: 'true' }))).toEqual([
      '#/everywhere is for administrators',
      '#/everywere is not known here',
    ])
  })
})

describe('a page of keys', () => {
  const position = { value: '1767225600000', id: randomUUID() }

  it('has 20 keys, the newest first', () => {
    expect(parse.list({})).toEqual({ limit: 20, sort: '-createdAt' })
    expect(parse.ownList({})).toEqual({ limit: 20, sort: '-createdAt' })
  })

  it('may be asked for as queries do, and as functions do', () => {
    const query = { limit: '100', status: 'ACTIVE,REVOKED,ACTIVE', isExpired: 'true', sort: 'name' }
    const filter = { limit: 100, status: ['ACTIVE', 'REVOKED'], isExpired: true, sort: 'name' }

    expect(parse.ownList(query)).toEqual(filter)
    expect(parse.ownList(filter)).toEqual(filter)
    expect(parse.list({ ...query, userId: 7 })).toEqual({ ...filter, userId: '7' })
  })

  it('goes on where the page before ended', () => {
    const cursor = formatKeyCursor({ ...position, sort: 'createdAt' })

    expect(parse.ownList({ cursor, sort: 'createdAt' }).cursor).toEqual({
      ...position,
      sort: 'createdAt',
    })
    expect(faultsOf(() => parse.ownList({ cursor }))).toEqual([`#/cursor ${cursorRule}`])
    expect(faultsOf(() => parse.list({ cursor }))).toEqual([`#/cursor ${cursorRule}`])
  })

  const withValue = (value: string, id: string = position.id) =>
    formatKeyCursor({ sort: '-createdAt', value, id })

  it.each([
    ['nothing', ''],
    ['words', 'the next page'],
    ['another text', Buffer.from('hello').toString('base64url')],
    ['the cursor of events', formatEventCursor({ id: '42' })],
    ['no id', withValue('1767225600000', '-'.repeat(36))],
    ['no time', withValue('NaN')],
    ['a time before all', withValue('-999999999999999')],
    ['a time after all', withValue('9999999999999999')],
    ['more than one', withValue('1\n')],
    ['an order that is none', formatKeyCursor({ ...position, sort: 'userId' as 'name' })],
    ['SQL', withValue(`' OR 1=1 --`)],
  ])('is refused with a cursor that holds %s', (_, cursor) => {
    expect(faultsOf(() => parse.list({ cursor }))).toEqual([`#/cursor ${cursorRule}`])
  })

  it.each<Refused>(
    titled([
      ...[0, 101, -1, 1.5, null, '0', '101', '-1', '1.5', 'ten', '', ['1', '2']].map(
        (limit): [object, string] => [{ limit }, `#/limit ${pageRule}`],
      ),
      ...['EXPIRED', 'ACTIVE,EXPIRED', 'ACTIVE,', 'active', '', [], ['ACTIVE', 'EXPIRED']].map(
        (status): [object, string] => [{ status }, `#/status ${statusRule}`],
      ),
      [{ isExpired: '1' }, '#/isExpired must be true or false'],
      [
        { sort: 'userId' },
        '#/sort must be one of createdAt, -createdAt, name, -name, lastUsedAt, -lastUsedAt, expiresAt, -expiresAt',
      ],
      [{ state: 'ACTIVE' }, '#/state is not known here'],
    ]),
  )('is refused: %s', (_, filter, faults) => {
    expect(faultsOf(() => parse.ownList(filter))).toEqual(faults)
    expect(faultsOf(() => parse.list(filter))).toEqual(faults)
  })

  it.each<Refused>(
    titled([
      [{ userId: 'bob' }, '#/userId is not known here'],
      [{ permission: 'READ_GRAPH' }, '#/permission is not known here'],
      [{ text: 'x' }, '#/text is not known here'],
    ]),
  )('of an owner is refused: %s', (_, filter, faults) => {
    expect(faultsOf(() => parse.ownList(filter))).toEqual(faults)
  })

  it.each<Refused>(
    titled([
      [{ userId: '' }, '#/userId must have 1 to 255 characters'],
      [{ userId: ['a', 'b'] }, '#/userId must be a user id'],
      [{ permission: 'NOPE' }, `#/permission ${permissionRule}`],
      [{ text: '  ' }, `#/text ${textRule}`],
      [{ text: 'x'.repeat(201) }, `#/text ${textRule}`],
      [{ text: '\0' }, '#/text must not contain control characters'],
      [{ text: `${'x '.repeat(10)}y` }, '#/text must have at most 10 words'],
      [{ sort: '-name' }, '#/sort must be createdAt or -createdAt, unless userId is given'],
    ]),
  )('of all users is refused: %s', (_, filter, faults) => {
    expect(faultsOf(() => parse.list(filter))).toEqual(faults)
  })
})

describe('a page of events', () => {
  it('has 20 entries, and goes on where the page before ended', () => {
    expect(parse.eventPage({})).toEqual({ limit: 20 })
    expect(parse.eventList({ cursor: formatEventCursor({ id: '42' }) })).toEqual({
      limit: 20,
      cursor: { id: '42' },
    })
  })

  it.each<Refused>(
    titled([
      [{ limit: 0 }, `#/limit ${pageRule}`],
      [{ cursor: 'x' }, `#/cursor ${cursorRule}`],
      [{ status: 'ACTIVE' }, '#/status is not known here'],
    ]),
  )('is refused: %s', (_, filter, faults) => {
    expect(faultsOf(() => parse.eventPage(filter))).toEqual(faults)
    expect(faultsOf(() => parse.eventList(filter))).toEqual(faults)
  })

  it('of all keys is refused with a key or an action that is none', () => {
    const [apiKeyId, action] = faultsOf(() => parse.eventList({ apiKeyId: '1', action: 'expired' }))

    expect(apiKeyId).toBe('#/apiKeyId must be a UUID')
    expect(action).toMatch(/^#\/action must be one of created, updated, .*truncated$/)
    expect(faultsOf(() => parse.eventPage({ apiKeyId: randomUUID() }))).toEqual([
      '#/apiKeyId is not known here',
    ])
  })
})

describe('a question for usage', () => {
  it('is by the hour', () => {
    const from = new Date('2026-11-04T00:00:00Z')

    expect(parse.usageQuery({})).toEqual({ by: 'hour' })
    expect(parse.usageFilter({ from: from.toISOString(), to: from, by: 'day' })).toEqual({
      from,
      to: from,
      by: 'day',
    })
  })

  it.each<Refused>(
    titled([
      [{ from: 'yesterday' }, `#/from ${timeRule}`],
      [{ from: '' }, `#/from ${timeRule}`],
      [{ from: new Date(Number.NaN) }, `#/from ${timeRule}`],
      [{ to: ['2026-11-04T00:00:00Z', '2026-11-05T00:00:00Z'] }, `#/to ${timeRule}`],
      [{ from: '1969-12-31T23:59:59Z' }, '#/from must be between the years 1970 and 10000'],
      [{ by: 'minute' }, '#/by must be one of hour, day'],
      [{ owner: 'alice' }, '#/owner is not known here'],
    ]),
  )('is refused: %s', (_, query, faults) => {
    expect(faultsOf(() => parse.usageQuery(query))).toEqual(faults)
    expect(faultsOf(() => parse.usageFilter(query))).toEqual(faults)
  })

  it('is for all keys if it names an owner or a key', () => {
    expect(faultsOf(() => parse.usageQuery({ userId: 'alice' }))).toEqual([
      '#/userId is not known here',
    ])
    expect(faultsOf(() => parse.usageFilter({ apiKeyId: '7' }))).toEqual([
      '#/apiKeyId must be a UUID',
    ])
  })
})

describe('the head of an audit trail', () => {
  const head = {
    position: 7,
    hash: 'a'.repeat(64),
    at: '2026-11-04T00:00:00.000Z',
    secretId: null,
    mac: 'b'.repeat(64),
  }

  it('is what was exported, or nothing', () => {
    expect(parse.auditVerification({ head })).toEqual({ head })
    expect(parse.auditVerification({ head: { ...head, position: 0, hash: '' } }).head?.hash).toBe(
      '',
    )
    expect(parse.auditVerification({})).toEqual({})
  })

  it.each<Refused>([
    ['a place before the first', { position: -1 }, ['#/head/position must not be negative']],
    ['a place that is none', { position: '7' }, ['#/head/position must be a whole number']],
    ['a hash that is none', { hash: 'x' }, ['#/head/hash must be 64 hexadecimal characters']],
    ['a time that is none', { at: 'now' }, ['#/head/at must be a time']],
    ['a time elsewhere', { at: '2026-11-04T00:00:00+01:00' }, ['#/head/at must be a time']],
    [
      'a secret that is none',
      { secretId: 7 },
      ['#/head/secretId must be 16 hexadecimal characters'],
    ],
    ['a signature that is none', { mac: '' }, ['#/head/mac must be 64 hexadecimal characters']],
    ['more than a head', { more: 1 }, ['#/head/more is not known here']],
  ])('is refused with %s', (_, change, faults) => {
    const changed = { head: { ...head, ...(change as object) } }

    expect(faultsOf(() => parse.auditVerification(changed))).toEqual(faults)
  })

  it('is refused if it is a number', () => {
    expect(faultsOf(() => parse.auditVerification({ head: 7 }))).toEqual([
      '#/head must be a JSON object',
    ])
  })
})

describe('housekeeping', () => {
  it('is done at once, unless it is tried first', () => {
    expect(parse.pruning({ olderThanDays: 7 })).toEqual({ olderThanDays: 7, dryRun: false })
    expect(parse.unusedKeys({ unusedForDays: 36_500, dryRun: true })).toEqual({
      unusedForDays: 36_500,
      dryRun: true,
    })
    expect(parse.revokeUnused({ unusedForDays: 1, userId: 7, reason: 'x' })).toEqual({
      unusedForDays: 1,
      userId: '7',
      dryRun: false,
      reason: 'x',
    })
    expect(parse.housekeeping({ usage: 7 })).toEqual({ usage: 7, dryRun: false })
    expect(parse.revokeAll({ userId: 'alice' })).toEqual({ userId: 'alice', dryRun: false })
  })

  it.each<Refused>([
    ['undefined', undefined, ['# must be a JSON object']],
    ['nothing', {}, ['#/olderThanDays is required']],
    ...titled([
      [{ olderThanDays: 0 }, `#/olderThanDays ${daysRule}`],
      [{ olderThanDays: 1.5 }, `#/olderThanDays ${daysRule}`],
      [{ olderThanDays: 36_501 }, `#/olderThanDays ${daysRule}`],
      [{ olderThanDays: '7' }, `#/olderThanDays ${daysRule}`],
      [{ olderThanDays: 7, dryRun: 'yes' }, '#/dryRun must be true or false'],
      [{ olderThanDays: 7, days: 7 }, '#/days is not known here'],
    ]),
  ])('prunes nothing by %s', (_, input, faults) => {
    expect(faultsOf(() => parse.pruning(input))).toEqual(faults)
  })

  const wish = 'must say how many days old revokedKeys, events or usage have to be'

  it.each<Refused>(
    titled([
      [{}, `# ${wish}`],
      [{ dryRun: true }, `# ${wish}`],
      [{ revokedKeys: 0 }, `#/revokedKeys ${daysRule}`],
      [{ events: 1.5 }, `#/events ${daysRule}`],
      [{ usage: '7' }, `#/usage ${daysRule}`],
      [{ usage: 7, dryRun: 'yes' }, '#/dryRun must be true or false'],
      [{ keys: 7, usage: 7 }, '#/keys is not known here'],
    ]),
  )('of several kinds is refused by %s', (_, input, faults) => {
    expect(faultsOf(() => parse.housekeeping(input))).toEqual(faults)
  })

  it.each<Refused>(
    titled([
      [{}, '#/userId is required'],
      [{ userId: null }, '#/userId must be a user id'],
      [{ userId: '' }, '#/userId must have 1 to 255 characters'],
      [{ userId: ['alice'] }, '#/userId must be a user id'],
      [{ userId: 'alice', reason: '' }, '#/reason must have 1 to 500 characters'],
      [{ userId: 'alice', status: 'ACTIVE' }, '#/status is not known here'],
    ]),
  )('revokes no keys of a user by %s', (_, input, faults) => {
    expect(faultsOf(() => parse.revokeAll(input))).toEqual(faults)
  })
})

describe('the id of a user', () => {
  const idRules = {
    text: [42, '42'],
    uuid: ['7D444840-9DC0-11D1-B245-5FFDCE74FAD2', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    integer: ['007', 7],
    bigint: [9_007_199_254_740_993n, '9007199254740993'],
  } as const
  const types = Object.keys(idRules) as (keyof typeof idRules)[]

  it.each(types)('of the type %s has one form', (userIdType) => {
    const [given, form] = idRules[userIdType]
    const { owner, readUserId } = createParsers({ ...settings, userIdType })

    expect(owner({ userId: given })).toEqual({ userId: form })
    expect(readUserId(given)).toBe(form)
  })

  it.each([
    ['text', '', 'must have 1 to 255 characters'],
    ['text', 'x'.repeat(256), 'must have 1 to 255 characters'],
    ['text', 1.5, 'must be a user id'],
    ['text', true, 'must be a user id'],
    ['text', {}, 'must be a user id'],
    ['text', null, 'must be a user id'],
    ['uuid', '7d444840', 'must be a UUID'],
    ['uuid', '', 'must be a UUID'],
    ['uuid', 42, 'must be a UUID'],
    ['uuid', null, 'must be a UUID'],
    ['integer', 2 ** 31, 'is out of range'],
    ['integer', -(2 ** 31) - 1, 'is out of range'],
    ['integer', 1.5, 'must be a whole number'],
    ['integer', '1e3', 'must be a whole number'],
    ['integer', '0x10', 'must be a whole number'],
    ['integer', ' 7', 'must be a whole number'],
    ['integer', '', 'must be a whole number'],
    ['integer', true, 'must be a whole number'],
    ['integer', null, 'must be a whole number'],
    ['bigint', 2n ** 63n, 'is out of range'],
    ['bigint', '1.0', 'must be a whole number'],
    ['bigint', 2 ** 60, 'must be a whole number'],
    ['bigint', null, 'must be a whole number'],
  ] as const)('of the type %s is not %p', (userIdType, userId, message) => {
    const { owner, anyOwner, readUserId } = createParsers({ ...settings, userIdType })

    expect(faultsOf(() => owner({ userId }))).toEqual([`#/userId ${message}`])
    expect(faultsOf(() => anyOwner({ userId }))).toEqual([`#/userId ${message}`])
    expect(readUserId(userId)).toBeUndefined()
  })

  it.each([
    ['a NUL', 'a\0'],
    ['half a character', '\ud800'],
  ])('of the type text has no %s', (_, userId) => {
    expect(faultsOf(() => parse.owner({ userId }))).toEqual([
      '#/userId must be well-formed Unicode',
    ])
  })
})
