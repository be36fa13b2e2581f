import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { textOf, type OpenPage } from '../support/visitor'

const { apiKeys, as, createKey, rows } = useConsole({}, { admin: true })

const admin = as('admin-root')

async function use(id: string, owner: string, verified: number, hoursAgo = 1) {
  await rows(
    `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
     VALUES ($1, 'user', $2, date_trunc('hour', now()) - $4 * interval '1 hour', $3, 0, 0)`,
    [id, owner, verified, hoursAgo],
  )
}

/** Returns the rows of the busiest keys: their names and their accepted requests. */
function busiestIn({ root }: OpenPage): string[][] {
  return root
    .querySelectorAll('.busiest tbody tr')
    .map((row) => [textOf(row.querySelector('th')), textOf(row.querySelector('td.number'))])
}

describe('the usage of all keys', () => {
  it('has totals and the busiest keys, by the day and by the hour, of all owners and of one', async () => {
    const [alice, bob] = [newUser(), newUser()]
    const busy = await createKey({ userId: alice, name: 'Busy' })
    const quiet = await createKey({ userId: bob, name: 'Quiet' })
    await use(busy.id, alice, 3_000)
    await use(quiet.id, bob, 1_000)
    await use(quiet.id, bob, 500, 48)
    await use('00000000-0000-4000-8000-000000000001', bob, 7)
    const days = await admin.open(`${mount}/usage`)
    const hours = await admin.follow(days, '24 hours')
    const ofBob = await admin.open(`${mount}/usage?ownerId=${bob}`)
    const hoursOfBob = await admin.follow(ofBob, '24 hours')

    expect(busiestIn(days)).toEqual([
      [expect.stringMatching(/^Busy/), '3,000'],
      [expect.stringMatching(/^Quiet/), '1,500'],
      ['Deleted key 00000000-0000-4000-8000-000000000001', '7'],
    ])
    expect(busiestIn(hours).map(([, count]) => count)).toEqual(['3,000', '1,000', '7'])
    expect(busiestIn(ofBob).map(([, count]) => count)).toEqual(['1,500', '7'])
    expect(busiestIn(hoursOfBob).map(([, count]) => count)).toEqual(['1,000', '7'])
    expect(textOf(days.root.querySelector('.totals dd'))).toBe('4,507')
    expect(days.text).toContain('66.6%')
    expect(ofBob.text).toContain(bob)
  })
})

describe('the health', () => {
  it('says how verification is doing, and counts keys if it is asked', async () => {
    const { plainTextKey } = await createKey({ userId: newUser() })
    await apiKeys.verify(plainTextKey)
    const health = await admin.open(`${mount}/health`)
    const counted = await admin.follow(health, 'Count living keys')
    const { livingKeys } = await apiKeys.health({ livingKeys: true })

    expect(health.text).toContain('Keys are verified.')
    expect(health.text).toContain('Following')
    expect(health.text).not.toContain('No secret')
    expect(counted.text).toContain(`No secret${livingKeys?.[0]?.keys}`)
  })

  it('says what is wrong', async () => {
    await rows('ALTER TABLE api_keys DISABLE TRIGGER USER')
    const page = await admin.open(`${mount}/health`)
    await apiKeys.migrate()

    expect(page.text).toContain('in spite of a fault')
  })
})

describe('a page of administrators', () => {
  it('is answered while an owner has 5,000 keys', async () => {
    const owner = newUser()
    const one = await createKey({ userId: owner, name: 'The one' })
    await rows(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, created_at)
       SELECT user_id, 'Key ' || number, prefix, postfix, md5(number::text) || md5(number::text), permissions,
              now() - number * interval '1 second'
         FROM api_keys, generate_series(1, 5000) AS number WHERE id = $1`,
      [one.id],
    )
    const views = [
      '',
      `?ownerId=${owner}`,
      `?ownerId=${owner}&sort=name`,
      `/owner?ownerId=${owner}`,
    ]
    const pages = await Promise.all(views.map((view) => admin.open(mount + view)))
    const question = await admin.open(`${mount}/owner/revoke-all?ownerId=${owner}`)

    expect(pages.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(question.text).toContain('Revoke 5,001 keys')
  })
})
