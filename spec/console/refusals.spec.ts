import express, { type RequestHandler } from 'express'
import request from 'supertest'

import { mount, useConsole } from '../support/console'
import { createTestApiKeys, createTestApp } from '../support/app'
import { databaseAway } from '../support/database'
import { bearer, createHttp } from '../support/http'
import { newUser } from '../support/keys'
import { createVisitor, fieldsOf, formWith, fromOwnPage } from '../support/visitor'

const { apiKeys, app, as, createKey, http, rows } = useConsole({}, { signIn: '/sign-in' })

const posts = [
  'new',
  ':id/edit',
  ':id/suspend',
  ':id/reactivate',
  ':id/rotate',
  ':id/end-rotation',
  ':id/revoke',
]
const gets = ['', 'new', ':id', ':id/edit', ':id/rotate', ':id/end-rotation', ':id/revoke']

const input = 'name=Typed+%3Cb%3E&description=Two%0D%0Alines&permissions=READ_GRAPH&expiry=never'

async function stateOf(userId: string) {
  return rows(
    `SELECT to_jsonb(key) - 'last_used_at' AS key FROM api_keys AS key WHERE user_id = $1`,
    [userId],
  )
}

function at(view: string, id: string) {
  return `${mount}/${view.replace(':id', id)}`
}

describe('a session that has ended', () => {
  it.each(gets)('is said so on the page, with the way to sign in: /%s', async (view) => {
    const { id } = await createKey({ userId: newUser() })
    const page = await createVisitor(http, {}).open(at(view, id))

    expect(page.status).toBe(401)
    expect(page.text).toContain('You are not signed in')
    expect(page.root.querySelector('main a')?.getAttribute('href')).toBe('/sign-in')
    expect(page.headers['cache-control']).toBe('no-store')
  })

  it('keeps what was typed, so that it can be sent again', async () => {
    const user = newUser()
    const out = await createVisitor(http, {}).press(
      await as(user).open(`${mount}/new`),
      'Create key',
      { name: 'Typed <b>', permissions: ['READ_GRAPH', 'READ_BLOCK'], description: 'Two\r\nlines' },
    )
    const sent = await as(user).press(out, 'Send again')

    expect(out.status).toBe(401)
    expect(out.text).toContain('What you typed is kept here.')
    expect(out.text).toContain('Typed <b>')
    expect(sent.status).toBe(201)
    expect((await apiKeys.list({ userId: user })).apiKeys).toMatchObject([
      { name: 'Typed <b>', description: 'Two\nlines', permissions: ['READ_GRAPH', 'READ_BLOCK'] },
    ])
  })
})

describe('a form of another site', () => {
  const foreign: [string, Record<string, string>][] = [
    ['Sec-Fetch-Site: cross-site', { 'Sec-Fetch-Site': 'cross-site' }],
    ['Sec-Fetch-Site: same-site', { 'Sec-Fetch-Site': 'same-site' }],
    ['another origin', { Origin: 'https://evil.example' }],
    ['the origin null', { Origin: 'null' }],
    ['no word of its site', {}],
  ]

  it.each(
    posts.flatMap((view) => foreign.map(([title, headers]) => [view, title, headers] as const)),
  )('is refused at /%s with %s', async (view, _, headers) => {
    const { id, userId } = await createKey({ userId: newUser() })
    const before = await stateOf(userId)
    const answer = await http
      .set({ 'X-User': userId, ...headers })
      .post(at(view, id))
      .type('form')
      .send(input)

    expect(answer.status).toBe(403)
    expect(answer.text).toContain('A request from another site may not change anything here.')
    expect(answer.text).not.toContain('Typed')
    expect(await stateOf(userId)).toEqual(before)
  })

  it.each([{ Origin: 'http://127.0.0.1' }, fromOwnPage])(
    'is no form of the app: %j',
    async (headers) => {
      const user = newUser()
      const host = headers === fromOwnPage ? {} : { Host: '127.0.0.1' }
      const answer = await request(app)
        .post(`${mount}/new`)
        .set({ 'X-User': user, ...host, ...headers })
        .type('form')
        .send(input)

      expect(answer.status).toBe(201)
    },
  )
})

