import { Validator } from '@seriousme/openapi-schema-validator'

import type { OpenApiDocument } from '../../lib'
import { createTestApiKeys } from '../support/app'
import { createContract, type AnyJson as Json } from '../support/contract'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { useWorld } from '../support/world'

const ok = { 200: { description: 'Graphs.' } }

/** The document of an app, as a generator writes it. */
function ownDocument(operations: Json, version = '3.1.0'): Json {
  const paths = Object.fromEntries(
    Object.entries<Json>(operations).map(([path, operation]) => [
      path,
      { get: { responses: ok, ...operation } },
    ]),
  )
  return { openapi: version, info: { title: 'Graphs', version: '1' }, paths }
}

const graphs = { '/graphs': { security: [{ apiKey: ['READ_GRAPH'] }] }, '/public': {} }

const { apiKeys, http, createKey } = useWorld({
  options: { header: 'X-API-Key', maxFailedAttemptsPerMinute: 3 },
  routes(app, { requirePermission }) {
    app.get('/graphs', requirePermission('READ_GRAPH', { cost: 2 }), (_req, res) => {
      res.json([])
    })
  },
})

async function isValid(document: Json) {
  const { valid } = await new Validator().validate(structuredClone(document))
  return valid
}

describe('documentGuards', () => {
  it('adds the answers of guards to the operations that demand a key, and the schemes', async () => {
    const { paths, components } = apiKeys.documentGuards(ownDocument(graphs))

    expect(Object.keys(paths['/graphs'].get.responses as object)).toEqual([
      '200',
      '400',
      '401',
      '403',
      '429',
      '503',
    ])
    expect(paths['/graphs'].get.security).toEqual([
      { apiKey: ['READ_GRAPH'] },
      { apiKeyHeader: ['READ_GRAPH'] },
    ])
    expect(paths['/public'].get).toEqual({ responses: ok })
    expect(components.securitySchemes).toEqual({
      apiKey: { type: 'http', scheme: 'bearer', description: 'An API key of the user.' },
      apiKeyHeader: { type: 'apiKey', in: 'header', name: 'x-api-key' },
    })
  })

  it.each(['3.0.3', '3.1.0', '3.1.1'])(
    'makes a document without a fault: OpenAPI %s',
    async (version) => {
      const document = ownDocument(graphs, version)
      expect(await isValid(document)).toBe(true)

      expect(await isValid(apiKeys.documentGuards(document))).toBe(true)
    },
  )

  it('names permissions as scopes in OpenAPI 3.1 alone', () => {
    const { paths } = apiKeys.documentGuards(ownDocument(graphs, '3.0.3'))

    expect(paths['/graphs'].get.security).toEqual([{ apiKey: [] }, { apiKeyHeader: [] }])
  })

  it('describes the answers that a guard gives', async () => {
    const document = apiKeys.documentGuards(ownDocument(graphs))
    const { faultsOfAnswer } = createContract(document as unknown as OpenApiDocument)
    const { plainTextKey } = await createKey({ permissions: ['READ_BLOCK'] })
    const limits = { burst: { limit: 1, windowSeconds: 60 } }
    const limited = await apiKeys.create({
      userId: 'alice',
      name: 'CI',
      permissions: ['READ_GRAPH'],
      limits,
    })
    const answers = [
      await http.get('/graphs'),
      await http.set({ Authorization: 'agpt_x' }).get('/graphs'),
      await http.set({ ...bearer(plainTextKey), 'X-API-Key': plainTextKey }).get('/graphs'),
      await http.with(plainTextKey).get('/graphs'),
      await http.with(limited.plainTextKey).get('/graphs'),
      await http.with(`${plainTextKey}x`).get('/graphs'),
    ]
    while (answers.at(-1)?.body.code !== 'too_many_attempts') {
      answers.push(await http.with(`${plainTextKey}x`).get('/graphs'))
    }

    expect(new Set(answers.map(({ body }) => (body as Json).code))).toEqual(
      new Set([
        'missing_credential',
        'malformed_credential',
        'multiple_credentials',

        'missing_permission',
        'rate_limited',
        'invalid_api_key',
        'too_many_attempts',
      ]),
    )
    expect(answers.flatMap((answer) => faultsOfAnswer('get', '/graphs', answer))).toEqual([])
  })

  it('adds the fields of limits to answers to accepted requests, if the app has limits', async () => {
    const limits = { burst: { limit: 10, windowSeconds: 60 } }
    const limited = createTestApiKeys(databaseAway, { limits })
    const own = {
      'X-Own': { schema: { type: 'string' } },
      RateLimit: { schema: { type: 'integer' } },
    }
    const responses = {
      200: { description: 'Graphs.', headers: own },
      304: { description: 'As before.' },
      404: { description: 'None.' },
      201: { $ref: '#/components/responses/Made' },
    }
    const components = { responses: { Made: { description: 'Made.' } } }
    const given: Json = {
      ...ownDocument({ '/graphs': { ...graphs['/graphs'], responses }, '/public': {} }),
      components,
    }

    const document = limited.documentGuards(given)
    const {
      200: found,
      304: cached,
      404: missing,
      201: made,
    } = document.paths['/graphs'].get.responses as Record<string, Json>

    expect(Object.keys(found?.headers as object)).toEqual([
      'RateLimit-Policy',
      'RateLimit',
      'X-Own',
    ])
    expect(found?.headers).toMatchObject(own)
    expect(Object.keys(cached?.headers as object)).toEqual(['RateLimit-Policy', 'RateLimit'])
    expect([missing, made]).toEqual([responses[404], responses[201]])
    expect(document.paths['/public'].get.responses).toEqual(ok)
    expect(await isValid(document)).toBe(true)
    const [unlimited] = [apiKeys.documentGuards(given).paths['/graphs'].get.responses]
    expect((unlimited as Record<string, Json>)[304]).toEqual(responses[304])
  })

  it('leaves the given document as it is, and what the app has described itself', () => {
    const forbidden = { description: 'Not your graph.' }
    const document = {
      ...ownDocument({ '/graphs': { ...graphs['/graphs'], responses: { ...ok, 403: forbidden } } }),
      components: {
        securitySchemes: { apiKey: { type: 'http', scheme: 'bearer' } },
        schemas: { Graph: {} },
      },
    }
    const before = structuredClone(document)

    const { paths, components } = apiKeys.documentGuards(document) as Json

    expect(document).toEqual(before)
    expect(paths['/graphs'].get.responses[403]).toEqual(forbidden)
    expect(components.securitySchemes.apiKey).toEqual({ type: 'http', scheme: 'bearer' })
    expect(components.schemas.Graph).toEqual({})
  })

  it('makes the same of its own result', () => {
    const once = apiKeys.documentGuards(ownDocument(graphs))

    expect(apiKeys.documentGuards(once)).toEqual(once)
  })

  it('heeds the security of the whole document, and operations that need none', () => {
    const document = {
      ...ownDocument({ '/graphs': {}, '/public': { security: [] } }),
      security: [{ apiKey: [] }],
    }

    const { paths } = apiKeys.documentGuards(document) as Json

    expect(Object.keys(paths['/graphs'].get.responses as object)).toContain('401')
    expect(paths['/graphs'].get.responses[403].description).not.toContain('missing_permission')
    expect(Object.keys(paths['/public'].get.responses as object)).toEqual(['200'])
  })

  it('keeps other ways in, beside and together with a key', () => {
    const security = [{ apiKey: ['READ_GRAPH'], tenant: [] }, { session: [] }, {}]

    const { paths } = apiKeys.documentGuards(ownDocument({ '/graphs': { security } }))

    expect(paths['/graphs'].get.security).toEqual([
      { tenant: [], apiKey: ['READ_GRAPH'] },
      { tenant: [], apiKeyHeader: ['READ_GRAPH'] },
      { session: [] },
      {},
    ])
  })

  it('takes another name for the scheme', () => {
    const document = ownDocument({ '/graphs': { security: [{ key_auth: ['READ_GRAPH'] }] } })

    const { components } = apiKeys.documentGuards(document, { scheme: 'key_auth' })

    expect(Object.keys(components.securitySchemes as object)).toEqual([
      'key_auth',
      'key_authHeader',
    ])
  })

  it('says nothing about the body of refusals that the app answers itself', async () => {
    const own = createTestApiKeys(databaseAway, { onRefusal: () => {} })

    const document = own.documentGuards(ownDocument(graphs))

    expect(document.paths['/graphs'].get.responses[401]).not.toHaveProperty('content')
    expect(document.components).not.toHaveProperty('schemas')
    expect(await isValid(document)).toBe(true)
  })

  const noOperation =
    "documentGuards: no operation has { apiKey: [...] } in its security. Name its permissions there: security: [{ apiKey: ['READ_GRAPH'] }]"

  it.each([
    [
      { swagger: '2.0', paths: {} },
      {},
      /^documentGuards: takes an OpenAPI document of version 3\.0 or 3\.1, got /,
    ],
    [null, {}, /^documentGuards: takes an OpenAPI document/],
    [ownDocument({}), {}, noOperation],
    [ownDocument({ '/graphs': { security: [{ session: [] }] } }), {}, noOperation],
    [
      ownDocument({ '/graphs': { security: [{ apiKey: ['READ_GRAPHS'] }] } }),
      {},
      `documentGuards: GET /graphs demands "READ_GRAPHS", which is not one of the app's permissions. Did you mean READ_GRAPH?`,
    ],
    [
      ownDocument(graphs),
      { schema: 'x' },
      'documentGuards: there is no option schema. Did you mean scheme?',
    ],
    [
      ownDocument(graphs),
      { scheme: 7 },
      'documentGuards: scheme must be the name of a security scheme, got 7',
    ],
  ])('refuses %#', (document, options, message) => {
    expect(() => apiKeys.documentGuards(document as object, options as never)).toThrow(message)
  })
})
