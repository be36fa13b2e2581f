import express from 'express'

import { createTestApiKeys } from '../support/app'
import { mount, useConsole } from '../support/console'
import { databaseAway } from '../support/database'
import { createHttp } from '../support/http'
import { newKey, newUser } from '../support/keys'
import {
  createVisitor,
  faultOf,
  fieldsOf,
  formWith,
  textOf,
  type OpenPage,
} from '../support/visitor'

const { apiKeys, as, rows } = useConsole({
  maxKeysPerOwner: 3,
  grantable: ({ id }) =>
    id.startsWith('intern') ? ['READ_GRAPH', 'READ_BLOCK'] : [...allPermissions],
})
const allPermissions = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'] as const

const wish = { name: 'Nightly import', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] }

/** Creates a key with the form, and returns the page that shows it. */
async function create(user: string, fields: Record<string, string | string[]> = {}) {
  const visitor = as(user)
  const form = await visitor.open(`${mount}/new`)
  return { form, shown: await visitor.press(form, 'Create key', { ...wish, ...fields }) }
}

async function keysOf(userId: string) {
  return (await apiKeys.list({ userId })).apiKeys
}

function secretOf({ root }: OpenPage): string {
  return root.querySelector('#secret')?.textContent ?? ''
}

const secret = /agpt_[0-9A-Za-z]{51}/