describe('a request', () => {
  it.each(gets)('changes nothing by GET: /%s', async (view) => {
    const { id, userId } = await createKey({ userId: newUser() })
    await apiKeys.rotate(id)
    const before = await stateOf(userId)
    await as(userId).open(`${at(view, id)}?${input}&grace=0&reason=x`)

    expect(await stateOf(userId)).toEqual(before)
  })

  it('is refused if it carries a key, valid or not', async () => {
    const { userId, plainTextKey } = await createKey({ userId: newUser() })
    const page = await createVisitor(http, { 'X-User': userId, ...bearer(plainTextKey) }).open(
      mount,
    )

    expect(page.status).toBe(403)
    expect(page.text).toContain('API keys are not managed with an API key.')
  })

  it('is refused with another method', async () => {
    const answer = await http.as('alice').delete(`${mount}/new`)

    expect(answer.status).toBe(405)
    expect(answer.headers.allow).toBe('GET, HEAD, POST')
    expect(answer.headers['content-type']).toBe('text/html; charset=utf-8')
  })

  it('goes on to the app if there is no such view', async () => {
    const answer = await http.as('alice').get(`${mount}/a/b/c`)

    expect(answer.body).toEqual({ app: 'not found' })
  })

  it.each([
    ['JSON', 'application/json', '{"name":"x"}', 415],
    ['a form with files', 'multipart/form-data; boundary=x', '--x--', 415],
    ['more than 32 kB', 'application/x-www-form-urlencoded', `name=${'x'.repeat(33_000)}`, 413],
    ['a foreign character set', 'application/x-www-form-urlencoded; charset=utf-7', 'name=x', 415],
    ['2,000 fields', 'application/x-www-form-urlencoded', 'a=&'.repeat(2_000), 413],
  ])('is refused with %s', async (_, type, body, status) => {
    const user = newUser()
    const answer = await http
      .set({ 'X-User': user, ...fromOwnPage, 'Content-Type': type })
      .post(`${mount}/new`)
      .send(body)

    expect(answer.status).toBe(status)
    expect(answer.text).toContain('That did not work')
    expect(await stateOf(user)).toEqual([])
  })

  it('is answered with its faults if the form is empty', async () => {
    const answer = await http.set({ 'X-User': newUser(), ...fromOwnPage }).post(`${mount}/new`)

    expect(answer.status).toBe(422)
    expect(answer.text).toContain('Name must have 1 to 100 characters.')
  })

  it.each<[string, RequestHandler]>([
    ['urlencoded', express.urlencoded({ extended: false })],
    ['urlencoded, extended', express.urlencoded({ extended: true })],
    ['text', express.text({ type: () => true })],
    ['raw', express.raw({ type: () => true })],
  ])('works behind a parser of the app: %s', async (_, parser) => {
    const user = newUser()
    const behind = express()
      .use(parser)
      .use(mount, apiKeys.console() as never)
    const answer = await request(behind)
      .post(`${mount}/new`)
      .set({ 'X-User': user, ...fromOwnPage })
      .type('form')
      .send(`${input}&permissions=READ_BLOCK&addresses=203.0.113.7`)

    expect(answer.status).toBe(201)
    expect((await apiKeys.list({ userId: user })).apiKeys).toMatchObject([
      { name: 'Typed <b>', permissions: ['READ_GRAPH', 'READ_BLOCK'], allowedIps: ['203.0.113.7'] },
    ])
  })

  it('that fails in the app is passed on to the app', async () => {
    const broken = createTestApiKeys(databaseAway, {
      currentUser: () => {
        throw new Error('The session store is away')
      },
    })
    const failing = createTestApp(broken, (app) => app.use(mount, broken.console()))
    const answer = await request(failing).get(mount)

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'The session store is away' })
  })
})

describe('while the database is away', () => {
  const away = createTestApiKeys(databaseAway)
  const visitor = createVisitor(
    createHttp(() => createTestApp(away, (app) => app.use(mount, away.console()))),
    { 'X-User': 'alice' },
  )

  it('the list says so, and offers to try again', async () => {
    const page = await visitor.open(mount)

    expect(page.status).toBe(503)
    expect(page.headers['retry-after']).toBe('1')
    expect(page.text).toContain('The keys cannot be reached at the moment')
    expect(page.text).toContain('Try again')
  })

  it('a form keeps what was typed', async () => {
    const page = await visitor.press(await visitor.open(`${mount}/new`), 'Create key', {
      name: 'Typed',
      permissions: ['READ_GRAPH'],
    })

    expect(page.status).toBe(503)
    expect(fieldsOf(formWith(page, 'Create key'))).toMatchObject({ name: ['Typed'] })
  })

  it('a form whose page needs the database keeps what was typed', async () => {
    const answer = await createHttp(() =>
      createTestApp(away, (app) => app.use(mount, away.console())),
    )
      .set({ 'X-User': 'alice', ...fromOwnPage })
      .post(`${mount}/018f0000-0000-7000-8000-000000000000/revoke`)
      .type('form')
      .send('reason=Leaked')

    expect(answer.status).toBe(503)
    expect(answer.text).toContain('What you typed is kept here. Send it again in a moment.')
    expect(answer.text).toContain('name="reason" value="Leaked"')
  })
})
