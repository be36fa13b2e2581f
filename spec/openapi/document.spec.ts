import { Validator } from '@seriousme/openapi-schema-validator'

import { createApiKeys } from '../../lib'
import { refusals, type ErrorCode } from '../../lib/refusals'
import { createTestApiKeys, permissions, type Options } from '../support/app'
import { createContract, type AnyJson as Json } from '../support/contract'
import { databaseAway } from '../support/database'
import { environmentOptions } from '../support/environments'

/** How users of an app may sign in. */
const signIn = { type: 'apiKey', in: 'cookie', name: 'session' }

const everything = {
  ...environmentOptions(),
  users: { table: 'users', type: 'integer' },
  organizations: { table: 'organizations', type: 'uuid' },
  services: true,
  resources: { graph: true, project: true },
  header: 'X-API-Key',
  grantable: () => [],
  maxGracePeriodSeconds: 3_600,
} as unknown as Options

const organizationRouter = '/organizations/{organizationId}/api-keys'

function documentOf(options: Options = {}, given: object = {}): Json {
  return createTestApiKeys(databaseAway, options).openApi(given)
}

const onlyTokens = { router: false, adminRouter: false, tokenRouter: '/oauth' }

function tokensOf(tokenRouter: unknown): Json {
  return documentOf(everything, { ...onlyTokens, tokenRouter })
}

async function faultsOf(document: Json) {
  const { valid, errors } = await new Validator().validate(structuredClone(document))
  return valid ? [] : errors
}

/** Returns the paths at which the routers are. */
function mounts(options: Options): string[] {
  const { paths } = documentOf(options)
  return Object.keys(paths as object).filter((path) => path.endsWith('/api-keys'))
}

/** Returns the schema of the body of an operation. */
function bodyOf(document: Json, path: string, method: string): Json {
  return document.paths[path][method].requestBody.content['application/json'].schema as Json
}

