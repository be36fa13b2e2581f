import { randomUUID } from 'node:crypto'

import type { Express, RequestHandler } from 'express'

import type { AnyRequest } from '../../lib/http/guard-options'
import type { TestApiKeys } from '../support/app'
import { createContract } from '../support/contract'
import { databaseAway } from '../support/database'
import { bearer, type Method } from '../support/http'
import { expectProblem } from '../support/problem'
import { sendRaw } from '../support/raw-http'
import { useWorld } from '../support/world'

interface Route {
  method: Method
  /** The path below the mount of its router; `:id` stands for the id of a key. */
  path: string
  /** The user who may use it: the owner of the key, a member of the organization that owns it, or an administrator. */
  who: 'alice' | 'member' | 'admin'
  /** Input by the rules of the route. */
  body?: object
  /** The status of the answer to its user. */
  ok: 200 | 201
}

const routesOfOneKey = (who: Route['who']): Route[] => [
  { who, method: 'get', path: '/:id', ok: 200 },
  { who, method: 'patch', path: '/:id', body: { name: 'Mine' }, ok: 200 },
  { who, method: 'delete', path: '/:id', body: { reason: 'Mine.' }, ok: 200 },
  { who, method: 'put', path: '/:id/permissions', body: { permissions: ['READ_GRAPH'] }, ok: 200 },
  { who, method: 'post', path: '/:id/suspend', body: { reason: 'Mine.' }, ok: 200 },
  { who, method: 'post', path: '/:id/reactivate', ok: 200 },
  { who, method: 'post', path: '/:id/rotate', ok: 200 },
  { who, method: 'delete', path: '/:id/rotation', ok: 200 },
  { who, method: 'get', path: '/:id/events', ok: 200 },
  { who, method: 'get', path: '/:id/usage', ok: 200 },
]
const newKey = { name: 'CI', permissions: ['READ_GRAPH'] }

/** All routes of all routers. A new route needs a row here, and is then held to all specs below. */
const routes: Route[] = [
  { who: 'alice', method: 'get', path: '/', ok: 200 },
  { who: 'alice', method: 'post', path: '/', body: newKey, ok: 201 },
  { who: 'alice', method: 'get', path: '/permissions', ok: 200 },
  ...routesOfOneKey('alice'),

  { who: 'member', method: 'get', path: '/', ok: 200 },
  { who: 'member', method: 'post', path: '/', body: newKey, ok: 201 },
  { who: 'member', method: 'get', path: '/permissions', ok: 200 },
  ...routesOfOneKey('member'),

  { who: 'admin', method: 'get', path: '/', ok: 200 },
  { who: 'admin', method: 'post', path: '/', body: { ...newKey, userId: 'alice' }, ok: 201 },
  {
    who: 'admin',
    method: 'post',
    path: '/batch',
    body: { apiKeys: [{ ...newKey, userId: 'alice' }] },
    ok: 201,
  },
  { who: 'admin', method: 'post', path: '/revoke-many', body: { userId: 'bob' }, ok: 200 },
  {
    who: 'admin',
    method: 'post',
    path: '/suspend-owner',
    body: { owner: { type: 'user', id: 'bob' } },
    ok: 200,
  },
  { who: 'admin', method: 'post', path: '/reactivate-owner', body: { userId: 'bob' }, ok: 200 },
  {
    who: 'admin',
    method: 'post',
    path: '/:id/transfer',
    body: { owner: { type: 'user', id: 'carol' } },
    ok: 200,
  },
  { who: 'admin', method: 'post', path: '/:id/unrevoke', body: { reason: 'Wrong.' }, ok: 200 },
  {
    who: 'admin',
    method: 'post',
    path: '/erase-owner',
    body: { owner: { type: 'user', id: 'nobody' }, reason: 'Request 4711' },
    ok: 200,
  },
  { who: 'admin', method: 'post', path: '/revoke-all', body: { userId: 'bob' }, ok: 200 },
  { who: 'admin', method: 'post', path: '/revoke-unused', body: { unusedForDays: 90 }, ok: 200 },
  { who: 'admin', method: 'post', path: '/prune', body: { usage: 90 }, ok: 200 },
  { who: 'admin', method: 'get', path: '/events', ok: 200 },
  { who: 'admin', method: 'get', path: '/permissions', ok: 200 },
  { who: 'admin', method: 'get', path: '/usage', ok: 200 },
  { who: 'admin', method: 'get', path: '/audit-head', ok: 200 },
  { who: 'admin', method: 'post', path: '/audit-verification', ok: 200 },
  ...routesOfOneKey('admin'),
]

