import { randomUUID } from 'node:crypto'

import {
  createApiKeys,
  digests,
  sources,
  type ImportSource,
  type InvalidInputError,
} from '../../lib'
import { faultOfPattern } from '../../lib/importing/pattern'
import { crc32 } from '../../lib/importing/source'
import { databaseAway } from '../support/database'

function create(...imports: unknown[]) {
  return () =>
    createApiKeys({
      sequelize: databaseAway.connect(),
      keyPrefix: 'acme',
      permissions: ['READ_GRAPH'],
      imports: imports as ImportSource[],
    })
}

const legacy = { name: 'legacy', accepts: /^lk_[0-9a-f]{40}$/, digest: digests.sha256.hex }

describe('the pattern of a source', () => {
  it.each([
    [/lk_[0-9]{8}/, 'must begin with ^ and end with $'],
    [/^lk_[0-9]{8}\$/, 'must begin with ^ and end with $'],
    [/^lk_[0-9]{8}|x$/, 'must have its alternatives in a group'],
    [/^lk_[0-9]+$/, 'must bound each repetition, such as {1,64}'],
    [/^lk_.*$/, 'must bound each repetition, such as {1,64}'],
    [/^lk_[0-9]{8,}$/, 'must bound each repetition, such as {1,64}'],
    [/^[0-9]{2000}$/, 'must match at most 1024 characters'],
    [/^(?:a{1,9}){1,9}$/, 'can match in more than 10000 ways, which takes too long'],
    [/^(?:a|a){1,40}$/, 'can match in more than 10000 ways, which takes too long'],
    [/^\w{1,99}\w{1,99}\w{1,99}$/, 'can match in more than 10000 ways, which takes too long'],
    [/^(?=a)a{8}$/, 'must have only groups such as (…) and (?:…)'],
    [/^(a)\1$/, 'must not have \\b, \\p or references'],
    [/^a{8}$/g, 'must have no flags but i and u'],
    [/^a{8}$/y, 'must have no flags but i and u'],
    [/^a?$/, 'must not match an empty text'],
  ])('is refused: %s', (pattern, fault) => {
    expect(faultOfPattern(pattern)).toBe(fault)
    expect(create({ ...legacy, accepts: pattern })).toThrow(`imports.legacy.accepts ${fault}`)
  })

  it.each([
    /^lk_[0-9a-f]{40}$/,
    /^(?:\d{1,20}\|)?(?:a|b)[A-Za-z0-9]{40}$/,
    /^[\w.-]{8,200}$/,
    /^a\\$/,
  ])('is taken: %s', (pattern) => {
    expect(faultOfPattern(pattern)).toBeNull()
  })
})

