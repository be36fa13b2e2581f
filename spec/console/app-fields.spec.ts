import express from 'express'

import { createApiKeys } from '../../lib'
import { useWorld } from '../support/world'
import { createHttp } from '../support/http'
import { newUser } from '../support/keys'
import { createVisitor, factsOf, faultOf, fieldsOf, formWith, rowsOf } from '../support/visitor'

const { database, rows } = useWorld()

/** Sets up an app with environments and resources, and a visitor who is signed in. */
function setUp(acceptedEnvironments: ('live' | 'test')[]) {
  const user = newUser()
  const apiKeys = createApiKeys({
    sequelize: database.connect(),
    environments: {
      live: 'acme',
      test: { prefix: 'acme_test', limits: { burst: { limit: 5, windowSeconds: 60 } } },
    },
    acceptedEnvironments,
    permissions: ['READ_GRAPH'],
    resources: { graph: (ids) => !ids.includes('foreign'), folder: true },
    limits: { burst: { limit: 100, windowSeconds: 60 } },
    currentUser: () => ({ id: user }),
    isAdmin: () => true,
  })
  database.closeFirst(apiKeys)
  const app = express()
    .use('/keys', apiKeys.console())
    .use('/admin', apiKeys.console({ admin: true }))
  return {
    apiKeys,
    user,
    visitor: createVisitor(
      createHttp(() => app),
      {},
    ),
  }
}

/** Saves fields with the form of a key, and returns to what the key is bound then. */
async function edit(
  { apiKeys, visitor }: ReturnType<typeof setUp>,
  id: string,
  fields: Record<string, string | string[]>,
) {
  const form = await visitor.open(`/keys/${id}/edit`)
  const saved = await visitor.press(form, 'Save changes', fields)
  return { form, saved, after: (await apiKeys.get(id)).resources }
}

/** Returns ids, one in each line. */
function idLines(count: number): string {
  return Array.from({ length: count }, (_, id) => id).join('\n')
}

