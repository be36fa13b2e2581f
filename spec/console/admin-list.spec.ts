import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { rowsOf, textOf } from '../support/visitor'

const { apiKeys, as, createKey } = useConsole({}, { admin: true, title: 'Acme' })

const admin = as('admin-root')

/** Returns the names in the list, by the query of its filters. */
async function namesWith(query: string) {
  return rowsOf(await admin.open(`${mount}?${query}`)).map(({ Name }) => Name)
}

describe('the list of all keys', () => {
  it('shows the keys of all owners, each with its owner, and who made it', async () => {
    const [alice, bob] = [newUser(), newUser()]
    await createKey({ userId: alice, name: 'Of Alice' })
    await createKey({ userId: bob, name: 'Of Bob' })
    const page = await admin.open(mount)
    const owner = await admin.follow(page, bob)

    expect(page.status).toBe(200)
    expect(rowsOf(page).slice(0, 2)).toMatchObject([
      { Name: 'Of Bob', Owner: bob },
      { Name: 'Of Alice', Owner: alice },
    ])
    expect(textOf(owner.root.querySelector('h1'))).toBe(bob)
    expect(page.root.querySelectorAll('.sections a').map(textOf)).toEqual([
      'Keys',
      'Owners',
      'Usage',
      'Audit trail',
      'Unused keys',
      'Health',
    ])
  })

  it('filters by owner, maker, status, permission, and words, alone and together', async () => {
    const [owner, maker] = [newUser(), newUser()]
    const by = { actor: { type: 'admin', id: maker } } as const
    const wish = { userId: owner, permissions: ['READ_GRAPH'] } as const
    const { apiKey } = await apiKeys.create({ ...wish, name: 'Plain one' })
    await apiKeys.create({ ...wish, name: 'Made one' }, by)
    await apiKeys.create({ ...wish, name: 'Strong one', permissions: ['EXECUTE_BLOCK'] })
    await createKey({ userId: owner, name: 'Suspended one', status: 'SUSPENDED' })
    await createKey({ userId: owner, name: 'Revoked one', status: 'REVOKED' })

    expect(await namesWith(`ownerId=${owner}`)).toEqual([
      'Suspended one',
      'Strong one',
      'Made one',
      'Plain one',
    ])
    expect(await namesWith(`createdBy=${maker}`)).toEqual(['Made one'])
    expect(await namesWith(`ownerId=${owner}&permission=EXECUTE_BLOCK`)).toEqual(['Strong one'])
    expect(await namesWith(`ownerId=${owner}&status=revoked`)).toEqual(['Revoked one'])
    expect(await namesWith(`ownerId=${owner}&status=suspended&q=one`)).toEqual(['Suspended one'])
    expect(await namesWith(`q=${apiKey.prefix}`)).toEqual(['Plain one'])
    expect(await namesWith(`ownerId=${owner}&sort=name`)).toEqual([
      'Made one',
      'Plain one',
      'Strong one',
      'Suspended one',
    ])
  })

  it('lists the filters in use, each with a link that removes it', async () => {
    const owner = newUser()
    await createKey({ userId: owner, name: 'Chipped', permissions: ['READ_BLOCK'] })
    const start = await admin.open(mount)
    const fields = { ownerId: owner, permission: 'EXECUTE_BLOCK' }
    const none = await admin.press(start, 'Apply filters', fields)
    const chips = none.root.querySelectorAll('.chips li')
    const remove = chips[1]?.querySelector('a')?.getAttribute('href') ?? ''
    const found = await admin.open(new URL(remove, `http://app.test${none.url}`).href.slice(15))

    expect(chips.map(textOf)).toEqual([`Owner: ${owner}×`, 'Permission: EXECUTE_BLOCK×'])
    expect(none.text).toContain('No key matches')
    expect(rowsOf(found).map(({ Name }) => Name)).toEqual(['Chipped'])
  })

  it('goes on in pages with its filters', async () => {
    const owner = newUser()
    const wish = { userId: owner, permissions: ['READ_GRAPH'] } as const
    await apiKeys.createMany(Array.from({ length: 25 }, (_, i) => ({ ...wish, name: `Key ${i}` })))
    const first = await admin.open(`${mount}?ownerId=${owner}`)
    const second = await admin.follow(first, 'Next page')

    expect([rowsOf(first).length, rowsOf(second).length]).toEqual([20, 5])
    expect(second.url).toContain(`ownerId=${owner}`)
  })

  it.each([
    [`createdBy=${'x'.repeat(256)}`, 'Made by must have 1 to 255 characters.'],
    ['permission=a%20b', /^Permission must have 1 to 100 printable characters/],
    ['ownerType=robot&ownerId=r2', 'Owner must be one of user.'],
    ['cursor=nonsense', 'This page of the list is not there any more. Start again with the first.'],
  ])('says what it cannot filter: %s', async (query, fault) => {
    const page = await admin.open(`${mount}?${query}`)

    expect(page.status).toBe(422)
    expect(textOf(page.root.querySelector('[role=alert]'))).toMatch(fault)
  })
})
