import { ApiKeysError } from '../../lib'
import { createTestApiKeys, type Options, type TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { forgeKey } from '../support/keys'
import { useRoles } from '../support/roles'
import { useWorld } from '../support/world'

const world = useWorld({
  options: {
    limits: { burst: { limit: 2, windowSeconds: 60 } },
    maxFailedAttemptsPerMinute: 1,
  },
})
const { apiKeys, createKey, createProcess, rows } = world

function mistype(key: string): string {
  return key.slice(0, -1) + (key.endsWith('A') ? 'B' : 'A')
}

/** Returns what is said of a condition. */
async function findingOf(
  number: number,
  plainTextKey: string,
  options?: Parameters<TestApiKeys['explain']>[1],
  instance = apiKeys,
) {
  const { conditions, reason } = await instance.explain(plainTextKey, options)
  const { holds, because } = conditions[number - 1] ?? {}
  return { reason, holds, because }
}

/** Returns the numbers of the conditions that fail. */
async function failing(plainTextKey: string, options?: Parameters<TestApiKeys['explain']>[1]) {
  const { conditions } = await apiKeys.explain(plainTextKey, options)
  return conditions.filter(({ holds }) => holds === false).map(({ number }) => number)
}

describe('explain', () => {
  it('says of a good key that all conditions hold, but those that only a request knows', async () => {
    const { plainTextKey, id } = await createKey()

    const explanation = await apiKeys.explain(plainTextKey, { permission: 'READ_GRAPH' })

    expect(explanation).toMatchObject({ isAccepted: true, reason: null })
    expect(explanation.apiKey).toEqual({
      id,
      name: 'Deployment',
      owner: { type: 'user', id: 'alice' },
    })
    expect(explanation.conditions.map(({ number, holds }) => [number, holds])).toEqual([
      [1, null],
      [2, true],
      [3, true],
      [4, true],
      [5, true],
      [6, null],
      [7, true],
      [8, true],
      [9, true],
      [10, true],
      [11, true],
    ])
  })

  it.each([
    ['no prefix of the app', 'acme_1', 'It does not begin with agpt_.'],
    ['an empty text', '', 'It does not begin with agpt_.'],
    ['a text that is no text', 7 as unknown as string, 'It does not begin with agpt_.'],
    [
      'a key that was cut off',
      forgeKey().slice(0, -1),
      'It begins like a key, but is too short or too long, or has characters that no key has.',
    ],
    ['a huge text', `agpt_${'a'.repeat(1_000_000)}`, expect.stringContaining('too long')],
    ['a mistyped key', mistype(forgeKey()), expect.stringContaining('Its check is wrong')],
  ])('says of %s that it is no key', async (_, text, because) => {
    const explanation = await apiKeys.explain(text)

    expect(explanation).toMatchObject({ isAccepted: false, apiKey: null })
    expect(explanation.conditions[1]).toMatchObject({ holds: false, because })
    expect(explanation.conditions.slice(2).map(({ holds }) => holds)).toEqual(
      Array.from({ length: 9 }, () => null),
    )
  })

  it('says of a key with a wrong check that it was mistyped', async () => {
    expect(await findingOf(2, mistype(forgeKey()))).toMatchObject({
      reason: 'malformed',
      holds: false,
      because: expect.stringContaining('Its check is wrong'),
    })
  })

  it('says of a key that was never created that no key has its hash', async () => {
    expect(await findingOf(3, forgeKey())).toEqual({
      reason: 'unknown',
      holds: false,
      because: 'No key has its hash.',
    })
  })

  it.each([
    ['REVOKED', 'revoked', 'It is REVOKED.'],
    ['SUSPENDED', 'suspended', 'The key or its owner is suspended.'],
  ] as const)('names the status %s', async (status, reason, because) => {
    const { plainTextKey } = await createKey({ status })

    expect(await findingOf(4, plainTextKey)).toEqual({ reason, holds: false, because })
  })

  it('names the time at which a key has expired', async () => {
    const { plainTextKey, id } = await createKey()
    await rows(
      `UPDATE api_keys SET created_at = '2019-01-01Z', expires_at = '2020-01-01Z' WHERE id = $1`,
      [id],
    )

    expect(await findingOf(5, plainTextKey)).toEqual({
      reason: 'expired',
      holds: false,
      because: 'Its expiresAt is 2020-01-01T00:00:00.000Z.',
    })
  })

  it('tells an old secret from the present one', async () => {
    const { plainTextKey, id } = await createKey()
    const { plainTextKey: present } = await apiKeys.rotate(id, { gracePeriodSeconds: 60 })

    expect(await findingOf(3, plainTextKey)).toMatchObject({
      holds: true,
      because: expect.stringMatching(/^It is an old secret, which works until 2/),
    })
    expect(await findingOf(3, present)).toMatchObject({
      because: 'It is the current secret of the key.',
    })

    await apiKeys.endRotation(id)

    expect(await findingOf(3, plainTextKey)).toMatchObject({ reason: 'retired', holds: false })
  })

  it('says of a new secret that was cancelled that it may never have been used', async () => {
    const { id } = await createKey()
    const { plainTextKey } = await apiKeys.rotate(id, { activate: 'on-first-use' })
    await apiKeys.endRotation(id)

    expect(await findingOf(3, plainTextKey)).toMatchObject({
      holds: false,
      because:
        'It is an old secret that has ended, or a new secret that was cancelled before its first use.',
    })
  })

  it('says if an address may use a key', async () => {
    const { plainTextKey } = await createKey({ allowedIps: ['203.0.113.0/24'] })
    const of = (ip?: string) => findingOf(7, plainTextKey, ip === undefined ? {} : { ip })

    expect(await of('203.0.113.7')).toMatchObject({ reason: null, holds: true })
    expect(await of('198.51.100.7')).toEqual({
      reason: 'address_not_allowed',
      holds: false,
      because: 'The address is 198.51.100.7.',
    })
    expect(await of()).toMatchObject({
      holds: false,
      because: 'It may be used from some addresses, and no address was named.',
    })
    expect(await of('nowhere')).toMatchObject({ because: 'What was named is no address.' })
  })

  it('names the permissions that are missing', async () => {
    const { plainTextKey } = await createKey({ permissions: ['READ_GRAPH'] })

    expect(await findingOf(8, plainTextKey, { permission: ['READ_GRAPH', 'READ_BLOCK'] })).toEqual({
      reason: 'missing_permission',
      holds: false,
      because: 'missing_permission (READ_BLOCK). It holds READ_GRAPH.',
    })
    expect(
      await findingOf(8, plainTextKey, { permission: { any: ['READ_BLOCK', 'READ_GRAPH'] } }),
    ).toMatchObject({ holds: true })
  })

  it('lists every condition that fails, and gives the reason of the verification', async () => {
    const { plainTextKey } = await createKey({ status: 'REVOKED', allowedIps: ['203.0.113.7'] })

    expect(await failing(plainTextKey, { permission: 'READ_BLOCK' })).toEqual([4, 7, 8])
    expect(await apiKeys.explain(plainTextKey)).toMatchObject({ reason: 'revoked' })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ code: 'revoked' })
  })

  it('counts nothing towards a limit, begins no window, and says when no use is left', async () => {
    const { plainTextKey } = await createKey()
    for (let times = 0; times < 5; times++) await apiKeys.explain(plainTextKey)
    expect(await findingOf(10, plainTextKey)).toMatchObject({ holds: true })

    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)
    await apiKeys.consume(verdict.apiKey)
    const [state] = await apiKeys.consume(verdict.apiKey)

    expect(state).toMatchObject({ remaining: 0 })
    expect(await findingOf(10, plainTextKey)).toEqual({
      reason: 'rate_limited',
      holds: false,
      because: 'rate_limited (burst)',
    })
  })

  it('counts no use, no refusal and no failed attempt, and reports nothing', async () => {
    const { plainTextKey, id } = await createKey({ allowedIps: ['203.0.113.7'] })
    const heard: string[] = []
    const offs = (['verified', 'denied', 'unavailable', 'retired_secret_used'] as const).map(
      (name) => apiKeys.on(name, () => heard.push(name)),
    )

    for (let times = 0; times < 3; times++) {
      await apiKeys.explain(plainTextKey, { ip: '203.0.113.7' })
      await apiKeys.explain(plainTextKey, { ip: '198.51.100.7' })
      await apiKeys.explain(forgeKey(), { ip: '192.0.2.1' })
    }
    await apiKeys.flush()
    for (const off of offs) off()

    const { totals } = await apiKeys.usage(id)
    expect(totals).toMatchObject({ accepted: 0, denied: 0 })
    expect((await apiKeys.get(id)).lastUsedAt).toBeNull()
    expect(await apiKeys.verify('nonsense', { ip: '192.0.2.1' })).toEqual({
      valid: false,
      code: 'malformed',
    })
    expect(heard).toEqual([])
  })

  it('says what the database has, and not what another process has cached', async () => {
    const other = createProcess().apiKeys
    const { plainTextKey, id } = await createKey()
    await other.explain(plainTextKey)

    await apiKeys.revoke(id, { everywhere: true })

    expect(await findingOf(4, plainTextKey, {}, other)).toMatchObject({ reason: 'revoked' })
  })

  it('holds no secret', async () => {
    const { plainTextKey } = await createKey({ status: 'REVOKED' })
    const text = JSON.stringify([
      await apiKeys.explain(plainTextKey),
      await apiKeys.explain(plainTextKey.slice(0, -1)),
    ])

    expect(text).not.toContain(plainTextKey.slice(11, -9))
  })

  it.each([
    ['a permission that the app does not have', { permission: 'READ_GRAHP' }, 'Did you mean'],
    ['an option that it does not have', { permissions: 'READ_GRAPH' }, 'there is no option'],
    ['an environment without environments', { environment: 'live' }, 'environments'],
    ['a resource without resources', { resource: { graph: '7' } }, 'resources'],
  ])('refuses %s', async (_, options, message) => {
    await expect(apiKeys.explain(forgeKey(), options as never)).rejects.toThrow(message)
  })

  it('rejects with database_unavailable if the database is away', async () => {
    const away = createTestApiKeys(databaseAway)

    await expect(away.explain(forgeKey())).rejects.toMatchObject({ code: 'database_unavailable' })
    await away.close()
  })
})