const isRead = ({ method }: Route) => method === 'get'
const isOfOneKey = ({ path }: Route) => path.includes(':id')

/** The app has one organization, with one member. */
function organization({ params }: AnyRequest, { id }: { id: unknown }) {
  return params.organizationId === 'acme' && id === 'member' ? 'acme' : null
}

function addOrganizations(app: Express, keys: TestApiKeys) {
  app.use('/organizations/:organizationId/api-keys', keys.router({ organization }))
}

const withOrganizations = { organizations: {} as never }

/** Where the routers of the app are, for the document by which each answer below is checked. */
const documented = { organizationRouter: '/organizations/{organizationId}/api-keys' }

const { apiKeys, app, http, rows, createKey, createProcess } = useWorld({
  routes: addOrganizations,
  documented,
  options: {
    ...withOrganizations,
    header: 'X-API-Key',
    grantable: () => ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'],
  },
})

const withoutDatabase = createProcess(
  { ...withOrganizations, sequelize: databaseAway.connect() },
  addOrganizations,
)

/** The mounts as documents write them. */
const templates: Record<string, string> = {
  alice: '/api-keys',
  member: documented.organizationRouter,
  admin: '/admin/api-keys',
}

const contract = createContract(apiKeys.openApi(documented))

const mounts = {
  alice: '/api-keys',
  member: '/organizations/acme/api-keys',
  admin: '/admin/api-keys',
}

/** Below the mounts of `createTestApp`, and of organizations. A request of the path itself has no slash at its end. */
function pathOf({ who, path }: Pick<Route, 'who' | 'path'>, id = ':id') {
  return mounts[who] + (path === '/' ? '' : path.replace(':id', id))
}

async function createKeyOfOrganization() {
  const owner = { type: 'organization', id: 'acme' }
  const { apiKey } = await apiKeys.create({ ...newKey, owner } as never)
  return apiKey
}

function titleOf(route: Route) {
  return `${route.method.toUpperCase()} ${pathOf(route)}`
}

/** Expects the audit trail, which has an entry for every change of a key, to be as long as before. */
async function expectNoChange(send: () => Promise<unknown>) {
  const before = await rows('SELECT count(*) FROM api_key_events')
  await send()
  expect(await rows('SELECT count(*) FROM api_key_events')).toEqual(before)
}