describe('the option imports', () => {
  it.each<[unknown, string]>([
    ['better-auth', 'the option imports must be a list of sources'],
    [[null], 'the option imports[0] must be a source of keys'],
    [[{ ...legacy, name: 'Legacy' }], 'imports[0].name must be at most 32 lower-case letters'],
    [[legacy, legacy], 'imports.legacy must not be there twice'],
    [
      [{ ...legacy, accept: /x/ }],
      'there is no option imports.legacy.accept. Did you mean accepts?',
    ],
    [[{ ...legacy, accepts: 'lk_' }], 'imports.legacy.accepts must be a pattern'],
    [[{ ...legacy, digest: digests.sha256 }], 'imports.legacy.digest must be { of, read }'],
    [
      [{ ...legacy, salted: digests.djangoPbkdf2 }],
      'imports.legacy.locate is required beside salted',
    ],
    [[{ ...legacy, check: true }], 'imports.legacy.check must be a function'],
    [
      [{ ...legacy, headers: ['Authorization'] }],
      'imports.legacy.headers must be a list of headers',
    ],
    [[{ ...legacy, schemes: ['a b c'] }], 'imports.legacy.schemes must be a list of schemes'],
    [[{ ...legacy, environment: 'live' }], 'imports.legacy.environment must not be given without'],
  ])('refuses %j', (imports, message) => {
    expect(() => create(...[imports].flat())()).toThrow(
      typeof imports === 'string' ? 'imports[0] must be a source of keys' : message,
    )
  })

  it.each([
    ['strapi: the option salt', () => sources.strapi({ salt: '' })],
    ['strapi: the option salt', () => sources.strapi(undefined as never)],
    ['payload: the option secret', () => sources.payload({ secret: undefined as never })],
    ['gitlab: the option dbKeyBase', () => sources.gitlab({ dbKeyBase: 42 as never })],
    ['keypal: the option salt', () => sources.keypal({ salt: '' })],
  ])('refuses a secret that is not set, or is no text: %s', (name, createSource) => {
    expect(createSource).toThrow(
      new TypeError(`sources.${name} must be the secret of the other system, a text`),
    )
  })

  it.each<[() => unknown, string]>([
    [
      () => sources.betterAuth({ prefx: 'acme_' } as object),
      'sources.betterAuth: there is no option prefx. Did you mean prefix?',
    ],
    [
      () => sources.strapi({ apiToken: 'x', salt: 'y' } as never),
      'sources.strapi: there is no option apiToken. It must be one of salt.',
    ],
    [
      () => (sources.medusa as (options: object) => unknown)({ prefix: 'x' }),
      'sources.medusa: there is no option prefix. There are none.',
    ],
    [() => sources.sanctum('acme_' as never), 'the options of a call must be an object'],
  ])('refuses an option that a ready source does not have: %s', (createSource, message) => {
    expect(createSource).toThrow(new TypeError(message))
  })

  const [name, size] = ['must have at most 64 letters, digits, "_" and "-"', 'from 1 to 1024']
  it.each<[string, string, (given: never) => unknown, object]>([
    ['knox: the option prefix', name, sources.knox, { prefix: '(a+)+' }],
    ['adonis: the option prefix', name, sources.adonis, { prefix: 7 }],
    ['betterAuth: the option prefix', name, sources.betterAuth, { prefix: null }],
    ['keypal: the option prefix', name, sources.keypal, { prefix: 'a'.repeat(65) }],
    ['sanctum: the option prefix', name, sources.sanctum, { prefix: ['acme_'] }],
    ['unkey: the option prefix', name, sources.unkey, { prefix: 'a b' }],
    ['prefixedApiKey: the option prefix', name, sources.prefixedApiKey, {}],
    ['betterAuth: the option length', size, sources.betterAuth, { length: '64' }],
    ['betterAuth: the option length', size, sources.betterAuth, { length: 1_025 }],
    ['keypal: the option length', size, sources.keypal, { length: 0 }],
    ['unkey: the option bytes', size, sources.unkey, { bytes: 1.5 }],
    [
      'prefixedApiKey: the option shortLength',
      size,
      sources.prefixedApiKey,
      { prefix: 'acme', shortLength: -1 },
    ],
    [
      'prefixedApiKey: the option longLength',
      size,
      sources.prefixedApiKey,
      { prefix: 'acme', longLength: NaN },
    ],
    ['betterAuth: the option isPlain', 'true or false', sources.betterAuth, { isPlain: 'false' }],
    ['doorkeeper: the option isPlain', 'true or false', sources.doorkeeper, { isPlain: 1 }],
    [
      'payload: the option isLegacy',
      'true or false',
      sources.payload,
      { secret: 'x', isLegacy: null },
    ],
    ['payload: the option accepts', 'a pattern', sources.payload, { secret: 'x', accepts: '^x$' }],
    ['directus: the option accepts', 'a pattern', sources.directus, { accepts: {} }],
    [
      'payload: the option collection',
      'the slug of a collection',
      sources.payload,
      { secret: 'x', collection: 'our users' },
    ],
    ['keypal: the option algorithm', 'one of sha256, sha512', sources.keypal, { algorithm: 'md5' }],
    [
      'sanctum: the option expirationMinutes',
      'minutes above 0',
      sources.sanctum,
      { expirationMinutes: '60' },
    ],
    [
      'sanctum: the option expirationMinutes',
      'minutes above 0',
      sources.sanctum,
      { expirationMinutes: Infinity },
    ],
  ])('refuses a value that an option must not have: %s %s', (option, rule, make, options) => {
    const createSource = () => make(options as never)

    expect(createSource).toThrow(TypeError)
    expect(createSource).toThrow(`sources.${option} must`)
    expect(createSource).toThrow(rule)
  })
})

function read(source: ImportSource, row: Record<string, unknown>) {
  const result = source.readRow?.(row)
  if (!result) throw new Error('The source reads no rows')
  return result
}

/** Returns the faults with which a source refuses to read a row. */
function faultsOf(source: ImportSource, row: Record<string, unknown>) {
  try {
    return read(source, row)
  } catch (error) {
    return (error as InvalidInputError).errors
  }
}

