import express from 'express'

import { createApiKeys } from '../../lib'
import { useWorld } from '../support/world'
import { createHttp } from '../support/http'
import { newUser } from '../support/keys'
import { createVisitor, factsOf, fieldsOf, formWith, rowsOf } from '../support/visitor'

const { database } = useWorld()

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
    resources: { graph: true },
    limits: { burst: { limit: 100, windowSeconds: 60 } },
    currentUser: () => ({ id: user }),
  })
  database.closeFirst(apiKeys)
  const app = express().use('/keys', apiKeys.console())
  return {
    apiKeys,
    user,
    visitor: createVisitor(
      createHttp(() => app),
      {},
    ),
  }
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
  it('a key shows to what it is bound, and stays bound when it is edited', async () => {
    const { apiKeys, user, visitor } = setUp(['live'])
    const { apiKey } = await apiKeys.create({
      userId: user,
      name: 'Bound',
      environment: 'live',
      permissions: ['READ_GRAPH'],
      resources: { graph: ['g-1', 'g-2'] },
    })
    const key = await visitor.open(`/keys/${apiKey.id}`)
    await visitor.press(await visitor.follow(key, 'Edit'), 'Save changes', { name: 'Renamed' })

    expect(factsOf(key)).toMatchObject({ 'Only for': 'graph: g-1, g-2' })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({
      name: 'Renamed',
      resources: { graph: ['g-1', 'g-2'] },
    })
  })
})
