import { execFile, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { createDatabase, type Database } from '../support/database'
import { startProxy } from '../support/proxy'
import { exampleFolder as folder, startExampleApp } from '../support/example-app'
import { blocksOf } from '../support/readme'

const readme = readFileSync(join(folder, 'README.md'), 'utf8')
const run = promisify(execFile)
const hasCurl = spawnSync('bash', ['-c', 'curl --version']).status === 0
const describeWithCurl = hasCurl ? describe : describe.skip

let database: Database
let app: ChildProcess
let url: string

async function startApp() {
  ;({ app, url } = await startExampleApp(database))
}

async function endApp(signal: 'SIGTERM' | 'SIGKILL') {
  if (app.exitCode !== null || app.signalCode !== null) return [app.exitCode, app.signalCode]
  const exited = once(app, 'exit')
  app.kill(signal)
  return exited
}

beforeAll(async () => {
  database = await createDatabase('empty')
  await startApp()
})

afterAll(async () => {
  await endApp('SIGKILL')
  await database.drop()
})

async function call(method: string, path: string, { headers = {}, body }: CallOptions = {}) {
  const response = await fetch(url + path, {
    method,
    headers: { ...headers, ...(body !== undefined && { 'Content-Type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  return { response, body: (await response.json()) as Record<string, unknown> }
}

interface CallOptions {
  headers?: Record<string, string>
  body?: object
}

async function signIn(username: string): Promise<Record<string, string>> {
  const { response } = await call('POST', '/sign-in', { body: { username, password: username } })
  return { Cookie: String(response.headers.get('set-cookie')?.split(';')[0]) }
}

async function createKey(username: string, permissions: string[]): Promise<Record<string, string>> {
  const headers = await signIn(username)
  const { body } = await call('POST', '/api-keys', { headers, body: { name: 'CI', permissions } })
  return { Authorization: `Bearer ${String(body.plainTextKey)}` }
}

function startRun(headers: Record<string, string>, body: object) {
  return fetch(`${url}/graphs/greeting/run`, {
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
}

/** Returns the key that headers carry. */
function keyOf({ Authorization = '' }: Record<string, string>) {
  return Authorization.replace('Bearer ', '')
}

function postToken(path: string, headers: Record<string, string>, token: string) {
  const body = new URLSearchParams({ token })
  return fetch(`${url}/oauth/${path}`, { method: 'POST', headers, body })
}

/** Sends a request as a browser does, and keeps the cookie of the session. */
async function browse(
  path: string,
  { cookie = '', form }: { cookie?: string; form?: Record<string, string> } = {},
) {
  const response = await fetch(url + path, {
    method: form ? 'POST' : 'GET',
    redirect: 'manual',
    headers: { Accept: 'text/html,*/*;q=0.8', Cookie: cookie, 'Sec-Fetch-Site': 'same-origin' },
    ...(form && { body: new URLSearchParams(form) }),
  })
  return { response, html: await response.text() }
}

async function cookieOf(username: string): Promise<{ cookie: string }> {
  return { cookie: (await signIn(username)).Cookie ?? '' }
}

describe('the pages of the example app', () => {
  it('sign a user in, who creates a key and tries it', async () => {
    const form = await browse('/sign-in')
    const wrong = await browse('/sign-in', { form: { username: 'alice', password: 'wrong' } })
    const { response: signedIn } = await browse('/sign-in', {
      form: { username: 'alice', password: 'alice' },
    })
    const cookie = String(signedIn.headers.get('set-cookie')?.split(';')[0])
    const { html: shown } = await browse('/settings/api-keys/new', {
      cookie,
      form: { name: 'Tried', permissions: 'READ_GRAPH', environment: 'live', expiry: 'never' },
    })
    const [key = ''] = /agpt_[0-9A-Za-z]{51}/.exec(shown) ?? []
    const good = await browse('/try', { form: { key, route: 'GET /graphs' } })
    const refused = await browse('/try', { form: { key, route: 'GET /blocks' } })
    const unknown = await browse('/try', { form: { key, route: 'GET /admin' } })

    expect(form.html).toContain('Each password is the name.')
    expect(wrong.response.headers.get('location')).toBe('/sign-in?failed')
    expect(signedIn.headers.get('location')).toBe('/settings/api-keys')
    expect((await browse('/', { cookie })).html).toContain('<b>alice</b>')
    expect(good.html).toContain('<b>200 OK</b>')
    expect(good.html).toContain('<dt>ratelimit</dt>')
    expect(refused.html).toContain('<b>403 Forbidden</b>')
    expect(refused.html).toContain('The key is good, and may not do this.')
    expect(refused.html).toMatch(/&quot;missing&quot;: \[\s+&quot;READ_BLOCK&quot;\s+\]/)
    expect(good.html + refused.html).not.toContain(key)
    expect(unknown.response.status).toBe(303)
  })

  it.each([
    ['no text', '', '401 Unauthorized'],
    ['much text', 'x'.repeat(20_000), '431 Request Header Fields Too Large'],
    ['other text', 'Schlüssel\nzwei', 'A key has letters, digits and underscores.'],
  ])('say of what is no key what the app answers: %s', async (_, key, said) => {
    const tried = await browse('/try', { form: { key, route: 'GET /me' } })

    expect(tried.response.status).toBe(200)
    expect(tried.html.replaceAll(/<[^>]*>/g, '')).toContain(said)
  })

  it('lead members to the keys of their organization', async () => {
    const path = '/organizations/acme/settings/api-keys'
    const [alice, bob, admin] = [
      await cookieOf('alice'),
      await cookieOf('bob'),
      await cookieOf('admin'),
    ]
    const statuses = [alice, bob, admin, {}].map(async (who) => {
      return (await browse(path, who)).response.status
    })

    expect(await Promise.all(statuses)).toEqual([200, 200, 404, 401])
    expect((await browse('/', alice)).html).toContain('you manage them')
    expect((await browse('/try', bob)).html).toContain(`<a href="${path}">Keys of Acme</a>`)
    expect((await browse('/', admin)).html).not.toContain('Acme')
    expect((await browse('/', {})).html).not.toContain('Acme')
    expect((await browse(path, alice)).html).toContain('Create key')
    expect((await browse(path, bob)).html).not.toContain('Create key')
  })

  it('tell programs the routes as text', async () => {
    const response = await fetch(url, { headers: { Accept: '*/*' } })

    expect(response.headers.get('content-type')).toContain('text/plain')
    expect(await response.text()).toContain('GET    /graphs')
  })
})

describe('the example app', () => {
  it('executes a graph and a block for a key that may', async () => {
    const headers = await createKey('alice', ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'])

    const graph = await call('POST', '/graphs/greeting/execute', {
      headers,
      body: { inputs: { name: 'Ada' } },
    })
    const block = await call('POST', '/blocks/greet/execute', {
      headers,
      body: { inputs: { name: 'Ada' } },
    })

    expect(graph.response.status).toBe(200)
    expect(graph.body).toEqual({ outputs: { greeting: 'HELLO, ADA!' } })
    expect(block.body).toEqual({ output: 'Hello, Ada!' })
  })

  it('does everything for a key whose permission implies all others', async () => {
    const headers = await createKey('alice', ['EVERYTHING'])
    const body = { inputs: { name: 'Ada' } }

    const { response: shown } = await call('GET', '/graphs', { headers })
    const { response: executed } = await call('POST', '/graphs/greeting/execute', { headers, body })

    expect([shown.status, executed.status]).toEqual([200, 200])
  })

  it('shows graphs and blocks to a key that may', async () => {
    const headers = await createKey('alice', ['READ_GRAPH', 'READ_BLOCK'])

    const { body: graph } = await call('GET', '/graphs/greeting', { headers })
    const { body: listed } = await call('GET', '/blocks', { headers })

    const name = 'A loud greeting'
    expect(graph).toEqual({ id: 'greeting', name, inputs: ['name'], blocks: ['greet', 'shout'] })
    expect(listed.blocks).toContainEqual({
      id: 'shout',
      name: 'Shout',
      kind: 'text.uppercase',
      settings: {},
    })
  })

  it('shows and executes the graphs to which a key is bound, and nothing else', async () => {
    const headers = await signIn('alice')
    const body = { name: 'One graph', permissions: ['EVERYTHING'] }
    const bind = (resources: object) =>
      call('POST', '/api-keys', { headers, body: { ...body, resources } })
    const made = [await bind({ graph: ['greeting'] }), await bind({ graph: [] })]
    const [bound = {}, empty = {}] = made.map(({ body: { plainTextKey } }) => ({
      Authorization: `Bearer ${String(plainTextKey)}`,
    }))
    const statusOf = async (method: string, path: string, key: Record<string, string>) =>
      (await call(method, path, { headers: key })).response.status

    const lists = [
      await call('GET', '/graphs', { headers: bound }),
      await call('GET', '/graphs', { headers: empty }),
    ]
    const statuses = [
      await statusOf('GET', '/graphs/greeting', bound),
      await statusOf('GET', '/graphs/greeting', empty),
      await statusOf('GET', '/graphs/umbrella', bound),
      await statusOf('GET', '/blocks', bound),
      await statusOf('GET', '/me', bound),
    ]
    const { body: refused } = await bind({ graph: ['umbrella'] })

    expect(lists.map(({ body: { graphs } }) => (graphs as object[]).length)).toEqual([1, 0])
    expect(statuses).toEqual([200, 403, 403, 403, 200])
    expect(refused.errors).toEqual([
      { pointer: '#/resources/graph', message: 'may not be bound by this owner' },
    ])
  })

  it('shows graphs to a test key, and executes none for it', async () => {
    const session = await signIn('alice')
    const { body: created } = await call('POST', '/api-keys', {
      headers: session,
      body: { name: 'CI', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'], environment: 'test' },
    })
    const headers = { Authorization: `Bearer ${String(created.plainTextKey)}` }

    const shown = await call('GET', '/graphs/greeting', { headers })
    const executed = await call('POST', '/graphs/greeting/execute', { headers, body: {} })

    expect(created.plainTextKey).toMatch(/^agpt_test_[0-9A-Za-z]{51}$/)
    expect(shown.response.status).toBe(200)
    expect([executed.response.status, executed.body.code]).toEqual([403, 'environment_not_allowed'])
  })

  it.each([[undefined], [{ inputs: {} }], [{ inputs: { name: {} } }], [{ inputs: 'Ada' }]])(
    'refuses to execute a graph with the body %j',
    async (body) => {
      const headers = await createKey('alice', ['EXECUTE_GRAPH'])

      const refused = await call('POST', '/graphs/greeting/execute', {
        headers,
        ...(body && { body }),
      })

      expect(refused.response.status).toBe(422)
      expect(refused.response.headers.get('content-type')).toContain('application/problem+json')
    },
  )

  it.each([
    ['GET', '/graphs', 'READ_GRAPH'],
    ['GET', '/graphs/greeting', 'READ_GRAPH'],
    ['POST', '/graphs/greeting/execute', 'EXECUTE_GRAPH'],
    ['POST', '/graphs/greeting/run', 'EXECUTE_GRAPH'],
    ['GET', '/blocks', 'READ_BLOCK'],
    ['POST', '/blocks/shout/execute', 'EXECUTE_BLOCK'],
  ])('guards %s %s with %s', async (method, path, permission) => {
    const all = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK']
    const other = await createKey(
      'alice',
      all.filter((name) => name !== permission),
    )

    const without = await call(method, path)
    const lacking = await call(method, path, { headers: other })

    expect([without.response.status, lacking.response.status]).toEqual([401, 403])
    expect(lacking.body.missing).toEqual([permission])
  })

  it('streams a run step by step', async () => {
    const headers = await createKey('alice', ['EXECUTE_GRAPH'])

    const response = await startRun(headers, { inputs: { name: 'Ada' }, paceMs: 0 })
    const events = await response.text()

    expect(response.headers.get('content-type')).toContain('text/event-stream')
    expect(events.match(/^event: .*/gm)).toEqual(['event: step', 'event: step', 'event: outputs'])
    expect(events).toMatch(/ada/i)
  })

  it('ends a run when its key is revoked', async () => {
    const session = await signIn('alice')
    const { body: created } = await call('POST', '/api-keys', {
      headers: session,
      body: { name: 'CI', permissions: ['EXECUTE_GRAPH'] },
    })
    const headers = { Authorization: `Bearer ${String(created.plainTextKey)}` }
    const { id } = created.apiKey as { id: string }

    const response = await startRun(headers, { inputs: { name: 'Ada' }, paceMs: 60_000 })
    await call('DELETE', `/api-keys/${id}`, { headers: session })

    expect(await response.text()).toMatch(/^event: error\ndata: .*not valid/)
  })

  it('reports its health', async () => {
    await call('GET', '/graphs', { headers: await createKey('alice', ['READ_GRAPH']) })

    const { body } = await call('GET', '/health')

    expect(body).toMatchObject({ feed: 'following', lease: { isLive: true } })
  })

  it('shows a key the graphs of its owner only', async () => {
    const [alice, bob] = [
      await createKey('alice', ['READ_GRAPH']),
      await createKey('bob', ['READ_GRAPH']),
    ]

    const ofAlice = await call('GET', '/graphs', { headers: alice })
    const ofBob = await call('GET', '/graphs', { headers: bob })
    const [graph] = ofBob.body.graphs as { id: string }[]
    const strange = await call('GET', `/graphs/${graph?.id}`, { headers: alice })

    expect(ofAlice.body.graphs).not.toEqual(ofBob.body.graphs)
    expect(strange.response.status).toBe(404)
  })

  const keysOfAcme = '/organizations/acme/api-keys'

  it('shows a key of an organization its graphs and blocks only, and no user', async () => {
    const session = await signIn('alice')
    const { body: created } = await call('POST', keysOfAcme, {
      headers: session,
      body: { name: 'Nightly', permissions: ['EVERYTHING'] },
    })
    const headers = { Authorization: `Bearer ${String(created.plainTextKey)}` }
    const body = { inputs: { name: 'Ada' } }
    const listed = async (path: string) => (await call('GET', path, { headers })).body

    const { body: executed } = await call('POST', '/graphs/welcome/execute', { headers, body })
    const { body: block } = await call('POST', '/blocks/invite/execute', { headers, body })
    const strange = await call('GET', '/graphs/greeting', { headers })
    const both = await call('GET', '/graphs', { headers: { ...headers, ...session } })

    expect(created.apiKey).toMatchObject({ owner: { type: 'organization', id: 'acme' } })
    expect(await listed('/graphs')).toMatchObject({ graphs: [{ id: 'welcome' }] })
    expect(await listed('/blocks')).toMatchObject({ blocks: [{ id: 'invite' }] })
    expect(await listed('/me')).toMatchObject({ owner: { type: 'organization', id: 'acme' } })
    expect(executed).toEqual({ outputs: { welcome: 'Welcome to Acme, Ada!' } })
    expect(block).toEqual({ output: 'Welcome to Acme, Ada!' })
    expect(strange.response.status).toBe(404)
    expect([both.response.status, both.body.code]).toEqual([400, 'multiple_credentials'])
  })

  it('tells other servers about keys of their own owner, and ends a key that is sent', async () => {
    const [alice, bob] = [
      await createKey('alice', ['READ_GRAPH']),
      await createKey('bob', ['READ_GRAPH']),
    ]
    const isActive = async (token: string) =>
      Object((await (await postToken('introspect', alice, token)).json()) as unknown)
        .active as unknown

    expect(await isActive(keyOf(alice))).toBe(true)
    expect(await isActive(keyOf(bob))).toBe(false)
    expect((await postToken('revoke', {}, keyOf(bob))).status).toBe(200)
    expect((await call('GET', '/me', { headers: bob })).response.status).toBe(401)
  })

  it('lets alice manage the keys of Acme, bob see them, and no others in', async () => {
    const input = { name: 'CI', permissions: ['READ_GRAPH'] }
    const [alice, bob, admin] = [await signIn('alice'), await signIn('bob'), await signIn('admin')]
    const bind = (graph: string) =>
      call('POST', keysOfAcme, {
        headers: alice,
        body: { ...input, resources: { graph: [graph] } },
      })

    const bound = await bind('welcome')
    const foreign = await bind('greeting')
    const seen = await call('GET', keysOfAcme, { headers: bob })
    const refused = await call('POST', keysOfAcme, { headers: bob, body: input })
    const own = await call('GET', '/api-keys', { headers: alice })

    expect([bound.response.status, foreign.response.status]).toEqual([201, 422])
    expect(seen.body.apiKeys).toContainEqual(bound.body.apiKey)
    expect(own.body.apiKeys).not.toContainEqual(bound.body.apiKey)
    expect([refused.response.status, refused.body.code]).toEqual([403, 'read_only'])
    for (const [headers, id] of [
      [admin, 'acme'],
      [alice, 'other'],
      [alice, '%00'],
    ] as const) {
      const strange = await call('GET', `/organizations/${id}/api-keys`, { headers })
      expect([strange.response.status, strange.body.code]).toEqual([404, 'organization_not_found'])
    }
  })

  it('shows the keys of all users to an administrator only', async () => {
    await createKey('bob', ['READ_GRAPH'])

    const refused = await call('GET', '/admin/api-keys', { headers: await signIn('alice') })
    const listed = await call('GET', '/admin/api-keys', { headers: await signIn('admin') })

    expect([refused.response.status, listed.response.status]).toEqual([403, 200])
    expect(listed.body.apiKeys).not.toHaveLength(0)
  })

  it('names the cookie of its sessions in the document of its keys', async () => {
    const session = await signIn('alice')

    const answer = await fetch(`${url}/api-keys/openapi.json`, { headers: session })
    const { components } = (await answer.json()) as { components: { securitySchemes: object } }

    const cookies = Object.values(components.securitySchemes).filter((each) => each.in === 'cookie')
    expect(cookies.map(({ name }) => name)).toEqual([session.Cookie?.split('=')[0]])
  })

  it('refuses a wrong password', async () => {
    const { response } = await call('POST', '/sign-in', {
      body: { username: 'alice', password: 'bob' },
    })

    expect(response.status).toBe(401)
    expect(response.headers.get('set-cookie')).toBeNull()
  })

  it('answers 503 while the database is away, through Passport as well', async () => {
    const key = await createKey('alice', ['READ_GRAPH'])
    const proxy = await startProxy(Number(new URL(database.url).port))
    const distant = await startExampleApp({ url: proxy.through(database.url) })
    proxy.refuse()

    for (const path of ['/graphs', '/me']) {
      const { status, headers } = await fetch(distant.url + path, { headers: key })
      expect([path, status, headers.get('Retry-After')]).toEqual([path, 503, '1'])
    }
    const ended = once(distant.app, 'exit')
    distant.app.kill('SIGKILL')
    await ended
    await proxy.close()
  })

  it('keeps its keys and sessions after kill -9', async () => {
    const key = await createKey('alice', ['READ_GRAPH'])
    const session = await signIn('alice')

    await endApp('SIGKILL')
    await startApp()

    expect((await call('GET', '/graphs', { headers: key })).response.status).toBe(200)
    expect((await call('GET', '/api-keys', { headers: session })).response.status).toBe(200)
  })

  it('ends in order on SIGTERM', async () => {
    const exit = await endApp('SIGTERM')
    await startApp()

    expect(exit).toEqual([0, null])
  })
})

describe('the list of files on the page of the example app', () => {
  it('is complete', () => {
    const files = readdirSync(folder).filter((name) => name.endsWith('.ts'))
    const listed = [...readme.matchAll(/^\| `([^`]+\.ts)`/gm)].map(([, name]) => name)

    expect(new Set(listed)).toEqual(new Set(files))
  })
})

describeWithCurl('the page of the example app', () => {
  it('has commands that give the answers on the page', async () => {
    const cookies = await mkdtemp(join(tmpdir(), 'express-api-keys-cookies-'))
    const [, ...commands] = blocksOf(readme, 'sh')
    const script = commands
      .join('')
      .replaceAll('localhost:3000', url)
      .replaceAll('/tmp/agpt-cookies', join(cookies, 'cookies'))

    const { stdout } = await run('bash', ['-e', '-c', script])
    await rm(cookies, { recursive: true })

    const answers = blocksOf(readme, 'json')
    expect(answers).toHaveLength(3)
    for (const answer of answers) expect(stdout).toContain(JSON.stringify(JSON.parse(answer)))
    expect(stdout.match(/HTTP\/1\.1 .*/g)?.map((line) => line.trim())).toEqual([
      'HTTP/1.1 403 Forbidden',
      'HTTP/1.1 401 Unauthorized',
      'HTTP/1.1 403 Forbidden',
      'HTTP/1.1 403 Forbidden',
      'HTTP/1.1 401 Unauthorized',
      'HTTP/1.1 403 Forbidden',
      'HTTP/1.1 404 Not Found',
    ])
    expect(stdout).toContain('{"owner":{"type":"organization","id":"acme"}')
    expect(stdout).toMatch(/\{"active":true,"scope":"READ_GRAPH",.*"sub":"organization:acme"/)
    expect(stdout).toContain('"code":"read_only"')
    expect(stdout).toContain('"code":"organization_not_found"')
    expect(stdout).toContain('"code":"environment_not_allowed"')
    expect(stdout).toContain('"code":"resource_not_allowed"')
    expect(stdout).toMatch(/event: error\ndata: .*revoked/)
    expect(stdout).toMatch(/"apiKeys":\[\{/)
  })
})
