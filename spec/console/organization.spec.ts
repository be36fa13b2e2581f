import { randomUUID } from 'node:crypto'

import express from 'express'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'
import { createHttp, type Http } from '../support/http'
import { createVisitor, fieldsOf, formWith, rowsOf, textOf } from '../support/visitor'

const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'] as const

/** What the app returns for a user. */
const access = new Map<string, unknown>()
/** The parameters of the path that the app was shown. */
const seen: unknown[] = []

let database: Database
let apiKeys: ReturnType<typeof createInstance>
let http: Http

function createInstance() {
  const created = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions,
    users: { table: 'users', type: 'text' },
    organizations: { table: 'organizations', type: 'integer' },
    currentUser(req) {
      const id = (req.headers as Record<string, string>)['x-user']
      return id === undefined ? undefined : { id }
    },
  })
  database.closeFirst(created)
  return created
}

beforeAll(async () => {
  database = await createDatabase('empty')
  await database.connect().query(`
    CREATE TABLE users (id text PRIMARY KEY);
    INSERT INTO users VALUES ('alice'), ('bob'), ('carol');
    CREATE TABLE organizations (id integer PRIMARY KEY);
    INSERT INTO organizations VALUES (7), (8)`)
  apiKeys = createInstance()
  await apiKeys.migrate()
  const pages = apiKeys.console({
    organization(req, user) {
      seen.push({ ...req.params })
      return Number(req.params.id) === 7 ? (access.get(user.id) as number) : null
    },
  })
  const app = express().use('/organizations/:id/api-keys', pages)
  app.use(((error: Error, _req, res, _next) => {
    res.status(500).send(`app: ${error.message}`)
  }) satisfies express.ErrorRequestHandler)
  http = createHttp(() => app)
})

beforeEach(() => {
  seen.length = 0
  access.clear()
  access.set('alice', 7)
  access.set('bob', { id: 7, readOnly: true })
  access.set('carol', { id: 7, permissions: ['READ_GRAPH', 'READ_BLOCK'] })
})

afterAll(() => database.drop())

const mount = '/organizations/7/api-keys'
const organization = { type: 'organization', id: 7 } as const
const secret = /agpt_[0-9A-Za-z]{51}/

const as = (user: string) => createVisitor(http, { 'X-User': user })

async function createKey(name: string, wishes: (typeof permissions)[number][] = ['READ_GRAPH']) {
  return apiKeys.create({ owner: organization, name, permissions: wishes })
}

function linksOf({ root }: { root: ReturnType<typeof formWith> }) {
  const links = root.querySelectorAll('main a.button, main button')
  // Those that need the script are hidden without it.
  return links.filter((link) => !link.hasAttribute('hidden')).map((link) => textOf(link))
}

