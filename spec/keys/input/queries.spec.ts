import { randomUUID } from 'node:crypto'

import { formatEventCursor, formatKeyCursor } from '../../../lib/keys/cursor'
import { faultsOf, parse, type Refused, timeRule, titled } from '../../support/input'

const nameRule = 'must have 1 to 100 printable characters of ASCII without space, " and \\'

const pageRule = 'must be a whole number from 1 to 100'
const cursorRule = 'must be the nextCursor of a page before'
const statusRule = 'must be one of ACTIVE, SUSPENDED, REVOKED'
const textRule = 'must have 1 to 1024 characters'

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
    expect(parse.list({ ...query, userId: 7 })).toEqual({
      ...filter,
      owner: { type: 'user', id: '7' },
    })
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
      [{ state: 'ACTIVE' }, '#/state is not known here (did you mean status?)'],
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
      [{ permission: 'READ GRAPH' }, `#/permission ${nameRule}`],
      [{ permission: ['READ_GRAPH'] }, `#/permission ${nameRule}`],
      [{ permission: '' }, `#/permission ${nameRule}`],
      [{ text: '  ' }, `#/text ${textRule}`],
      [{ text: 'x'.repeat(1_025) }, `#/text ${textRule}`],
      [{ text: '\0' }, '#/text must not contain control characters'],
      [{ text: `${'x '.repeat(10)}y` }, '#/text must have at most 10 words'],
      [{ sort: '-name' }, '#/sort must be createdAt or -createdAt, unless an owner is given'],
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
    expect(action).toMatch(/^#\/action must be one of created, imported, updated, .*truncated$/)
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
      [{ color: 'red' }, '#/color is not known here'],
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

  it('is an exported head, or nothing', () => {
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
