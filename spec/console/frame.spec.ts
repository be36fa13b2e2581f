import { gzipSync } from 'node:zlib'

import express, { type Express } from 'express'
import request from 'supertest'

import type { ConsoleOptions } from '../../lib'
import { de } from '../../lib/console/texts/de'
import { en } from '../../lib/console/texts/en'
import { createTestApiKeys, type Permission } from '../support/app'
import { mount, useConsole } from '../support/console'
import { databaseAway } from '../support/database'
import { createHttp } from '../support/http'
import { newUser } from '../support/keys'
import { createVisitor, rowsOf, textOf, type OpenPage } from '../support/visitor'

const { apiKeys, as, createKey, http } = useConsole()

function filesOf({ root }: OpenPage) {
  const style = root.querySelector('link[rel=stylesheet]')?.getAttribute('href') ?? ''
  const script = root.querySelector('script')?.getAttribute('src') ?? ''
  return { style, script }
}

describe('each page', () => {
  it('may load its own files only, and is neither framed nor kept', async () => {
    const page = await as(newUser()).open(mount)

    expect(page.headers).toMatchObject({
      'content-security-policy':
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
      'content-type': 'text/html; charset=utf-8',
      'content-language': 'en',
      'cache-control': 'no-store',
      'referrer-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
    expect(page.headers).not.toHaveProperty('etag')
  })

  it.each(['', '/new', '/:id', '/:id/edit', '/:id/rotate', '/:id/revoke'])(
    'has one style and one script, none of them inline: %s',
    async (view) => {
      const { id, userId } = await createKey({ userId: newUser() })
      const { root } = await as(userId).open(`${mount}${view.replace(':id', id)}`)

      expect(root.querySelectorAll('link[rel=stylesheet]')).toHaveLength(1)
      expect(root.querySelectorAll('script').map(({ textContent }) => textContent)).toEqual([''])
      const inline = root
        .querySelectorAll('*')
        .filter(({ attributes }) =>
          Object.keys(attributes).some((name) => /^(style|on\w+)$/.test(name)),
        )
      expect([...inline, ...root.querySelectorAll('style')]).toEqual([])
      expect(root.querySelectorAll('h1')).toHaveLength(1)
      expect(root.querySelector('html')?.getAttribute('lang')).toBe('en')
    },
  )

  it('has files of at most 60 kB in all, which browsers keep for ever', async () => {
    const visitor = as(newUser())
    const page = await visitor.open(mount)
    const answers = await Promise.all(
      Object.values(filesOf(page)).map((file) => http.get(`/settings/${file.slice(2)}`)),
    )

    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(answers.map(({ headers }) => headers['content-type'])).toEqual([
      'text/css; charset=utf-8',
      'text/javascript; charset=utf-8',
    ])
    for (const { headers } of answers) {
      expect(headers['cache-control']).toBe('public, max-age=31536000, immutable')
      expect(headers.etag).toMatch(/^"console-[\w-]{16}\.(css|js)"$/)
    }
    const sizes = answers.map(({ text, body }) => gzipSync(text ?? body).length)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(60_000)
  })

  it('has files that are not sent again to a browser that has them', async () => {
    const { style } = filesOf(await as(newUser()).open(mount))
    const path = `/settings/${style.slice(2)}`
    const { headers } = await http.get(path)

    const etag = String(headers.etag)
    const again = await Promise.all(
      // The second is what a proxy makes of it that compresses.
      [etag, `W/${etag}`, `"other", ${etag}`, '"other"'].map((tags) =>
        http.set({ 'If-None-Match': tags }).get(path),
      ),
    )
    const others = await Promise.all(
      ['console.css', '..%2f..%2fconsole.ts'].map((name) => http.get(`${mount}/assets/${name}`)),
    )

    expect(again.map(({ status }) => status)).toEqual([304, 304, 304, 200])
    expect(others.map(({ status }) => status)).toEqual([404, 404])
  })
})

/** Lists, creates and revokes a key by links and forms alone. */
async function walk(app: Express, start: string) {
  const visitor = createVisitor(
    createHttp(() => app),
    { 'X-User': newUser() },
  )
  const list = await visitor.open(start)
  const style = filesOf(list).style
  const form = await visitor.follow(list, 'Create key')
  const shown = await visitor.press(form, 'Create key', { name: 'W', permissions: ['READ_GRAPH'] })
  const key = await visitor.follow(shown, 'I have saved the key')
  const revoked = await visitor.press(await visitor.follow(key, 'Revoke'), 'Revoke key')
  const end = await visitor.follow(revoked, 'API keys')
  const file = await request(app).get(new URL(style, `http://app.test${list.url}`).pathname)
  return { statuses: [list, form, shown, key, revoked, end].map(({ status }) => status), file }
}

describe('the pages work', () => {
  it.each([
    ['/settings/api-keys', '/settings/api-keys'],
    ['/settings/api-keys', '/settings/api-keys/'],
    ['/settings/api-keys', '/settings/api-keys?status=active'],
    ['/k', '/k'],
    ['/', '/'],
    ['/a%20b', '/a%20b'],
    ['/organizations/:id/keys', '/organizations/7/keys'],
  ])('mounted at %s, opened at %s', async (path, start) => {
    const app = express().use(path, apiKeys.console())

    const { statuses, file } = await walk(app, start)

    expect(statuses).toEqual([200, 200, 201, 200, 200, 200])
    expect(file.status).toBe(200)
  })

  it('in an app of an app', async () => {
    const inner = express().use('/keys', apiKeys.console())
    const app = express().use('/deep', inner)

    const { statuses } = await walk(app, '/deep/keys')

    expect(statuses).toEqual([200, 200, 201, 200, 200, 200])
  })

  it('behind a proxy that takes a prefix off the path', async () => {
    const inner = express().use('/keys', apiKeys.console())
    const app = express().use((req, res) => {
      req.url = req.originalUrl = req.url.replace(/^\/outside/, '')
      inner(req, res)
    })

    const { statuses, file } = await walk(app, '/outside/keys')

    expect(statuses).toEqual([200, 200, 201, 200, 200, 200])
    expect(file.status).toBe(200)
  })
})

describe('the options', () => {
  const user = newUser()

  function pageWith(options: ConsoleOptions<Permission>, headers = {}, view = '') {
    const app = express().use('/keys', apiKeys.console(options))
    return createVisitor(
      createHttp(() => app),
      { 'X-User': user, ...headers },
    ).open(`/keys${view}`)
  }

  it.each([
    ['/me', /^curl 'http:\/\/127\.0\.0\.1:\d+\/me' /],
    ['https://api.example/v1/me', /^curl 'https:\/\/api\.example\/v1\/me' /],
  ])('have a line for curl that calls the example of the app: %s', async (example, line) => {
    const app = express().use('/keys', apiKeys.console({ example }))
    const visitor = createVisitor(
      createHttp(() => app),
      { 'X-User': user },
    )

    const fields = { name: 'CI', permissions: ['READ_GRAPH'] }
    const { root } = await visitor.press(await visitor.open('/keys/new'), 'Create key', fields)

    expect(root.querySelector('#curl')?.textContent).toMatch(line)
  })

  it('put the name, the logo and the way back at the top', async () => {
    const { root, headers } = await pageWith({
      title: 'Acme <Inc>',
      logo: 'https://cdn.example/logo.svg',
      back: { href: '/home?a=1&b=2', text: 'Back' },
    })

    expect(textOf(root.querySelector('title'))).toBe('API keys · Acme <Inc>')
    expect(root.querySelector('header img')?.getAttribute('src')).toBe(
      'https://cdn.example/logo.svg',
    )
    expect(headers['content-security-policy']).toContain(
      "img-src 'self' data: https://cdn.example;",
    )
    expect(root.querySelector('.back')?.getAttribute('href')).toBe('/home?a=1&b=2')
  })

  it('give the pages the colour of the app, also in the dark', async () => {
    const app = express().use('/keys', apiKeys.console({ accent: '#00695c' }))
    const { style } = filesOf(await pageWith({ accent: '#00695c' }))
    const { text } = await request(app).get(`/${style.slice(2)}`)

    expect(text).toContain(':root{--accent:#00695c;--accent-text:#00695c}')
    const [, dark] = /dark\)\{:root\{--accent-text:(#[0-9a-f]{6})\}/.exec(text) ?? []
    expect(dark).toMatch(/^#/)
    expect(dark).not.toBe('#00695c')
  })

  it('group the permissions', async () => {
    const { root } = await pageWith(
      { permissionGroups: { Graphs: ['READ_GRAPH', 'EXECUTE_GRAPH'] } },
      {},
      '/new',
    )

    const groups = root
      .querySelectorAll('.group')
      .map((group) => [textOf(group.querySelector('h2')), group.querySelectorAll('input').length])
    expect(groups).toEqual([
      ['Graphs', 2],
      ['Other', 2],
    ])
  })

  it.each([
    [{ titel: 'x' }, 'console: there is no option titel. Did you mean title?'],
    [{ title: '' }, 'console: the option title must be text, got ""'],
    [{ accent: 'red' }, 'console: the option accent must be a colour such as #5746af, got "red"'],
    [
      { accent: '#ffcc00' },
      'console: the option accent is too light: white text cannot be read on it, got "#ffcc00"',
    ],
    [{ language: 'fr' }, 'console: the option language must be one of en, de, got "fr"'],
    [{ back: { href: '/' } }, 'console: the option back must be { href, text }'],
    [
      { permissionGroups: { Graphs: ['READ_GRAHP'] } },
      `console: "READ_GRAHP" is not one of the app's permissions. Did you mean READ_GRAPH?`,
    ],
    ['/keys', 'console: the options must be an object'],
  ])('are checked at start-up: %j', (options, message) => {
    expect(() => apiKeys.console(options as never)).toThrow(message)
  })

  it('are needed for the pages: currentUser', () => {
    const nobody = createTestApiKeys(databaseAway, { currentUser: undefined })

    expect(() => nobody.console()).toThrow('console: needs the option currentUser of createApiKeys')
  })

  it('are not forgotten: a console that is not called says so', async () => {
    const app = express().use('/keys', apiKeys.console as never)
    const answer = await request(app).get('/keys')

    expect(answer.status).toBe(500)
    expect(answer.text).toMatch(/apiKeys\.console is not a middleware, but returns one/)
  })
})

describe('the language', () => {
  it.each([
    ['de', 'de'],
    ['de-AT,en;q=0.5', 'de'],
    ['fr,de;q=0.9,en;q=0.8', 'de'],
    ['en-US,de;q=0.9', 'en'],
    ['fr', 'en'],
    ['*', 'en'],
    ['x'.repeat(100), 'en'],
  ])('is the one that the browser prefers: %s', async (accepted, language) => {
    const page = await as(newUser(), { 'Accept-Language': accepted }).open(mount)

    expect(page.headers['content-language']).toBe(language)
    expect(textOf(page.root.querySelector('h1'))).toBe(
      language === 'de' ? 'API-Schlüssel' : 'API keys',
    )
  })

  it('is German on every page, and in each refusal', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId, { 'Accept-Language': 'de' })
    const form = await visitor.open(`${mount}/new`)
    const refused = await visitor.press(form, 'Schlüssel erstellen', {
      description: 'd'.repeat(501),
      expiry: 'date',
      expiresOn: '2001-01-01',
      addresses: 'x',
    })
    const faults = refused.root.querySelectorAll('.fault').map(textOf)

    expect(faults).toEqual([
      'Name: muss 1 bis 100 Zeichen haben.',
      'Beschreibung: darf höchstens 500 Zeichen haben.',
      'Berechtigungen: mindestens eine ist nötig.',
      'Ablauf: muss in der Zukunft liegen.',
      'Erlaubte Adressen, Zeile 1: enthält etwas, das keine Adresse und kein Bereich ist.',
    ])
    expect(rowsOf(await visitor.open(mount))).toMatchObject([{ Status: 'Aktiv' }])
    expect((await visitor.open(`${mount}/${id}`)).text).toContain('Zuletzt benutzt')
    expect((await visitor.open(`${mount}/none`)).text).toContain(
      'Diesen API-Schlüssel gibt es nicht.',
    )
  })

  it('has the same texts in German as in English', () => {
    // The compiler says so of the names. None may be left in English.

    expect(same(en, de)).toEqual(['list.columns.name', 'list.columns.status', 'form.name'])
  })
})

/** Returns the paths of the texts that are the same in two catalogues. */
function same(one: object, other: object, path = ''): string[] {
  return Object.entries(one).flatMap(([name, value]) => {
    const [place, twin] = [`${path}${name}`, Reflect.get(other, name)]
    if (typeof value === 'object') return same(value, twin, `${place}.`)
    return typeof value === 'string' && value === twin ? [place] : []
  })
}