describe('explain in an app with environments and resources', () => {
  const options = {
    keyPrefix: undefined,
    environments: { live: 'acme_live', test: 'acme_test' },
    acceptedEnvironments: ['live'],
    resources: { graph: true },
  }
  const { createProcess } = useWorld()
  const keys = createProcess(options as unknown as Options).apiKeys
  const create = async (wishes: object) => {
    const input = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'], ...wishes }
    return (await keys.create(input as never)).plainTextKey
  }
  const explain = (key: string, options: object = {}) => keys.explain(key, options)

  it('says if keys of the environment are accepted', async () => {
    const key = await create({ environment: 'test' })

    const refused = await explain(key)
    const accepted = await explain(key, { environment: ['live', 'test'] })

    expect(refused.reason).toBe('environment_not_allowed')
    expect(refused.conditions[10]).toMatchObject({
      holds: false,
      because: 'It is of test; keys of live are accepted.',
    })
    expect(accepted).toMatchObject({ isAccepted: true })
    expect(accepted.conditions[10]).toMatchObject({ holds: true })
  })

  it('says if a bound key may be used for a resource', async () => {
    const key = await create({ environment: 'live', resources: { graph: ['7'] } })

    const conditionsOf = async (options?: object) => (await explain(key, options)).conditions[8]

    expect(await conditionsOf({ resource: { graph: '7' } })).toMatchObject({ holds: true })
    expect(await explain(key, { resource: { graph: '8' } })).toMatchObject({
      isAccepted: false,
      reason: 'resource_not_allowed',
    })
    expect(await conditionsOf()).toMatchObject({
      holds: null,
      because: 'It is bound to {"graph":["7"]}, and no resource was named.',
    })
  })
})

describe('explain with grantable', () => {
  const { createInstance, createKey, hold } = useRoles()

  it('says what both the key and its owner hold', async () => {
    const apiKeys = createInstance()
    const { key } = await createKey()
    await hold('alice', ['READ_GRAPH'])

    const { conditions, reason } = await apiKeys.explain(key, { permission: 'EXECUTE_GRAPH' })

    expect(reason).toBe('missing_permission')
    expect(conditions[7]).toMatchObject({
      holds: false,
      because: 'missing_permission (EXECUTE_GRAPH). It holds READ_GRAPH.',
    })
  })

  it('says that the app does not say what the owner holds', async () => {
    const apiKeys = createInstance({ grantable: rejectRoles })
    const { key } = await createKey()

    const { conditions, reason } = await apiKeys.explain(key)

    expect(new ApiKeysError('grantable_unavailable').status).toBe(503)
    expect(reason).toBe('grantable_unavailable')
    expect(conditions[7]).toMatchObject({ holds: false, because: 'grantable_unavailable' })
  })
})

function rejectRoles() {
  return Promise.reject(new Error('no roles'))
}
