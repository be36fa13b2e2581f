import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { faultOf, textOf, type OpenPage } from '../support/visitor'

const { apiKeys, as, createKey, rows } = useConsole({}, { admin: true })

const admin = as('admin-root')

async function entriesOf(id: string) {
  return (await apiKeys.events({ owner: { type: 'user', id } })).events
}

/** Returns the names in a table of keys. */
function namesIn({ root }: OpenPage): string[] {
  return root.querySelectorAll('table.brief th.name a').map(textOf)
}

function ownerPage(id: string) {
  return admin.open(`${mount}/owner?ownerId=${id}`)
}

describe('the page of an owner', () => {
  it('is found by the id, and has the keys, the usage and the entries of the owner', async () => {
    const owner = newUser()
    await createKey({ userId: newUser(), name: 'Foreign' })
    const { id } = await createKey({ userId: owner, name: 'Mine' })
    await createKey({ userId: owner, name: 'Gone', status: 'REVOKED' })
    await rows(
      `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       VALUES ($1, 'user', $2, date_trunc('hour', now()), 1234, 0, 0)`,
      [id, owner],
    )
    const page = await admin.press(await admin.open(`${mount}/owner`), 'Show owner', {
      ownerId: owner,
    })

    expect(page.status).toBe(200)
    expect(textOf(page.root.querySelector('h1'))).toBe(owner)
    expect(namesIn(page)).toEqual(['Mine'])
    expect(page.text).toContain('Keys that are not revoked 1')
    expect(page.text).toContain('1,234')
    expect(page.root.querySelectorAll('.events tbody tr').map(textOf)[0]).toContain('Revoked')
  })

  it('says so if the id is none', async () => {
    const page = await ownerPage('x'.repeat(256))

    expect(page.status).toBe(422)
    expect(faultOf(page, 'Owner')).toBe('Owner must have 1 to 255 characters.')
  })

  it('suspends and reactivates the owner, after it has said which keys that is about', async () => {
    const owner = newUser()
    const { plainTextKey } = await createKey({ userId: owner, name: 'Refused meanwhile' })
    const question = await admin.follow(await ownerPage(owner), 'Suspend owner')
    const suspended = await admin.press(question, 'Suspend owner', { reason: 'On leave' })
    const whileSuspended = await apiKeys.verify(plainTextKey)
    const listed = await admin.open(`${mount}/owner`)
    const back = await admin.follow(suspended, 'Reactivate owner')
    const active = await admin.press(back, 'Reactivate owner', { reason: 'Back' })

    expect(namesIn(question)).toEqual(['Refused meanwhile'])
    expect(textOf(question.root.querySelector('h1'))).toBe(`Suspend ${owner}?`)
    expect(suspended.text).toContain('The owner is suspended.')
    expect(suspended.text).toContain('On leave')
    expect(suspended.text).not.toContain('Create key')
    expect(whileSuspended).toMatchObject({ valid: false })
    expect(listed.text).toContain(owner)
    expect(active.text).toContain('The owner is reactivated.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
    expect(await entriesOf(owner)).toMatchObject([
      { action: 'owner_reactivated', reason: 'Back', actorId: 'admin-root' },
      { action: 'owner_suspended', reason: 'On leave', actorType: 'admin' },
      { action: 'created' },
    ])
  })

  it('suspends an owner without keys, twice without harm, and claims nothing untrue', async () => {
    const owner = newUser()
    const question = await admin.open(`${mount}/owner/suspend?ownerId=${owner}`)
    const claimed = await admin.open(`${mount}/owner?ownerId=${owner}&notice=owner-suspended`)
    const first = await admin.press(question, 'Suspend owner')
    const second = await admin.press(question, 'Suspend owner')

    expect(claimed.text).not.toContain('The owner is suspended.')
    expect([first.status, second.status]).toEqual([200, 200])
    expect(await entriesOf(owner)).toHaveLength(1)
  })

  it('revokes all keys, after it has said how many and which', async () => {
    const [owner, other] = [newUser(), newUser()]
    const wish = { userId: owner, permissions: ['READ_GRAPH'] } as const
    await apiKeys.createMany(Array.from({ length: 103 }, (_, i) => ({ ...wish, name: `Key ${i}` })))
    await createKey({ userId: owner, name: 'Gone', status: 'REVOKED' })
    const spared = await createKey({ userId: other })
    const question = await admin.follow(await ownerPage(owner), 'Revoke all keys')
    const done = await admin.press(question, 'Revoke 103 keys', { reason: 'Left' })
    const again = await admin.press(question, 'Revoke 103 keys')
    const { apiKeys: left } = await apiKeys.list({ userId: owner, status: ['ACTIVE'] })

    expect(textOf(question.root.querySelector('h1'))).toBe(`Revoke all keys of ${owner}?`)
    expect(namesIn(question)).toHaveLength(100)
    expect(namesIn(question)).not.toContain('Gone')
    expect(question.text).toContain('and 3 more')
    expect(textOf(done.root.querySelector('h1'))).toBe('103 keys revoked')
    expect(textOf(again.root.querySelector('h1'))).toBe('0 keys revoked')
    expect(left).toEqual([])
    expect((await apiKeys.get(spared.id)).status).toBe('ACTIVE')
    expect((await entriesOf(owner))[0]).toMatchObject({ action: 'revoked', reason: 'Left' })
    expect((await ownerPage(owner)).text).not.toContain('Revoke all keys')
  })

  it('erases the owner, after it has said what goes', async () => {
    const owner = newUser()
    const { plainTextKey } = await createKey({ userId: owner, name: 'Laptop' })
    await createKey({ userId: owner, name: 'Gone', status: 'REVOKED' })
    await createKey({ userId: newUser(), name: 'Spared' })
    const question = await admin.follow(await ownerPage(owner), 'Erase owner')
    const unexplained = await admin.press(question, 'Erase owner')
    const whileAsked = await apiKeys.verify(plainTextKey)
    const done = await admin.press(question, 'Erase owner', { reason: 'Request 4711' })
    const again = await admin.press(question, 'Erase owner', { reason: 'Request 4711' })

    expect(textOf(question.root.querySelector('h1'))).toBe(`Erase ${owner}?`)
    expect(namesIn(question)).toEqual(['Laptop'])
    expect(question.text).toContain('Keys, also those that are revoked2')
    expect(question.text).toContain('Entries of the audit trail that lose personal data3')
    expect(unexplained.status).toBe(422)
    expect(faultOf(unexplained, 'Reason')).toBe('Reason must have 1 to 500 characters.')
    expect(whileAsked.valid).toBe(true)
    expect(textOf(done.root.querySelector('h1'))).toBe('The owner is erased')
    expect(done.text).toContain('Keys, also those that are revoked2')
    expect(again.text).toContain('Keys, also those that are revoked0')
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: false })
    expect(await entriesOf(owner)).toEqual([])
    expect((await apiKeys.events({ action: 'owner_erased' })).events[0]).toMatchObject({
      actorType: 'admin',
      actorId: 'admin-root',
      reason: 'Request 4711',
    })
  })

  it('erases no owner for users who are no administrators', async () => {
    const owner = newUser()
    await createKey({ userId: owner })
    const question = await admin.open(`${mount}/owner/erase?ownerId=${owner}`)
    const fields = { reason: 'Request 4711' }

    const refused = [
      await as('mallory').press(question, 'Erase owner', fields),
      await as(owner).press(question, 'Erase owner', fields),
    ]

    expect(refused.map(({ status }) => status)).toEqual([403, 403])
    expect(await apiKeys.countRevocable({ type: 'user', id: owner })).toEqual({ keys: 1 })
  })

  it.each(['suspend', 'reactivate', 'revoke-all', 'erase'])(
    'asks for an owner before it does anything: %s',
    async (view) => {
      const question = await admin.open(`${mount}/owner/${view}`)
      const wrong = await admin.open(`${mount}/owner/${view}?ownerId=${'x'.repeat(256)}`)

      expect(question.url).toMatch(/\/owner\?/)
      expect(textOf(question.root.querySelector('h1'))).toBe('Owners')
      expect(faultOf(wrong, 'Owner')).toBe('Owner must have 1 to 255 characters.')
    },
  )

  it('keeps the reason that is too long, and says so beside it', async () => {
    const owner = newUser()
    const question = await admin.open(`${mount}/owner/suspend?ownerId=${owner}`)
    const refused = await admin.press(question, 'Suspend owner', { reason: 'r'.repeat(501) })

    expect(refused.status).toBe(422)
    expect(faultOf(refused, 'Reason')).toBe('Reason must have 1 to 500 characters.')
    expect(await entriesOf(owner)).toEqual([])
  })
})

