import { createParsers } from '../../../lib/keys/input'
import { faultsOf, parse, type Refused, settings, timeRule, titled } from '../../support/input'

const daysRule = 'must be a whole number of days from 1 to 36500'

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

    const activate = 'now'
    expect(parse.rotation({})).toEqual({ gracePeriodSeconds: 86_400, activate })
    expect(parse.rotation({ gracePeriodSeconds: 0 })).toEqual({ gracePeriodSeconds: 0, activate })
    expect(strict.rotationWish({})).toEqual({ gracePeriodSeconds: 60, activate })
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
      owner: { type: 'user', id: '7' },
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
      '#/user is not known here (did you mean userId?)',
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

describe('housekeeping', () => {
  it('is done at once, unless it is tried first', () => {
    expect(parse.pruning({ olderThanDays: 7 })).toEqual({ olderThanDays: 7, dryRun: false })
    expect(parse.unusedKeys({ unusedForDays: 36_500, dryRun: true })).toEqual({
      unusedForDays: 36_500,
      dryRun: true,
    })
    expect(parse.revokeUnused({ unusedForDays: 1, userId: 7, reason: 'x' })).toEqual({
      unusedForDays: 1,
      owner: { type: 'user', id: '7' },
      dryRun: false,
      reason: 'x',
    })
    expect(parse.housekeeping({ usage: 7 })).toEqual({ usage: 7, dryRun: false })
    expect(parse.revokeAll({ userId: 'alice' })).toEqual({
      owner: { type: 'user', id: 'alice' },
      dryRun: false,
    })
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
      [{}, '#/owner is required'],
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