describe('in an app with environments', () => {
  it('a key is created in the one that the user chooses, and shows it', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const form = await visitor.open('/keys/new')
    const shown = await visitor.press(form, 'Create key', { name: 'CI', environment: 'test' })
    const list = await visitor.open('/keys')
    const key = await visitor.follow(list, 'CI')

    expect(fieldsOf(formWith(form, 'Create key'))).toMatchObject({ environment: ['live'] })
    expect(shown.status).toBe(201)
    expect(shown.root.querySelector('#secret')?.textContent).toMatch(/^acme_test_/)
    expect((await apiKeys.list({ userId: user })).apiKeys).toMatchObject([{ environment: 'test' }])
    expect(list.root.querySelector('table .environment')?.textContent).toBe('test')
    expect(factsOf(key)).toMatchObject({
      Environment: 'test',
      Limits: expect.stringMatching(/^5 requests in 1 minute 5 left/),
    })
  })

  it('the list shows the keys of one of them, also after a search', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const wish = { userId: user, permissions: ['READ_GRAPH'] } as const
    await apiKeys.create({ ...wish, name: 'Live one', environment: 'live' })
    await apiKeys.create({ ...wish, name: 'Test one', environment: 'test' })
    const all = await visitor.open('/keys?environment=nonsense')
    const test = await visitor.press(all, 'Search', { environment: 'test' })
    const found = await visitor.press(test, 'Search', { q: 'one' })
    const suspended = await visitor.follow(found, 'Suspended')

    expect(rowsOf(all).map(({ Name }) => Name)).toEqual(['Test one', 'Live one'])
    expect(rowsOf(test).map(({ Name }) => Name)).toEqual(['Test one'])
    expect(rowsOf(found).map(({ Name }) => Name)).toEqual(['Test one'])
    expect(suspended.url).toContain('environment=test')
  })

  it('the unused keys of one of them are shown and revoked, and no others', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const wish = { userId: user, permissions: ['READ_GRAPH'] } as const
    const live = await apiKeys.create({ ...wish, name: 'Live one', environment: 'live' })
    const test = await apiKeys.create({ ...wish, name: 'Test one', environment: 'test' })
    await rows(
      `UPDATE api_keys SET created_at = now() - interval '200 days' WHERE user_id = '${user}'`,
    )
    const all = await visitor.open(`/admin/unused?ownerId=${user}`)
    const found = await visitor.press(all, 'Show keys', { environment: 'test' })
    const done = await visitor.press(found, 'Revoke 1 key')

    expect(all.text).toContain('Live one')
    expect(found.text).toContain('Test one')
    expect(found.text).not.toContain('Live one')
    expect(done.text).toContain('1 key revoked')
    expect((await apiKeys.get(live.apiKey.id)).status).toBe('ACTIVE')
    expect((await apiKeys.get(test.apiKey.id)).status).toBe('REVOKED')
  })

  it('no unused key is shown or revoked by the name of one that there is not', async () => {
    const { visitor } = setUp(['live'])

    const page = await visitor.open('/admin/unused?environment=prod')

    expect(page.status).toBe(422)
    expect(page.root.querySelector('#environment-fault')?.textContent).toMatch(/live, test/)
    expect(page.text).not.toMatch(/Revoke \d/)
  })

  it('a key is not created in one that there is not', async () => {
    const { visitor } = setUp(['live', 'test'])
    const form = await visitor.open('/keys/new')
    const refused = await visitor.press(form, 'Create key', { name: 'CI', environment: 'prod' })

    expect(refused.status).toBe(422)
    expect(refused.root.querySelector('#environment-fault')?.textContent).toMatch(/live, test/)
  })

  it('a key never changes its environment', async () => {
    const { visitor } = setUp(['live'])
    await visitor.press(await visitor.open('/keys/new'), 'Create key', { name: 'CI' })
    const key = await visitor.follow(await visitor.open('/keys'), 'CI')
    const form = await visitor.follow(key, 'Edit')

    expect(form.root.querySelector('#environment')).toBeNull()
    const saved = await visitor.press(form, 'Save changes', { name: 'Renamed' })
    expect(saved.text).toContain('Your changes are saved.')
  })
})