describe('console({ organization })', () => {
  it('lets a member create a key of the organization, and all members see it', async () => {
    const form = await as('alice').open(`${mount}/new`)
    const wish = { name: 'Of the organization', permissions: 'READ_GRAPH' }
    const shown = await as('alice').press(form, 'Create key', wish)
    const list = await as('bob').open(mount)

    expect(shown.status).toBe(201)
    const verdict = await apiKeys.verify(secret.exec(shown.html)?.[0] ?? '')
    expect(verdict).toMatchObject({ valid: true, apiKey: { owner: organization } })
    const { apiKeys: made } = await apiKeys.list({ owner: organization, createdBy: 'alice' })
    expect(made).toMatchObject([{ name: 'Of the organization' }])
    expect(rowsOf(list).map(({ Name }) => Name)).toContain('Of the organization')
    expect(list.text).toContain('for your organization')
  })

  it('shows no key of another owner', async () => {
    const elsewhere = { type: 'organization', id: 8 } as const
    const names: (typeof permissions)[number][] = ['READ_GRAPH']
    const made = [
      await apiKeys.create({ owner: elsewhere, name: 'Elsewhere', permissions: names }),
      await apiKeys.create({ userId: 'alice', name: 'Own', permissions: names }),
    ]
    const list = await as('alice').open(mount)

    expect(list.text).not.toMatch(/Elsewhere|Own/)
    for (const { apiKey } of made) {
      expect((await as('alice').open(`${mount}/${apiKey.id}`)).status).toBe(404)
    }
  })

  it('is the same 404 without access, without an organization and for an id that none can have', async () => {
    access.set('dave', null)
    access.set('erin', 'acme')
    const answers = []
    for (const [user, path] of [
      ['dave', mount],
      ['frank', mount],
      ['erin', mount],
      ['alice', '/organizations/8/api-keys'],
      ['alice', '/organizations/acme/api-keys'],
    ] as const) {
      const { status, html } = await as(user).open(path)
      answers.push({ status, html })
    }

    expect(answers[0]?.status).toBe(404)
    expect(answers[0]?.html).toContain('There is no such organization.')
    for (const answer of answers) expect(answer).toEqual(answers[0])
  })

  it('shows the app the parameters of its own path, and not the id of a key', async () => {
    const { apiKey } = await createKey('Seen')
    await as('alice').open(`${mount}/${apiKey.id}`)
    await as('alice').open(`${mount}/${apiKey.id}/edit`)

    expect(seen).toEqual([{ id: '7' }, { id: '7' }])
  })

  it('passes a mistake of the app on to the app', async () => {
    access.set('alice', { id: 7, readOnly: 'no' })

    const page = await as('alice').open(mount)

    expect(page.html).toBe('app: console: readOnly of organization must be true or false')
  })

  it('shows a member who may only read no form, and refuses each change', async () => {
    const { apiKey } = await createKey('Read')
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 3600 })
    const before = await apiKeys.get(apiKey.id)
    const key = `${mount}/${apiKey.id}`
    const pages = [await as('bob').open(mount), await as('bob').open(key)]
    const views = ['/edit', '/rotate', '/end-rotation', '/revoke'].map((view) => key + view)
    const forms = [`${mount}/new`, ...views]

    expect(pages.map(({ status }) => status)).toEqual([200, 200])
    expect(pages.flatMap(linksOf)).toEqual(['Search'])
    for (const form of forms) {
      const shown = await as('bob').open(form)
      expect([form, shown.status]).toEqual([form, 403])
      expect(shown.text).toContain('You may see these API keys, but not change them.')
    }
    for (const path of [...forms, `${key}/suspend`, `${key}/reactivate`]) {
      const form = { 'X-User': 'bob', 'Sec-Fetch-Site': 'same-origin' }
      const answer = await http.set(form).post(path).type('form').send('name=Mine')
      expect([path, answer.status]).toEqual([path, 403])
    }
    expect(await apiKeys.get(apiKey.id)).toEqual(before)
  })

  it('offers a member the permissions that the member may give, and refuses others', async () => {
    const carol = as('carol')
    const form = await carol.open(`${mount}/new`)
    const boxes = form.root.querySelectorAll('input[type=checkbox]')
    const wish = { name: 'More', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] }
    const refused = await carol.press(form, 'Create key', wish)

    expect(boxes.map((box) => box.getAttribute('value'))).toEqual(['READ_GRAPH', 'READ_BLOCK'])
    expect(refused.status).toBe(422)
    expect(refused.text).toContain('You may not give a permission that you chose.')
    expect(refused.html).not.toMatch(secret)
  })

  it('gives a member no secret of a key that may do more, and does not let it work again', async () => {
    const carol = as('carol')
    const { apiKey } = await createKey('Strong', ['READ_GRAPH', 'EXECUTE_GRAPH'])
    const key = `${mount}/${apiKey.id}`
    const active = await carol.open(key)
    const rotate = await carol.open(`${key}/rotate`)
    const edit = await carol.open(`${key}/edit`)
    const renamed = await carol.press(edit, 'Save changes', { name: 'Renamed' })
    const suspended = await carol.press(renamed, 'Suspend')
    const sender = { 'X-User': 'carol', 'Sec-Fetch-Site': 'same-origin' }
    const answers = [
      await http.set(sender).post(`${key}/reactivate`),
      await http.set(sender).post(`${key}/rotate`).type('form').send('grace=0'),
    ]

    expect(linksOf(active)).toEqual(['Edit', 'Suspend', 'Revoke'])
    expect([rotate.status, rotate.root.querySelectorAll('form')]).toEqual([403, []])
    expect(fieldsOf(formWith(edit, 'Save changes')).permissions).toEqual([
      'READ_GRAPH',
      'EXECUTE_GRAPH',
    ])
    expect(renamed.status).toBe(200)
    expect(linksOf(suspended)).toEqual(['Edit', 'Revoke'])
    expect(answers.map(({ status }) => status)).toEqual([403, expect.any(Number)])
    expect(answers.filter(({ text }) => secret.test(text))).toEqual([])
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ name: 'Renamed', status: 'SUSPENDED' })
  })

  it.each([
    ['en', 'API keys of Acme & <b>Sons</b>'],
    ['de', 'API-Schlüssel von Acme & <b>Sons</b>'],
  ])('says whose keys they are, if the app says it: %s', async (language, heading) => {
    access.set('alice', { id: 7, name: 'Acme & <b>Sons</b>' })
    const { apiKey } = await createKey('Named')
    const alice = createVisitor(http, { 'X-User': 'alice', 'Accept-Language': language })
    const list = await alice.open(mount)
    const key = await alice.open(`${mount}/${apiKey.id}`)

    expect(textOf(list.root.querySelector('h1'))).toBe(heading)
    expect(textOf(list.root.querySelector('title'))).toBe(heading)
    expect(textOf(key.root.querySelector('.crumbs a'))).toBe(heading)
    expect(textOf(key.root.querySelector('.brand'))).toBe(heading)
    expect(key.root.querySelectorAll('b')).toEqual([])
  })

  it('adds and takes away what a member has ticked, whatever else has changed meanwhile', async () => {
    const { apiKey } = await createKey('Shared', ['READ_GRAPH', 'EXECUTE_GRAPH'])
    const key = `${mount}/${apiKey.id}/edit`
    const forms = [await as('alice').open(key), await as('alice').open(key)] as const

    // One form takes EXECUTE_GRAPH away, and the other only renames. Then one adds READ_BLOCK.
    await as('alice').press(forms[0], 'Save changes', { permissions: 'READ_GRAPH' })
    await as('alice').press(forms[1], 'Save changes', { name: 'Renamed' })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({
      name: 'Renamed',
      permissions: ['READ_GRAPH'],
    })
    const both = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK']
    await as('alice').press(forms[1], 'Save changes', { permissions: both })

    expect((await apiKeys.get(apiKey.id)).permissions).toEqual(['READ_GRAPH', 'READ_BLOCK'])
  })

  it('takes just what is ticked from a form that does not say what it showed', async () => {
    const { apiKey } = await createKey('Old form', ['READ_GRAPH', 'EXECUTE_GRAPH'])
    const sender = { 'X-User': 'alice', 'Sec-Fetch-Site': 'same-origin' }
    const path = `${mount}/${apiKey.id}/edit`
    const form = 'name=Old+form&permissions=READ_BLOCK&expiry=keep'

    const answer = await http.set(sender).post(path).type('form').send(form)

    expect(answer.status).toBe(303)
    expect((await apiKeys.get(apiKey.id)).permissions).toEqual(['READ_BLOCK'])
  })

  it('finds no key that does not exist', async () => {
    expect((await as('alice').open(`${mount}/${randomUUID()}`)).status).toBe(404)
  })

  it('needs a function, and the option organizations', () => {
    const without = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions,
      currentUser: () => ({ id: 'alice' }),
    })

    expect(() => without.console({ organization: () => 7 })).toThrow(
      'console: organization needs the option organizations of createApiKeys',
    )
    expect(() => apiKeys.console({ organization: 7 as never })).toThrow(
      'console: organization must be a function, got 7',
    )
  })
})