describe.each([
  ['router', apiKeys.router(), 'alice'],
  ['router of an organization', apiKeys.router({ organization }), 'member'],
  ['adminRouter', apiKeys.adminRouter(), 'admin'],
])('%s', (_, router, who) => {
  const { stack } = router as unknown as { stack: Layer[] }

  interface Layer {
    handle: RequestHandler
    /** The stack of a router of Express 4 and 5. */
    route?: { path: string; stack: { method?: string }[] }
  }

  it('has exactly the routes of this table', () => {
    const all = stack.flatMap(({ route }) =>
      (route?.stack ?? [])
        // The handler without a method answers all other methods.
        .filter(({ method }) => method !== undefined)
        .map(({ method }) => `${method} ${route?.path.replace(/:\w+/, ':id')}`),
    )

    expect(all.toSorted()).toEqual(
      routes
        .filter((route) => route.who === who)
        .map(({ method, path }) => `${method} ${path}`)
        .toSorted(),
    )
  })

  it('has exactly the routes of its document', () => {
    const ofRouter = Object.entries(contract.paths).flatMap(([path, item]) =>
      Object.keys(item)
        .filter((method) => method !== 'parameters')
        .map((method) => `${method} ${path}`),
    )
    const mount = templates[who] ?? ''

    expect(
      ofRouter.filter((operation) => operation.split(' ')[1]?.startsWith(mount)).toSorted(),
    ).toEqual(
      routes
        .filter((route) => route.who === who)
        .map(
          ({ method, path }) =>
            `${method} ${mount}${path === '/' ? '' : path.replace(':id', '{apiKeyId}')}`,
        )
        .toSorted(),
    )
  })

  it('has nothing beside its routes but the handlers of refusals', () => {
    const others = stack.filter(({ route }) => !route)

    expect(others.map(({ handle }) => handle.name)).toEqual(['apiKeysErrorHandler'])
  })
})

describe.each(routes.map((route) => [titleOf(route), route] as const))('%s', (_, route) => {
  const { method, who, body, ok } = route
  let path: string

  beforeEach(async () => {
    const { id } = who === 'member' ? await createKeyOfOrganization() : await createKey()
    path = pathOf(route, id)
  })

  it('answers its user, and lets no cache keep the answer', async () => {
    const answer = await http.as(who)[method](path, isRead(route) ? undefined : body)

    expect(answer.status).toBe(ok)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(answer.headers).not.toHaveProperty('etag')
  })

  it('takes a body that its document allows, and no other member', () => {
    const { faultsOfBody } = contract

    expect(faultsOfBody(method, path, isRead(route) ? undefined : body)).toEqual([])
    expect(faultsOfBody(method, path, { ...body, nonsense: true })).not.toEqual([])
  })

  it('needs a user who is signed in', async () => {
    await expectNoChange(async () => {
      expectProblem(await http[method](path, body), 'not_signed_in')
    })
  })

  it('is refused with an API key, valid or not, whether a user is signed in or not', async () => {
    const { plainTextKey } = await createKey({ userId: who })
    const carried = [
      bearer(plainTextKey),
      bearer(`${plainTextKey}x`),
      bearer('agpt_'),
      bearer(`<${plainTextKey}>`),
      { Authorization: plainTextKey },
      { 'X-API-Key': plainTextKey },
      { 'X-API-Key': 'agpt_x' },
    ]

    await expectNoChange(async () => {
      for (const headers of carried) {
        for (const caller of [http.set(headers), http.set({ ...headers, 'X-User': who })]) {
          const answer = await caller[method](path, body)

          expectProblem(answer, 'api_key_not_allowed')
        }
      }
    })
  })

  if (who === 'admin') {
    it('is refused to a user who is no administrator', async () => {
      await expectNoChange(async () => {
        for (const input of [body, { nonsense: true }]) {
          const answer = await http.as('alice')[method](path, input)

          expectProblem(answer, 'not_an_admin')
        }
      })
    })
  }

  const fromElsewhere = { 'X-User': who, 'Sec-Fetch-Site': 'cross-site' }

  if (isRead(route)) {
    it('answers HEAD as it answers GET, without the body', async () => {
      const answer = await http.as(who).head(path)

      expect(answer.status).toBe(ok)
      expect(answer.headers['cache-control']).toBe('no-store')
      expect(answer.text).toBeUndefined()
    })

    it('answers a request from another site, which can read no answer', async () => {
      const answer = await http.set(fromElsewhere)[method](path)

      expect(answer.status).toBe(ok)
    })
  } else {
    it('is refused to a page of another site', async () => {
      await expectNoChange(async () => {
        expectProblem(await http.set(fromElsewhere)[method](path, body), 'cross_site_request')
      })
    })

    it('is refused with a validator, because no answer has one', async () => {
      await expectNoChange(async () => {
        const headers = { 'X-User': who, 'If-Match': '"v1"' }

        expectProblem(await http.set(headers)[method](path, body), 'precondition_failed')
      })
    })
  }

  if (isOfOneKey(route)) {
    // The permissions that the owner of a key may give show a user nothing about the key.
    const inputs = route.method === 'put' ? [body, { permissions: ['EXECUTE_BLOCK'] }] : [body]

    it('is the same 404 to the byte for each id that names no key of the user', async () => {
      const { id: ofBob } = await createKey({ userId: 'bob' })
      const { id: revokedOfBob } = await createKey({ userId: 'bob', status: 'REVOKED' })
      const ids = [
        ...(who === 'admin' ? [] : [ofBob, revokedOfBob]),
        randomUUID(),
        encodeURIComponent("'; DROP TABLE api_keys; --"),
        encodeURIComponent("' OR '1'='1"),
        '%00',
        '%ZZ',
        '%C3',
        'null',
        '1',
        `${ofBob}%20`,
        `{${ofBob}}`,
        'x'.repeat(4000),
      ]
      const answers: unknown[] = []

      await expectNoChange(async () => {
        for (const id of ids) {
          for (const input of inputs) {
            const answer = await http.as(who)[method](pathOf(route, id), input)
            expectProblem(answer, 'api_key_not_found')
            const { date, ...headers } = answer.headers
            expect(date).toBeDefined()
            answers.push({ headers, text: answer.text })
          }
        }
      })

      for (const answer of answers) expect(answer).toEqual(answers[0])
    })
  }

  // The permissions are known without the database.
  if (route.path !== '/permissions') {
    it('is neither a wrong key nor a missing one without the database', async () => {
      const answer = await withoutDatabase.http.as(who)[method](path, body)

      expectProblem(answer, 'database_unavailable')
      expect(answer.headers['retry-after']).toBe('1')
    })
  }
})