describe('openApi', () => {
  it.each([
    ['of an app with few options', {}, {}],
    [
      'of an app with every option',
      everything,
      { organizationRouter, signIn, servers: [{ url: 'https://api.example.com' }] },
    ],
    ['of an app that answers refusals itself', { onRefusal: () => {} }, { tokenRouter: '/oauth' }],
    ['of the token endpoints alone', {}, onlyTokens],
    ['of the token endpoints of an app with every option', everything, { tokenRouter: '/oauth' }],
  ])('returns a document without a fault: %s', async (_, options, given) => {
    expect(await faultsOf(documentOf(options, given))).toEqual([])
  })

  it('returns JSON, which a copy of it equals', () => {
    const document = documentOf(everything, { organizationRouter })

    expect(JSON.parse(JSON.stringify(document))).toEqual(document)
  })

  it('has the routers that the app can mount, at the usual paths', () => {
    expect(mounts({})).toEqual(['/api-keys', '/admin/api-keys'])
    expect(mounts({ isAdmin: undefined })).toEqual(['/api-keys'])
    expect(mounts(everything)).toEqual(['/api-keys', '/admin/api-keys'])
  })

  it('has the routers at the paths that are given, each operation with a name of its own', () => {
    const given = { router: '/keys', adminRouter: false, organizationRouter: '/teams/{id}/keys' }

    const { paths } = documentOf(everything, given)
    const items = Object.entries<Json>(paths)
    const names = items.flatMap(([, item]) =>
      Object.values(item).flatMap((each) => each.operationId ?? []),
    )

    expect(items.every(([path]) => /^\/keys|^\/teams\/\{id\}\/keys/.test(path))).toBe(true)
    expect(paths['/teams/{id}/keys/{apiKeyId}'].parameters).toEqual([
      { name: 'id', in: 'path', required: true, schema: { type: 'string' } },
      { name: 'apiKeyId', in: 'path', required: true, schema: { type: 'string', format: 'uuid' } },
    ])
    expect(names).toContain('rotateApiKey')
    expect(names).toContain('organizationRotateApiKey')
    expect(new Set(names).size).toBe(names.length)
  })

  it('has the token endpoints that the app names, and who may call them', () => {
    const whole = tokensOf('/oauth')

    expect(Object.keys(whole.paths as Json)).toEqual(['/oauth/introspect', '/oauth/revoke'])
    expect(whole.paths['/oauth/introspect'].post.security).toEqual([
      { apiKey: [] },
      { apiKeyHeader: [] },
      { clientSecret: [] },
    ])
    expect(whole.paths['/oauth/revoke'].post.security).toEqual([])
    expect(Object.keys(whole.components.schemas as Json)).toEqual(
      expect.arrayContaining(['Owner', 'Introspection', 'InvalidApiKeyTokenError']),
    )
    const revokes = tokensOf({ path: '/tokens', introspect: false })
    expect(Object.keys(revokes.paths as Json)).toEqual(['/tokens/revoke'])
    expect(revokes.components).not.toHaveProperty('securitySchemes')
    const introspects = tokensOf({ path: '/tokens', revoke: false })
    expect(Object.keys(introspects.paths as Json)).toEqual(['/tokens/introspect'])
  })

  it('says which error of OAuth comes with each refusal of the token endpoints', () => {
    const options = { ...everything, insecureTransport: 'refuse' } as const
    const { paths, components } = documentOf(options, onlyTokens)
    const errorsOf = (path: string) =>
      Object.entries<Json>(paths[path].post.responses).flatMap(([status, { content }]) => {
        if (status === '200') return []
        const { schema } = content['application/json']
        return ((schema.oneOf ?? [schema]) as { $ref: string }[]).map(({ $ref }) => {
          const { properties, required } = components.schemas[String($ref.split('/').at(-1))]
          expect(required).toEqual(expect.arrayContaining(['error', 'error_description', 'code']))
          expect(properties.status.enum).toEqual([Number(status)])
          return [status, ...properties.code.enum, properties.error.enum.join()].join(' ')
        })
      })

    expect(errorsOf('/oauth/introspect').toSorted()).toEqual([
      '400 malformed_credential invalid_request',
      '400 malformed_token_request invalid_request',
      '400 multiple_credentials invalid_request',
      '401 invalid_api_key invalid_token,invalid_client',
      '401 missing_credential invalid_client',
      '403 address_not_allowed invalid_request',
      '403 cross_site_request invalid_request',
      '403 environment_not_allowed invalid_request',
      '403 insecure_transport invalid_request',
      '403 missing_permission insufficient_scope',
      '403 resource_not_allowed invalid_request',
      '413 body_too_large invalid_request',
      '429 rate_limited temporarily_unavailable',
      '429 too_many_attempts temporarily_unavailable',
      '503 database_unavailable temporarily_unavailable',
      '503 grantable_unavailable temporarily_unavailable',
      '503 too_many_lookups temporarily_unavailable',
    ])
    expect(errorsOf('/oauth/revoke').toSorted()).toEqual([
      '400 malformed_token_request invalid_request',
      '403 insecure_transport invalid_request',
      '413 body_too_large invalid_request',
      '503 database_unavailable temporarily_unavailable',
      '503 too_many_lookups temporarily_unavailable',
    ])
    expect(paths['/oauth/introspect'].post.responses[401].description).toContain(
      '- `invalid_api_key`, `error` `invalid_token` or `invalid_client`: The API key is not valid.',
    )
  })

  it('keeps the way in which users sign in beside those of the token endpoints', () => {
    const { components } = documentOf({}, { signIn, tokenRouter: '/oauth' })

    expect(Object.keys(components.securitySchemes as Json)).toEqual([
      'signIn',
      'apiKey',
      'clientSecret',
    ])
  })

  it('says what it is told about the app', () => {
    const servers = [{ url: 'https://api.example.com' }]
    const info = { title: 'Acme', 'x-audience': 'partners' }
    const document = documentOf({}, { servers, info, signIn })

    expect(document.servers).toEqual(servers)
    expect(document.info).toEqual({ title: 'Acme', version: '1', 'x-audience': 'partners' })
    expect(document.components.securitySchemes).toEqual({ signIn })
    expect(document.paths['/api-keys'].get.security).toEqual([{ signIn: [] }])
    expect(documentOf().paths['/api-keys'].get).not.toHaveProperty('security')
  })

  it('has the rules of input of the app', () => {
    const document = documentOf(everything)
    const { properties } = bodyOf(document, '/admin/api-keys', 'post')

    expect(properties.permissions.items.enum).toEqual(permissions)
    expect(properties.name).toEqual({ type: 'string', minLength: 1, maxLength: 100 })
    expect(properties.environment).toEqual({
      type: 'string',
      enum: ['live', 'test'],
      default: 'live',
    })
    expect(Object.keys(properties.resources.properties as object)).toEqual(['graph', 'project'])
    expect(properties.owner.anyOf.map(({ properties }: Json) => properties.type.const)).toEqual([
      'user',
      'organization',
      'service',
    ])
    expect(properties.userId).toEqual({ type: 'integer' })
    const rotation = bodyOf(document, '/api-keys/{apiKeyId}/rotate', 'post')
    expect(rotation.properties.gracePeriodSeconds).toEqual({
      type: 'integer',
      minimum: 0,
      maximum: 3_600,
      default: 3_600,
    })
  })

  it('lacks what the app lacks, and what owners may not write', () => {
    const document = documentOf()
    const ofOwner = bodyOf(document, '/api-keys', 'post').properties
    const ofAdmin = bodyOf(document, '/admin/api-keys', 'post').properties

    expect(Object.keys(ofAdmin as object).toSorted()).toEqual([
      'allowedIps',
      'description',
      'expiresAt',
      'limits',
      'metadata',

      'name',
      'owner',
      'permissions',
      'userId',
    ])
    expect(Object.keys(ofOwner as object).toSorted()).toEqual([
      'allowedIps',
      'description',
      'expiresAt',
      'metadata',
      'name',
      'permissions',
    ])
    expect(document.components.schemas.ApiKey.properties).not.toHaveProperty('environment')
  })

  it('has every refusal of routes, with its sentence and its status', () => {
    const { components } = documentOf({ grantable: () => [] }, {})
    const schemas = Object.values<Json>(components.schemas).filter(
      ({ properties }) => properties?.code?.enum?.length === 1,
    )
    const codes = schemas.map(({ properties }) => properties.code.enum[0] as ErrorCode)
    // These are of guards, of organizations, about one operation that no document can have, of reports of exposed keys, and of the token endpoints.
    const others = [
      'insecure_transport',
      'missing_credential',
      'malformed_credential',
      'multiple_credentials',
      'invalid_api_key',
      'address_not_allowed',
      'environment_not_allowed',
      'resource_not_allowed',
      'missing_permission',
      'rate_limited',
      'too_many_attempts',
      'limiter_unavailable',
      'too_many_lookups',

      'read_only',
      'exceeds_access',
      'organization_not_found',
      'method_not_allowed',

      'invalid_signature',
      'invalid_report_token',
      'malformed_report',
      'unsupported_token_type',
      'malformed_token_request',
      'too_many_reports',
      'report_unverifiable',
    ]

    expect([...codes, ...others].toSorted()).toEqual(Object.keys(refusals).toSorted())
    for (const { description, properties } of schemas) {
      const [status, sentence] = refusals[properties.code.enum[0] as ErrorCode]
      expect([properties.status.enum, description]).toEqual([[status], sentence])
    }
  })

  it('says nothing about the body of refusals that the app answers itself', () => {
    const { paths } = documentOf({ onRefusal: () => {} })

    expect(paths['/api-keys'].get.responses[401]).toHaveProperty('description')
    expect(paths['/api-keys'].get.responses[401]).not.toHaveProperty('content')
  })

  it('refers only to components that it has, and has no others', () => {
    const document = documentOf(everything, { organizationRouter })
    const text = JSON.stringify(document)
    const used = new Set(
      [...text.matchAll(/"#\/components\/(\w+\/[\w-]+)"/g)].map(([, name = '']) => name),
    )
    const { schemas, headers } = document.components
    const known = [
      ...Object.keys(schemas as object).map((name) => `schemas/${name}`),
      ...Object.keys(headers as object).map((name) => `headers/${name}`),
    ]

    expect(known.toSorted((one, other) => one.localeCompare(other))).toEqual(
      [...used].toSorted((one, other) => one.localeCompare(other)),
    )
  })

  it.each([
    [{ server: [] }, 'openApi: there is no option server. Did you mean servers?'],
    [
      { servers: 'https://api.example.com' },
      'openApi: servers must be a list, got "https://api.example.com"',
    ],
    [{ signIn: 'session' }, 'openApi: signIn must be an object, got "session"'],
    [{ info: [] }, 'openApi: info must be an object, got []'],
    [
      { router: 'api-keys' },
      'openApi: router must be a path such as /api-keys or /teams/{teamId}/api-keys, got "api-keys"',
    ],
    [
      { router: '/keys/:id' },
      'openApi: router must be a path such as /api-keys or /teams/{teamId}/api-keys, got "/keys/:id"',
    ],
    [
      { adminRouter: '/{apiKeyId}/keys' },
      'openApi: adminRouter must be a path such as /api-keys or /teams/{teamId}/api-keys, got "/{apiKeyId}/keys"',
    ],
    [
      { organizationRouter },
      'openApi: organizationRouter needs the option organizations of createApiKeys',
    ],
    [{ router: false, adminRouter: false }, 'openApi: there is no router to describe'],
    [
      { tokenRouter: 'oauth' },
      'openApi: tokenRouter must be a path such as /api-keys or /teams/{teamId}/api-keys, got "oauth"',
    ],
    [{ tokenRouter: true }, 'openApi: tokenRouter must be a path or an object, got true'],
    [
      { tokenRouter: { path: '/oauth', introspection: true } },
      'openApi: there is no option tokenRouter.introspection. Did you mean introspect?',
    ],
    [
      { tokenRouter: { path: '/oauth', introspect: false, revoke: false } },
      'openApi: tokenRouter: introspect and revoke must be true or false, and not both false',
    ],
    [
      { tokenRouter: { path: '/oauth', revoke: 'no' } },
      'openApi: tokenRouter: introspect and revoke must be true or false, and not both false',
    ],
  ])('refuses %j', (given, message) => {
    expect(() => documentOf({}, given)).toThrow(new TypeError(message))
  })
})

