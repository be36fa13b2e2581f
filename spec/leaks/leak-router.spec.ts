import type { Express } from 'express'

import type { LeakRouterOptions } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const token = 'a token of at least 16 characters'
const everything: LeakRouterOptions = { github: true, gitlab: { token }, reports: true }

const addLeaks = (given?: LeakRouterOptions) => (app: Express, keys: TestApiKeys) => {
  app.use('/leaks', keys.leakRouter(given))
}

const { apiKeys, http, createProcess } = useWorld({ routes: addLeaks(everything) })

/** All routes, and the option that each needs. */
const routes = [
  ['get', '/status', undefined],
  ['post', '/github', 'github'],
  ['get', '/revocable_token_types', 'gitlab'],
  ['post', '/revoke_tokens', 'gitlab'],
  ['post', '/reports', 'reports'],
] as const

describe('leakRouter', () => {
  it('has exactly the routes of this table', () => {
    const { stack } = apiKeys.leakRouter(everything) as unknown as {
      stack: { route?: { path: string; stack: { method?: string }[] } }[]
    }
    const found = stack.flatMap(({ route }) =>
      (route?.stack ?? []).flatMap(({ method }) => (method ? [`${method} ${route?.path}`] : [])),
    )

    expect(found).toEqual(routes.map(([method, path]) => `${method} ${path}`))
  })

  it.each(routes)('answers other methods than %s %s with 405', async (method, path) => {
    const other = method === 'get' ? 'post' : 'get'

    expectProblem(await http[other](`/leaks${path}`), 'method_not_allowed')
    expect((await http.delete(`/leaks${path}`)).headers.allow).toContain(method.toUpperCase())
    expect((await http.options(`/leaks${path}`)).status).toBe(204)
  })

  it.each(routes)('refuses plain HTTP at %s %s', async (method, path) => {
    const strict = createProcess({ insecureTransport: 'refuse' }, addLeaks(everything))

    const answer = await strict.http.set({ 'X-Forwarded-Proto': 'http' })[method](`/leaks${path}`)

    expectProblem(answer, 'insecure_transport')
  })

  it('has only the status unless the app asks for more', async () => {
    const { http } = createProcess({}, addLeaks())
    for (const [method, path, option] of routes) {
      const { status } = await http[method](`/leaks${path}`)
      expect([path, status]).toEqual([path, option === undefined ? 401 : 404])
    }
  })

  it('leaves other paths to the app', async () => {
    expect((await http.get('/leaks/other')).body).toEqual({ app: 'not found' })
  })

  it.each<[unknown, string]>([
    ['github', 'the options must be an object, got "github"'],
    [[], 'the options must be an object'],
    [{ gitHub: true }, 'gitHub'],
    [{ github: 'yes' }, 'github must be true, false or an object, got "yes"'],
    [{ github: { url: 'x' } }, 'url'],
    [{ github: { publicKeysUrl: 'x' } }, 'publicKeysUrl must be an https address, got "x"'],
    [
      { github: { publicKeysUrl: 'http://example.com/' } },
      'publicKeysUrl must be an https address',
    ],
    [{ github: { token: 7 } }, 'the token of github must be text'],
    [{ gitlab: true }, 'gitlab must be an object, got true'],
    [{ gitlab: {} }, 'the token of gitlab must have at least 16 characters'],
    [{ gitlab: { token: 'short' } }, 'the token of gitlab must have at least 16 characters'],
    [{ gitlab: { token, types: 'x' } }, 'the types of gitlab must be a list of names, got "x"'],
    [{ reports: 1 }, 'reports must be true or false, got 1'],
    [{ onExposed: 'delete' }, `onExposed must be 'revoke' or 'suspend', got "delete"`],
  ])('refuses options that break the rules: %j', (given, message) => {
    const create = () => apiKeys.leakRouter(given as LeakRouterOptions)

    expect(create).toThrow(TypeError)
    expect(create).toThrow('leakRouter: ')
    expect(create).toThrow(message)
    expect(create).not.toThrow('short')
  })

  it('is no middleware itself', async () => {
    const { http } = createProcess({}, (app, keys) => app.use(keys.leakRouter as never))

    expect((await http.get('/')).body.app).toContain('apiKeys.leakRouter is not a middleware')
  })
})
