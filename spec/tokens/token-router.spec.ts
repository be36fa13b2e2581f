import type { Express } from 'express'

import type { TokenRouterOptions } from '../../lib'
import { environmentOptions } from '../support/environments'
import type { TestApiKeys, TestApp } from '../support/app'
import { bearer } from '../support/http'
import { useWorld } from '../support/world'

const everything: TokenRouterOptions<TestApp> = { introspect: { permission: 'EXECUTE_BLOCK' } }

const addTokens = (given?: TokenRouterOptions<TestApp>) => (app: Express, keys: TestApiKeys) => {
  app.use('/oauth', keys.tokenRouter(given))
}

const { apiKeys, http, createProcess } = useWorld({ routes: addTokens(everything) })

const paths = ['/introspect', '/revoke']

/** Returns the statuses of both routes to a request without anything. */
async function statusesOf(given?: TokenRouterOptions<TestApp>) {
  const { http } = createProcess({}, addTokens(given))
  return Promise.all(paths.map(async (path) => (await http.post(`/oauth${path}`)).status))
}

describe('tokenRouter', () => {
  it('has exactly these routes', () => {
    const { stack } = apiKeys.tokenRouter(everything) as unknown as {
      stack: { route?: { path: string; stack: { method?: string }[] } }[]
    }
    const found = stack.flatMap(({ route }) =>
      (route?.stack ?? []).flatMap(({ method }) => (method ? [`${method} ${route?.path}`] : [])),
    )

    expect([...new Set(found)]).toEqual(paths.map((path) => `post ${path}`))
  })

  it.each(paths)('answers other methods of %s with 405', async (path) => {
    for (const method of ['get', 'head', 'put', 'patch', 'delete'] as const) {
      const { status, headers } = await http[method](`/oauth${path}`)
      expect([method, status, headers.allow]).toEqual([method, 405, 'POST, OPTIONS'])
    }
    const options = await http.options(`/oauth${path}`)
    expect([options.status, options.headers.allow]).toEqual([204, 'POST, OPTIONS'])
  })

  it.each(paths)('refuses plain HTTP at %s before all else', async (path) => {
    const strict = createProcess({ insecureTransport: 'refuse' }, addTokens(everything))

    for (const method of ['get', 'post', 'options'] as const) {
      const caller = strict.http.set({ 'X-Forwarded-Proto': 'http' })
      const { status, body } = await caller[method](`/oauth${path}`)
      expect([method, status, body.code]).toEqual([method, 403, 'insecure_transport'])
    }
  })

  it('has the routes that the app asks for', async () => {
    expect(await statusesOf()).toEqual([404, 400])
    expect(await statusesOf({})).toEqual([404, 400])
    expect(await statusesOf(everything)).toEqual([401, 400])
    expect(await statusesOf({ ...everything, revoke: false })).toEqual([401, 404])
  })

  it('leaves other paths to the app, and claims no metadata', async () => {
    for (const path of ['/other', '/.well-known/oauth-authorization-server']) {
      expect((await http.get(`/oauth${path}`)).body).toEqual({ app: 'not found' })
    }
  })

  it.each<[unknown, string]>([
    [null, 'the options must be an object, got null'],
    ['introspect', 'the options must be an object, got "introspect"'],
    [[], 'the options must be an object'],
    [{ introspection: {} }, 'there is no option introspection. Did you mean introspect?'],
    [{ revoke: 'yes' }, 'the option revoke must be true or false, got "yes"'],
    [{ revoke: false }, 'there is nothing to answer'],
    [{ introspect: true }, 'introspect must be an object, got true'],
    [{ introspect: {} }, 'the option introspect.permission must name a permission'],
    [{ introspect: { permission: 'NONSENSE' } }, 'NONSENSE'],
    [{ introspect: { permission: [] } }, 'permission'],
    [{ introspect: { permission: 'READ_GRAPH', scope: 1 } }, 'there is no option introspect.scope'],
    [
      { introspect: { permission: 'READ_GRAPH', mayIntrospect: true } },
      'the option introspect.mayIntrospect must be a function, got true',
    ],
    [
      { introspect: { permission: 'READ_GRAPH', countUse: 1 } },
      'the option introspect.countUse must be true or false, got 1',
    ],
    [
      { introspect: { permission: 'READ_GRAPH', environment: 'live' } },
      'environment needs the option environments',
    ],
  ])('refuses options that break the rules: %j', (given, message) => {
    const create = () => apiKeys.tokenRouter(given as never)

    expect(create).toThrow(TypeError)
    expect(create).toThrow('tokenRouter: ')
    expect(create).toThrow(message)
  })

  it('is no middleware itself', async () => {
    const { http } = createProcess({}, (app, keys) => app.use(keys.tokenRouter as never))

    expect((await http.get('/')).body.app).toContain('apiKeys.tokenRouter is not a middleware')
  })
})

const addTokensOf = (environment?: string) => (app: Express, keys: TestApiKeys) => {
  const introspect = { permission: 'EXECUTE_BLOCK', ...(environment && { environment }) }
  app.use('/oauth', keys.tokenRouter({ introspect } as never))
}

describe('the environments of keys', () => {
  it('are those that the app accepts, or that the router names', async () => {
    const live = createProcess(environmentOptions(), addTokensOf())
    const create = async (environment: string, permission: string) => {
      const key = { userId: 'alice', name: 'CI', permissions: [permission], environment }
      return (await live.apiKeys.create(key as never)).plainTextKey
    }
    const caller = await create('live', 'EXECUTE_BLOCK')
    const keys = {
      live: await create('live', 'READ_GRAPH'),
      test: await create('test', 'READ_GRAPH'),
    }
    const environmentsOf = async (to: typeof http) => {
      const found = []
      for (const token of Object.values(keys)) {
        const sent = to.set(bearer(caller)).post('/oauth/introspect').type('form').send({ token })
        found.push((await sent).body.environment)
      }
      return found
    }

    expect(await environmentsOf(live.http)).toEqual(['live', undefined])
    const test = createProcess(environmentOptions(), addTokensOf('test'))
    expect(await environmentsOf(test.http)).toEqual([undefined, 'test'])
  })
})