describe('a contract of a document', () => {
  const apiKeys = createTestApiKeys(databaseAway)
  const { faultsOfAnswer } = createContract(apiKeys.openApi())
  const headers = { 'content-type': 'application/json; charset=utf-8' }

  it('finds a member that the document lacks, and a member that the answer lacks', () => {
    const faults = (body: object) =>
      faultsOfAnswer('get', '/api-keys', { status: 200, headers, text: JSON.stringify(body) })

    expect(faults({ apiKeys: [], nextCursor: null })).toEqual([])
    expect(faults({ apiKeys: [], nextCursor: null, total: 0 })).toHaveLength(1)
    expect(faults({ apiKeys: [] })).toHaveLength(1)
    expect(faultsOfAnswer('get', '/api-keys', { status: 409, headers })).toHaveLength(1)
    const located = { ...headers, location: './7' }
    const text = JSON.stringify({ apiKeys: [], nextCursor: null })
    expect(
      faultsOfAnswer('get', '/api-keys', { status: 200, headers: located, text }),
    ).toHaveLength(1)
  })
})

it('says what an app without a user needs', () => {
  const { openApi } = createApiKeys({
    sequelize: databaseAway.connect(),
    keyPrefix: 'acme',
    permissions: ['A'],
  })

  expect(() => openApi()).toThrow(
    new TypeError(
      'openApi: there is no router to describe: router and adminRouter need the option currentUser of createApiKeys',
    ),
  )
  expect(Object.keys(openApi({ tokenRouter: '/oauth' }).paths)).toHaveLength(2)
})

describe('an app that refuses plain HTTP', () => {
  it('has that refusal in the answers of every operation', () => {
    const { paths } = documentOf({ insecureTransport: 'refuse' })
    const operations = Object.values<Json>(paths as Json).flatMap((path) =>
      Object.values<Json>(path),
    )

    const answers = operations.flatMap(({ responses }) => (responses ? [responses] : []))
    expect(answers.length).toBeGreaterThan(20)
    for (const responses of answers) {
      expect(responses['403'].description).toContain('`insecure_transport`')
    }
  })
})
