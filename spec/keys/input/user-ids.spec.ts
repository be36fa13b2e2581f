import { createParsers } from '../../../lib/keys/input'
import { faultsOf, parse, settings } from '../../support/input'

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
    const { owner, readUserId } = createParsers({ ...settings, idTypes: { user: userIdType } })

    expect(owner({ userId: given })).toEqual({ owner: { type: 'user', id: form } })
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
    const { owner, anyOwner, readUserId } = createParsers({
      ...settings,
      idTypes: { user: userIdType },
    })

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
