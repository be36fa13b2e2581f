import { newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld, type CreatedKey } from '../support/world'

const world = useWorld({ options: { maxStalenessMs: 300 } })

const suspended = { valid: false, code: 'suspended' }
let userId: string

beforeEach(() => {
  userId = newUser()
})

async function verdictOf({ plainTextKey }: CreatedKey) {
  return world.apiKeys.verify(plainTextKey)
}

async function createKeys(count: number): Promise<CreatedKey[]> {
  const keys = await Promise.all(Array.from({ length: count }, () => world.createKey({ userId })))
  for (const key of keys) expect(await verdictOf(key)).toMatchObject({ valid: true })
  return keys
}

async function suspend(id = userId) {
  await world.rows(`INSERT INTO api_key_suspended_owners (user_id) VALUES ($1)`, [id])
}

async function untilRefused(keys: readonly CreatedKey[]) {
  for (const key of keys) await until(async () => !(await verdictOf(key)).valid)
  for (const key of keys) expect(await verdictOf(key)).toEqual(suspended)
}

async function untilAccepted(keys: readonly CreatedKey[]) {
  for (const key of keys) await until(async () => (await verdictOf(key)).valid)
}

describe('the keys of a suspended owner', () => {
  it.each([
    ['deleted', 'DELETE FROM api_key_suspended_owners'],
    ['truncated', 'TRUNCATE api_key_suspended_owners'],
    ['given to another owner', `UPDATE api_key_suspended_owners SET user_id = 'another'`],
  ])('are refused from the row of SQL on, until it is %s', async (_, sql) => {
    const keys = await createKeys(3)
    const other = await world.createKey()
    await verdictOf(other)

    await suspend()
    await untilRefused(keys)
    expect(await verdictOf(other)).toMatchObject({ valid: true })

    await world.rows(sql)
    await untilAccepted(keys)
    await world.rows('DELETE FROM api_key_suspended_owners')
  })

  it('take one row and one entry of the log', async () => {
    await createKeys(5)
    const before = await world.rows('SELECT FROM api_key_changes')

    await suspend()

    expect(await world.rows('SELECT FROM api_key_changes')).toHaveLength(before.length + 1)
  })

  it('are refused if they are read for the first time, and keep the other reasons of their refusal', async () => {
    const [active, revoked] = [
      await world.createKey({ userId }),
      await world.createKey({ userId, status: 'REVOKED' }),
    ]
    await suspend()

    expect(await verdictOf(active)).toEqual(suspended)
    expect(await verdictOf(revoked)).toEqual({ valid: false, code: 'revoked' })
  })

  it('stay suspended by themselves after the owner is reactivated', async () => {
    const [key, other] = [
      await world.createKey({ userId, status: 'SUSPENDED' }),
      await world.createKey({ userId }),
    ]
    await suspend()
    await untilRefused([key, other])

    await world.rows('DELETE FROM api_key_suspended_owners WHERE user_id = $1', [userId])
    await untilAccepted([other])

    expect(await verdictOf(key)).toEqual(suspended)
  })

  it('abort the signals of requests under way', async () => {
    const key = await world.createKey({ userId })
    const verdict = await verdictOf(key)
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey

    await suspend()
    await until(async () => signal.aborted)

    expect(signal.reason).toMatchObject({ code: 'invalid_api_key' })
  })

  it('are not accepted from the cache while a trigger of the suspensions is off', async () => {
    const [key] = await createKeys(1)
    if (!key) throw new Error('no key')
    await world.rows(
      'ALTER TABLE api_key_suspended_owners DISABLE TRIGGER api_key_gather_suspension',
    )
    await suspend()

    await until(async () => (await world.apiKeys.health()).feed === 'untrusted')
    await until(async () => !(await verdictOf(key)).valid)
    expect(await verdictOf(key)).toEqual(suspended)

    await world.rows(
      'ALTER TABLE api_key_suspended_owners ENABLE ALWAYS TRIGGER api_key_gather_suspension',
    )
    await until(async () => (await world.apiKeys.health()).feed === 'following')
  })

  it('are refused although more owners have cached keys than the cache holds', async () => {
    const small = world.createProcess({ cacheSize: 2, maxStalenessMs: 300 }).apiKeys
    const keys = await Promise.all(
      Array.from({ length: 10 }, () => world.createKey({ userId: newUser() })),
    )
    for (const { plainTextKey } of keys) await small.verify(plainTextKey)

    for (const key of keys) await suspend(key.userId)

    for (const { plainTextKey } of keys) {
      await until(async () => !(await small.verify(plainTextKey)).valid)
      expect(await small.verify(plainTextKey)).toEqual(suspended)
    }
  })
})