describe('in an app with resources', () => {
  const wish = { environment: 'live', permissions: ['READ_GRAPH'] } as const

  it('a key shows to what it is bound, and stays bound when it is edited', async () => {
    const world = setUp(['live'])
    const resources = { graph: ['g-1', 'g-2'] }
    const { apiKey } = await world.apiKeys.create({
      ...wish,
      userId: world.user,
      name: 'Bound',
      resources,
    })
    const key = await world.visitor.open(`/keys/${apiKey.id}`)
    const { form, after } = await edit(world, apiKey.id, { name: 'Renamed' })

    expect(factsOf(key)).toMatchObject({ 'Only for': 'graph: g-1, g-2' })
    expect(fieldsOf(formWith(form, 'Save changes'))).toMatchObject({
      'ids.graph': ['g-1\ng-2'],
      'ids.folder': [''],
    })
    expect(after).toEqual(resources)
  })

  it('a key is bound when it is created, and to other ids later', async () => {
    const world = setUp(['live'])
    const form = await world.visitor.open('/keys/new')
    const shown = await world.visitor.press(form, 'Create key', {
      name: 'Bound',
      'ids.graph': ' g-2 \r\ng-1\r\n\r\n',
      'ids.folder': 'a b, c',
    })
    const [apiKey] = (await world.apiKeys.list({ userId: world.user })).apiKeys
    const id = apiKey?.id ?? ''
    const other = await edit(world, id, { 'ids.graph': 'g-3' })
    const none = await edit(world, id, { 'ids.graph': '', 'ids.folder': '' })

    expect(shown.status).toBe(201)
    expect(apiKey?.resources).toEqual({ folder: ['a b, c'], graph: ['g-1', 'g-2'] })
    expect(other.after).toEqual({ folder: ['a b, c'], graph: ['g-3'] })
    expect(none.after).toBeNull()
  })

  it('a key that is bound to nothing stays so, until the user says otherwise', async () => {
    const world = setUp(['live'])
    const { apiKey } = await world.apiKeys.create({
      ...wish,
      userId: world.user,
      name: 'None',
      resources: { graph: [] },
    })
    const renamed = await edit(world, apiKey.id, { name: 'Renamed', 'ids.folder': 'f' })
    const { form, after } = await edit(world, apiKey.id, { 'none.graph': [] })

    expect(fieldsOf(formWith(form, 'Save changes'))).toHaveProperty(['none.graph'])
    expect(renamed.after).toEqual({ folder: ['f'], graph: [] })
    expect(after).toEqual({ folder: ['f'] })
  })

  it('a form that leaves them alone does not undo what was changed meanwhile', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const { apiKey } = await apiKeys.create({ ...wish, userId: user, name: 'Open' })
    const form = await visitor.open(`/keys/${apiKey.id}/edit`)
    await apiKeys.update(apiKey.id, { resources: { graph: ['g-1'] } })
    await visitor.press(form, 'Save changes', { name: 'Renamed' })

    expect(await apiKeys.get(apiKey.id)).toMatchObject({
      name: 'Renamed',
      resources: { graph: ['g-1'] },
    })
  })

  it.each([
    ['an id that the app refuses', 'foreign', /^One of these ids does not exist/],
    ['an id twice', 'g\ng', /^graph, line 2, must not be repeated/],
    [
      'an id of 256 characters',
      `g\n${'x'.repeat(256)}`,
      /^graph, line 2, must be text of 1 to 255/,
    ],
  ])('a key is not bound to %s, and the form keeps what was typed', async (_, ids, fault) => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const form = await visitor.open('/keys/new')
    const refused = await visitor.press(form, 'Create key', { name: 'CI', 'ids.graph': ids })

    expect(refused.status).toBe(422)
    expect(faultOf(refused, 'graph')).toMatch(fault)
    expect(faultOf(refused, 'folder')).toBeUndefined()
    expect(refused.root.querySelector('details')?.hasAttribute('open')).toBe(true)
    expect(fieldsOf(formWith(refused, 'Create key'))).toMatchObject({ 'ids.graph': [ids] })
    expect((await apiKeys.list({ userId: user })).apiKeys).toEqual([])
  })

  it('a key is bound to at most 100 ids in all', async () => {
    const { visitor } = setUp(['live'])
    const refused = await visitor.press(await visitor.open('/keys/new'), 'Create key', {
      name: 'CI',
      'ids.graph': idLines(60),
      'ids.folder': idLines(41),
    })

    expect(refused.root.querySelector('#resources-fault')?.textContent).toBe(
      'Only for these resources must have at most 100 ids in all.',
    )
  })

  it.each(['null', '', '{', '[7]', '"x"', '{"graph":7,"__proto__":["x"]}'])(
    'a key is created, whatever a form says that it was bound to: %s',
    async (boundBefore) => {
      const { apiKeys, user, visitor } = setUp(['live'])
      const form = await visitor.open('/keys/new')
      const fields = { name: 'CI', boundBefore, 'ids.graph': 'g-1' }
      const { status } = await visitor.press(form, 'Create key', fields)
      const [apiKey] = (await apiKeys.list({ userId: user })).apiKeys

      expect(status).toBe(201)
      expect(apiKey?.resources).toEqual({ graph: ['g-1'] })
    },
  )

  it('ids are shown as they are', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const id = '</textarea><script>alert(1)</script>'
    const { apiKey } = await apiKeys.create({
      ...wish,
      userId: user,
      name: 'CI',
      resources: { graph: [id] },
    })
    const key = await visitor.open(`/keys/${apiKey.id}`)
    const form = await visitor.open(`/keys/${apiKey.id}/edit`)

    expect(factsOf(key)['Only for']).toBe(`graph: ${id}`)
    expect(fieldsOf(formWith(form, 'Save changes'))['ids.graph']).toEqual([id])
    expect(form.root.querySelectorAll('script')).toHaveLength(1)
  })
})