const paths = [...new Set(routes.map((route) => pathOf(route)))].map((path) => {
  const methods = routes.filter((route) => pathOf(route) === path).map(({ method }) => method)
  const all = [...methods, ...(methods.includes('get') ? ['head'] : []), 'options']
  return { path, allow: all.map((method) => method.toUpperCase()).join(', ') }
})

describe.each(paths)('the methods of $path', ({ path, allow }) => {
  const actual = path.replace(':id', randomUUID())

  it('are named to OPTIONS, signed in or not', async () => {
    for (const caller of [http, http.as('alice')]) {
      const answer = await caller.options(actual)

      expect(answer.status).toBe(204)
      expect(answer.headers.allow).toBe(allow)
      expect(answer.text).toBe('')
    }
  })

  it('are named in the 405 for each method that the path lacks', async () => {
    const others = ['GET', 'PUT', 'POST', 'PATCH', 'DELETE', 'TRACE', 'PROPFIND', 'M-SEARCH']
    for (const method of others.filter((method) => !allow.split(', ').includes(method))) {
      const answer = await sendRaw(app, [`${method} ${actual} HTTP/1.1`, 'Content-Length: 0'])

      expectProblem({ ...answer, body: JSON.parse(answer.body) }, 'method_not_allowed')
      expect(answer.headers.allow).toBe(allow)
    }
  })
})

describe('a path of no route', () => {
  it.each(['GET', 'POST', 'OPTIONS', 'PROPFIND'])('goes on to the app: %s', async (method) => {
    for (const path of [
      `/api-keys/${randomUUID()}/nothing`,
      '/api-keys/a/b/c',
      '/admin/api-keys/a/b/c',
    ]) {
      const answer = await sendRaw(app, [`${method} ${path} HTTP/1.1`, 'Content-Length: 0'])

      expect(answer.status).toBe(404)
      expect(answer.body).toBe('{"app":"not found"}')
    }
  })
})
