import { Validator } from '@seriousme/openapi-schema-validator'

import type { AnyRequest, OpenApiDocument } from '../../lib'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const signIn = { type: 'apiKey', in: 'cookie', name: 'session' }

function organization({ params }: AnyRequest) {
  return params.id === 'acme' ? 'acme' : null
}

const { apiKeys, http, createKey } = useWorld({
  options: { organizations: {} as never },
  routes(app, apiKeys) {
    app.use('/keys', apiKeys.router({ openApi: true }))
    app.use(['/one/keys', '/two/tokens'], apiKeys.router({ openApi: true }))
    app.use('/teams/:id/keys', apiKeys.router({ openApi: { signIn }, organization }))
    app.use('/admin/keys', apiKeys.adminRouter({ openApi: true }))
  },
})

describe('GET /openapi.json', () => {
  it.each([
    ['/keys', 'alice', 'listApiKeys'],
    ['/teams/acme/keys', 'alice', 'organizationListApiKeys'],
    ['/admin/keys', 'admin', 'adminListApiKeys'],
  ])('answers with the document of the router alone: %s', async (mount, user, name) => {
    const answer = await http.as(user).get(`${mount}/openapi.json`)
    const { valid } = await new Validator().validate(structuredClone(answer.body))

    expect(answer.status).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(valid).toBe(true)
    expect(answer.body.paths['/'].get.operationId).toBe(name)
    expect(answer.body.tags).toHaveLength(1)
  })

  it.each(['/keys', '/teams/acme/keys', '/admin/keys'])(
    'names its server so that its paths lead to the router, whatever a proxy has removed: %s',
    async (mount) => {
      const { body } = await http.as('admin').get(`${mount}/openapi.json`)
      const [{ url }] = body.servers as [{ url: string }]

      for (const removed of ['', '/v1']) {
        const place = new URL(url, `http://api.example.com${removed}${mount}/openapi.json`)
        expect(place.pathname).toBe(`${removed}${mount}`)
      }
    },
  )

  it('is about the place of each request, if the router is mounted at several', async () => {
    const places = ['/one/keys', '/two/tokens', '/one/keys']
    const answers = await Promise.all(
      places.map((place) => http.as('alice').get(`${place}/openapi.json`)),
    )

    expect(answers.map(({ body }) => (body as OpenApiDocument).servers)).toEqual([
      [{ url: '../keys' }],
      [{ url: '../tokens' }],
      [{ url: '../keys' }],
    ])
  })

  it('says how users sign in, if the app has said so', async () => {
    const { body } = await http.as('alice').get('/teams/acme/keys/openapi.json')

    expect(body.components.securitySchemes).toEqual({ signIn })
  })

  it('is for the users of the router alone, as all of its routes', async () => {
    const { plainTextKey } = await createKey()

    expectProblem(await http.get('/keys/openapi.json'), 'not_signed_in')
    expectProblem(await http.with(plainTextKey).get('/keys/openapi.json'), 'api_key_not_allowed')
    expectProblem(await http.as('alice').get('/admin/keys/openapi.json'), 'not_an_admin')
    expectProblem(
      await http.as('alice').get('/teams/other/keys/openapi.json'),
      'organization_not_found',
    )
    expectProblem(await http.as('alice').post('/keys/openapi.json'), 'method_not_allowed')
  })

  it('is not there unless the app asks for it', async () => {
    expectProblem(await http.as('alice').get('/api-keys/openapi.json'), 'api_key_not_found')
    expectProblem(await http.as('admin').get('/admin/api-keys/openapi.json'), 'api_key_not_found')
  })

  it.each([
    [
      () => apiKeys.router({ openApi: 'yes' as never }),
      'router: openApi must be true, false or { signIn, info }, got "yes"',
    ],
    [
      () => apiKeys.adminRouter({ openApi: [] as never }),
      'adminRouter: openApi must be true, false or { signIn, info }, got []',
    ],
    [
      () => apiKeys.router({ openApi: { servers: [] } as never }),
      'router: there is no option openApi.servers. It must be one of signIn, info.',
    ],
    [
      () => apiKeys.adminRouter({ openapi: true } as never),
      'adminRouter: there is no option openapi. Did you mean openApi?',
    ],
    [() => apiKeys.adminRouter(7 as never), 'adminRouter: the options must be an object, got 7'],
  ])('refuses %#', (call, message) => {
    expect(call).toThrow(new TypeError(message))
  })
})