describe('the form for a new key', () => {
  it('creates a key, and shows it whole in the answer', async () => {
    const user = newUser()

    const { shown } = await create(user, {
      description: ' Imports orders.\r\nAsk Bob. ',
      addresses: '203.0.113.7\r\n2001:db8::/32',
      expiry: 'never',
    })

    expect(shown.status).toBe(201)
    expect(shown.headers['cache-control']).toBe('no-store')
    const [apiKey] = await keysOf(user)
    expect(apiKey).toMatchObject({
      name: 'Nightly import',
      description: 'Imports orders.\nAsk Bob.',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      allowedIps: ['203.0.113.7', '2001:db8::/32'],
      expiresAt: null,
      userId: user,
    })
    const verdict = await apiKeys.verify(secretOf(shown), { ip: '203.0.113.7' })
    expect(verdict).toMatchObject({ valid: true, apiKey: { id: apiKey?.id } })
    expect(shown.text).toContain('Nightly import is created')
    const { events } = await apiKeys.events({ userId: user })
    expect(events).toMatchObject([{ action: 'created', actorType: 'user', actorId: user }])
  })

  it('has a line for curl with the key', async () => {
    const { shown } = await create(newUser())

    const line = shown.root.querySelector('#curl')?.textContent
    expect(line).toMatch(/^curl 'http:\/\/127\.0\.0\.1:\d+\/' -H 'Authorization: Bearer agpt_\w+'$/)
    expect(line).toContain(secretOf(shown))
  })

  it('shows the secret nowhere after that answer', async () => {
    const user = newUser()
    const { shown } = await create(user)
    const [apiKey] = await keysOf(user)
    const id = apiKey?.id
    const key = secretOf(shown)

    const visitor = as(user)
    const views = ['', '/new', `/${id}`, `/${id}/edit`, `/${id}/rotate`, `/${id}/revoke`]
    const pages = await Promise.all(views.map((view) => visitor.open(`${mount}${view}`)))

    expect(key).toMatch(secret)
    expect(shown.url).toBe(`${mount}/new`)
    expect(pages.map(({ status }) => status)).toEqual(views.map(() => 200))
    expect(pages.filter(({ html }) => secret.test(html))).toEqual([])
    expect(shown.root.querySelectorAll('input')).toEqual([])
  })

  it('neither shows the secret again nor makes another key if the browser sends it again', async () => {
    const user = newUser()
    const { form } = await create(user)
    const again = await as(user).press(form, 'Create key', wish)

    expect(again.status).toBe(409)
    expect(again.html).not.toMatch(secret)
    expect(again.text).toContain('This key is created already')
    const [apiKey, ...others] = await keysOf(user)
    expect(others).toEqual([])
    const links = again.root.querySelectorAll('main a').map((link) => link.getAttribute('href'))
    expect(links).toContain(`./${apiKey?.id}/rotate`)
  })

  it('creates one key if it is sent twice at once', async () => {
    const user = newUser()
    const visitor = as(user)
    const form = await visitor.open(`${mount}/new`)

    const answers = await Promise.all([1, 2, 3].map(() => visitor.press(form, 'Create key', wish)))

    expect(answers.filter(({ status }) => status === 409)).toHaveLength(2)
    expect(answers.filter(({ html }) => secret.test(html))).toHaveLength(1)
    expect(await keysOf(user)).toHaveLength(1)
  })

  it('asks before it makes another key with other input', async () => {
    const user = newUser()
    const { form } = await create(user)
    const visitor = as(user)
    const asked = await visitor.press(form, 'Create key', { ...wish, name: 'Another' })
    expect(asked.status).toBe(422)
    expect(asked.text).toContain('Press “Create key” again')
    const second = await visitor.press(asked, 'Create key')

    expect(second.status).toBe(201)
    expect((await keysOf(user)).map(({ name }) => name)).toEqual(['Another', 'Nightly import'])
  })

  it('says what is wrong beside each field, and keeps what was typed', async () => {
    const user = newUser()

    const { shown } = await create(user, {
      name: ' ',
      description: 'd'.repeat(501),
      permissions: [],
      addresses: '203.0.113.7\nnowhere',
      expiry: 'date',
      expiresOn: '2001-02-03',
    })

    expect(shown.status).toBe(422)
    expect(faultOf(shown, 'Name')).toBe('Name must have 1 to 100 characters.')
    expect(faultOf(shown, 'Description')).toBe('Description must have at most 500 characters.')
    expect(faultOf(shown, 'Permissions')).toBe('Choose at least one permission.')
    expect(faultOf(shown, 'Expiry')).toBe('Expiry must be in the future.')
    expect(faultOf(shown, 'Allowed addresses')).toMatch(
      /^Allowed addresses, line 2, must be an address or a range/,
    )
    expect(fieldsOf(formWith(shown, 'Create key'))).toMatchObject({
      description: ['d'.repeat(501)],
      addresses: ['203.0.113.7\nnowhere'],
      expiry: ['date'],
      expiresOn: ['2001-02-03'],
    })
    const name = shown.root.querySelector('#name')
    expect(name?.getAttribute('aria-invalid')).toBe('true')
    expect(name?.getAttribute('aria-describedby')).toBe('name-hint name-fault')
    expect(await keysOf(user)).toEqual([])
  })

  it.each([
    ['', 'Choose a day.'],
    ['2030-02-31', 'Choose a day.'],
    ['99999-01-01', 'Choose a day.'],
  ])('wants a day as the expiry: %s', async (expiresOn, fault) => {
    const { shown } = await create(newUser(), { expiry: 'date', expiresOn })

    expect(faultOf(shown, 'Expiry')).toBe(fault)
  })

  it('has the key work on its last day', async () => {
    const user = newUser()
    await create(user, { expiry: 'date', expiresOn: '2099-12-31' })

    const [apiKey] = await keysOf(user)
    expect(apiKey?.expiresAt).toEqual(new Date('2099-12-31T23:59:59Z'))
  })

  it('has the expiry that it shows, however long it is open', async () => {
    const user = newUser()
    const { form } = await create(user, { expiry: '30' })

    const [, at] = fieldsOf(formWith(form, 'Create key')).request?.[0]?.split('.') ?? []
    const [apiKey] = await keysOf(user)
    expect(apiKey?.expiresAt).toEqual(new Date(Number(at) + 30 * 86_400_000))
  })

  it('offers the permissions that the user may give, in the words of the app', async () => {
    const form = await as('intern-1').open(`${mount}/new`)

    const boxes = form.root.querySelectorAll('input[type=checkbox]')
    expect(boxes.map((box) => box.getAttribute('value'))).toEqual(['READ_GRAPH', 'READ_BLOCK'])
  })

  it('says what a permission includes', async () => {
    const app = express().use(
      mount,
      createTestApiKeys(databaseAway, {
        permissions: {
          READ_GRAPH: 'Read graphs',
          EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_GRAPH'] },
          READ_BLOCK: 'Read blocks',
          EXECUTE_BLOCK: { description: 'Do all', implies: '*' },
        },
      }).console(),
    )
    const visitor = createVisitor(
      createHttp(() => app),
      { 'X-User': 'alice' },
    )

    const { root } = await visitor.open(`${mount}/new`)

    expect(root.querySelectorAll('.check').map(textOf)).toEqual([
      'Read graphs READ_GRAPH',
      'Execute graphs EXECUTE_GRAPH includes: Read graphs',
      'Read blocks READ_BLOCK',
      'Do all EXECUTE_BLOCK includes: Read graphs, Execute graphs and Read blocks',
    ])
  })

  it('refuses a permission that the user may not give', async () => {
    const { shown } = await create('intern-2', { permissions: ['READ_GRAPH', 'EXECUTE_BLOCK'] })

    expect(shown.status).toBe(422)
    expect(faultOf(shown, 'Permissions')).toBe('You do not hold a permission that you chose.')
  })

  it('says if the user has as many keys as are allowed, and keeps what was typed', async () => {
    const user = newUser()
    await apiKeys.createMany([1, 2, 3].map(() => newKey({ userId: user })))

    const { shown } = await create(user)

    expect(shown.status).toBe(409)
    expect(shown.root.querySelector('[role=alert]')?.textContent).toContain('Revoke one first')
    expect(fieldsOf(formWith(shown, 'Create key'))).toMatchObject({ name: ['Nightly import'] })
    expect(await rows(`SELECT 1 FROM api_keys WHERE user_id = $1`, [user])).toHaveLength(3)
  })
})