/** Makes a key older than it is. */
async function age(
  id: string,
  { createdDays, usedDays }: { createdDays: number; usedDays?: number },
) {
  await rows(
    `UPDATE api_keys SET created_at = now() - $2 * interval '1 day',
            last_used_at = now() - $3::float8 * interval '1 day' WHERE id = $1`,
    [id, createdDays, usedDays ?? null],
  )
}

describe('unused keys', () => {
  it('are listed, the longest unused first, and revoked together', async () => {
    const owner = newUser()
    const [old, idle, used, young] = await Promise.all(
      ['Old', 'Idle', 'Used', 'Young'].map((name) => createKey({ userId: owner, name })),
    )
    await age(old?.id ?? '', { createdDays: 200 })
    await age(idle?.id ?? '', { createdDays: 300, usedDays: 100 })
    await age(used?.id ?? '', { createdDays: 300, usedDays: 3 })
    await age(young?.id ?? '', { createdDays: 10 })
    const start = await admin.open(`${mount}/unused`)
    const found = await admin.press(start, 'Show keys', { days: '90', ownerId: owner })
    const done = await admin.press(found, 'Revoke 2 keys', { reason: 'Not in use' })
    const after = await admin.open(`${mount}/unused?days=90&ownerId=${owner}`)
    const { apiKeys: left } = await apiKeys.list({ userId: owner, status: 'ACTIVE' })

    expect(found.text).toContain('2 keys without a use for 90 days')
    expect(namesIn(found)).toEqual(['Old', 'Idle'])
    expect(textOf(done.root.querySelector('h1'))).toBe('2 keys revoked')
    expect(left.map(({ name }) => name).toSorted()).toEqual(['Used', 'Young'])
    expect((await entriesOf(owner))[0]).toMatchObject({
      action: 'revoked',
      actorType: 'admin',
      reason: 'Not in use',
    })
    expect(after.text).toContain('No key was without a use for so long.')
  })

  it('leave out a key that is used before the button is pressed', async () => {
    const owner = newUser()
    const { id, plainTextKey } = await createKey({ userId: owner, name: 'Just used' })
    await age(id, { createdDays: 200 })
    const found = await admin.open(`${mount}/unused?days=90&ownerId=${owner}`)
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    const done = await admin.press(found, 'Revoke 1 key')

    expect(textOf(done.root.querySelector('h1'))).toBe('0 keys revoked')
    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
  })

  it.each([
    ['days=0', 'Days without use must be a whole number of days from 1 to 36500.'],
    ['days=soon', 'Days without use must be a whole number of days from 1 to 36500.'],
    ['days=', 'Days without use must be a whole number of days from 1 to 36500.'],
  ])('are not found by %s, which the page says', async (query, fault) => {
    const page = await admin.open(`${mount}/unused?${query}`)

    expect(page.status).toBe(422)
    expect(faultOf(page, 'Days without use')).toBe(fault)
    expect(page.text).not.toMatch(/Revoke \d/)
  })
})