/** Makes a JSON Web Token, with a signature of its length. */
function tokenOf(payload: object): string {
  return [{ alg: 'HS256', typ: 'JWT' }, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .concat('x'.repeat(43))
    .join('.')
}

describe('rows of other systems', () => {
  it.each<[string, ImportSource, Record<string, unknown>, object]>([
    [
      'minutes of Sanctum after the creation',
      sources.sanctum({ expirationMinutes: 60 }),
      {
        token: 'x',
        tokenable_id: 7,
        abilities: '["read","write"]',
        created_at: '2025-01-01 00:00:00',
      },
      {
        userId: '7',
        permissions: ['read', 'write'],
        expiresAt: new Date('2025-01-01T01:00:00Z'),
        createdAt: '2025-01-01T00:00:00Z',
      },
    ],
    [
      'seconds of Doorkeeper after the creation, and scopes',
      sources.doorkeeper(),
      {
        token: 'x',
        created_at: new Date(0),
        expires_in: 7200,
        scopes: 'read write',
        revoked_at: null,
      },
      { expiresAt: new Date(7_200_000), permissions: ['read', 'write'], status: 'ACTIVE' },
    ],
    [
      'dates of GitLab, and a list of YAML',
      sources.gitlab({ dbKeyBase: 'x'.repeat(32) }),
      {
        token_digest: 'x',
        expires_at: '2026-05-01',
        scopes: '---\n- api\n- read_user\n',
        revoked: 'f',
      },
      {
        expiresAt: '2026-05-01T00:00:00Z',
        permissions: ['api', 'read_user'],
        status: 'ACTIVE',
      },
    ],
    [
      'a user of Directus who is suspended',
      sources.directus(),
      { id: 'u', token: 'x'.repeat(32), status: 'suspended', role: null },
      { userId: 'u', status: 'SUSPENDED', shown: { postfix: 'xxxx' } },
    ],
    [
      'a key of n8n from before JSON Web Tokens',
      sources.n8n(),
      {
        apiKey: `n8n_api_${'0'.repeat(80)}`,
        label: 'Mine',
        userId: 'u',
        scopes: ['workflow:read'],
        createdAt: '2025-01-01T00:00:00Z',
      },
      { name: 'Mine', userId: 'u', permissions: ['workflow:read'], expiresAt: null },
    ],
    [
      'seconds of Gitea',
      sources.gitea(),
      {
        token_hash: 'x',
        token_last_eight: '01234567',
        created_unix: 1_700_000_000,
        updated_unix: '1700000100',
        uid: 3,
      },
      { createdAt: new Date(1_700_000_000_000), lastUsedAt: new Date(1_700_000_100_000) },
    ],
    [
      'milliseconds of Unkey',
      sources.unkey(),
      { hash: 'x', created_at_m: 1_700_000_000_000, enabled: 0, deleted_at_m: null },
      { createdAt: new Date(1_700_000_000_000), status: 'SUSPENDED' },
    ],
    [
      'a revocation of Medusa that lies ahead',
      sources.medusa(),
      { token: 'x', salt: 'y', redacted: 'sk_abc***xyz', revoked_at: '2999-01-01T00:00:00Z' },
      { status: 'ACTIVE', expiresAt: '2999-01-01T00:00:00Z', revokedAt: null },
    ],
    [
      'the metadata of keypal',
      sources.keypal(),
      {
        key_hash: 'x',
        metadata:
          '{"ownerId":"u","scopes":["a"],"enabled":true,"revokedAt":"2025-01-01T00:00:00Z"}',
      },
      { userId: 'u', permissions: ['a'], status: 'REVOKED', revokedAt: '2025-01-01T00:00:00Z' },
    ],
    [
      'a revoked key of djangorestframework-api-key from CSV',
      sources.drfApiKey(),
      {
        hashed_key: 'x',
        prefix: 'abcdefgh',
        revoked: 'True',
        expiry_date: '2026-01-01 00:00:00+00',
      },
      { status: 'REVOKED', locator: 'abcdefgh', expiresAt: '2026-01-01T00:00:00+00:00' },
    ],
  ])('are read: %s', (_, source, row, expected) => {
    expect(read(source, row).row).toMatchObject(expected)
  })

  it('name the role of Directus, which permissions have to be given for', () => {
    const { unmapped } = read(sources.directus(), { id: 'u', token: 'x', role: 'editor' })

    expect(unmapped).toMatchObject([{ field: 'role' }])
  })

  it('are not taken for keys of n8n if they are tokens of another issuer or audience', () => {
    const { accepts } = sources.n8n()
    const claims = { sub: randomUUID(), iss: 'n8n', aud: 'public-api', iat: 1_700_000_000 }

    expect(accepts.test(tokenOf(claims))).toBe(true)
    expect(accepts.test(tokenOf({ ...claims, iss: 'app' }))).toBe(false)
    expect(accepts.test(tokenOf({ ...claims, aud: 'mcp-server-api' }))).toBe(false)
    expect(accepts.test(tokenOf({ sub: claims.sub, iat: claims.iat }))).toBe(false)
  })

  it('name the column that is missing, and the columns that are there', () => {
    expect(faultsOf(sources.sanctum(), { id: 1, key: 'secret', tokenable_id: 7 })).toEqual([
      { pointer: '#/token', message: 'is missing: the row has id, key, tokenable_id' },
    ])
    expect(faultsOf(sources.betterAuth(), {})).toEqual([
      { pointer: '#/key', message: 'is missing: the row has no columns' },
    ])
  })

  it('name what cannot be imported', () => {
    const { unmapped } = read(sources.unkey(), {
      hash: 'x',
      remaining_requests: 4,
      refill_day: null,
    })

    expect(unmapped).toEqual([
      { field: 'remainingRequests', message: 'counts credits, which the library does not have' },
    ])
  })
})

describe('crc32', () => {
  it.each([
    ['', 0],
    ['123456789', 0xcb_f4_39_26],
  ])('of %j', (text, value) => {
    expect(crc32(text)).toBe(value)
  })
})
