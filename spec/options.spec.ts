import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'

import { Sequelize } from 'sequelize'

import { createApiKeys, migrations } from '../lib'
import { optionFields, readOptions } from '../lib/read-options'
import { storageOptionNames } from '../models/storage-options'
import { readmeSection } from './support/readme'

/** Nothing listens there: options are judged without a database. */
const sequelize = new Sequelize('postgres://127.0.0.1:1/nowhere', { logging: false })
const needed = { sequelize, keyPrefix: 'acme', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] }
const secret = 'correct horse battery staple, 32 bytes'

const redisRule = 'redis must be a client of ioredis, or of redis from version 4'

/** Calls `createApiKeys` without types, like JavaScript. */
function create(options: unknown) {
  return createApiKeys(options as never)
}

/** The refusal of a prefix of another vendor. */
function foreign(keyPrefix: string, vendor: string) {
  return `keyPrefix must not be ${keyPrefix}: secret scanners would take your keys for keys of ${vendor}, and report them there. Choose another prefix, or set allowForeignPrefix: true`
}

/** Puts the options in front of each row, so that they are in its title. */
function titled(rows: [options: object, refusal: string][]) {
  return rows.map(
    ([options, refusal]) =>
      [inspect(options, { breakLength: Infinity }), options, refusal] as const,
  )
}

function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    if (error instanceof TypeError) return error.message
    throw error
  }
  return 'nothing was thrown'
}

class SequelizeOfVersion7 {
  static version = '7.0.0-alpha.48'

  getDialect() {
    return 'postgres'
  }
}

describe('createApiKeys', () => {
  it.each([undefined, null, 'acme', 42])('needs options, not %p', (options) => {
    expect(messageOf(() => create(options))).toBe('createApiKeys: needs an object of options')
  })

  const prefixRule =
    'must be 2 to 16 lower-case letters, digits and underscores, begin with a letter and not end in an underscore'
  const environmentsRule = 'must be an object of key prefixes, by the names of environments'
  const nameRule = 'must have names of 1 to 100 printable ASCII characters without space, " and \\'
  const headerRule = 'must be the name of a header other than Authorization'
  const typeRule = 'must be one of text, uuid, integer, bigint'

  it.each(
    titled([
      [{ sequelize: undefined }, 'sequelize must be a Sequelize instance on Postgres'],
      [{ sequelize: {} }, 'sequelize must be a Sequelize instance on Postgres'],
      [
        { sequelize: new SequelizeOfVersion7() },
        'sequelize must be an instance of Sequelize 6, not of 7.0.0-alpha.48',
      ],
      [
        { sequelize: { getDialect: () => 'mysql' } },
        'sequelize must be a Sequelize instance on Postgres',
      ],

      [{ keyPrefix: undefined }, `keyPrefix ${prefixRule}, got undefined`],
      [{ keyPrefix: '' }, `keyPrefix ${prefixRule}, got ""`],
      [{ keyPrefix: 'a' }, `keyPrefix ${prefixRule}, got "a"`],
      [{ keyPrefix: 'a'.repeat(17) }, `keyPrefix ${prefixRule}, got "aaaaaaaaaaaaaaaaa"`],
      [{ keyPrefix: 'Acme' }, `keyPrefix ${prefixRule}, got "Acme"`],
      [{ keyPrefix: '1acme' }, `keyPrefix ${prefixRule}, got "1acme"`],
      [{ keyPrefix: 'acme_' }, `keyPrefix ${prefixRule}, got "acme_"`],
      [{ keyPrefix: 'acme-live' }, `keyPrefix ${prefixRule}, got "acme-live"`],
      [{ keyPrefix: 'acme\n' }, `keyPrefix ${prefixRule}, got "acme\\n"`],
      [{ keyPrefix: ['acme'] }, `keyPrefix ${prefixRule}, got [ 'acme' ]`],

      [{ formerPrefixes: 'old' }, 'formerPrefixes must be a list of key prefixes, got "old"'],
      [{ formerPrefixes: ['Old'] }, `formerPrefixes[0] ${prefixRule}, got "Old"`],
      [{ formerPrefixes: ['acme'] }, 'formerPrefixes must not repeat a prefix, got "acme"'],
      [{ formerPrefixes: ['a1', 'a1'] }, 'formerPrefixes must not repeat a prefix, got "a1"'],
      [{ environments: { live: 'acme_live' } }, 'keyPrefix must not be given beside environments'],
      [
        { acceptedEnvironments: ['live'] },
        'acceptedEnvironments must not be given without environments',
      ],
      [{ environments: null }, `environments ${environmentsRule}, got null`],
      [{ environments: ['live'] }, `environments ${environmentsRule}, got [ 'live' ]`],

      [{ keyPrefix: 'ghp' }, foreign('ghp', 'GitHub')],
      [{ keyPrefix: 'github_pat' }, foreign('github_pat', 'GitHub')],
      [{ keyPrefix: 'sk_live' }, foreign('sk_live', 'Stripe')],
      [{ keyPrefix: 'sk_live_acme' }, foreign('sk_live_acme', 'Stripe')],
      [{ keyPrefix: 'acme_ghp' }, foreign('acme_ghp', 'GitHub')],
      [{ keyPrefix: 'shpat' }, foreign('shpat', 'Shopify')],
      [{ keyPrefix: 'xoxb' }, foreign('xoxb', 'Slack')],
      [{ keyPrefix: 'glpat' }, foreign('glpat', 'GitLab')],
      [{ keyPrefix: 'akia' }, foreign('akia', 'AWS')],
      [{ keyPrefix: 'npm' }, foreign('npm', 'npm')],

      [
        { permissions: undefined },
        'permissions must be a list of names, or an object of names and descriptions, got undefined',
      ],
      [
        { permissions: 'READ' },
        'permissions must be a list of names, or an object of names and descriptions, got "READ"',
      ],
      [{ permissions: [] }, 'permissions must name at least one'],
      [{ permissions: {} }, 'permissions must name at least one'],
      [{ permissions: ['READ', 'READ'] }, 'permissions must not repeat a name'],
      [{ permissions: ['READ', 42] }, `permissions ${nameRule}, got 42`],
      [{ permissions: [''] }, `permissions ${nameRule}, got ""`],
      [{ permissions: ['READ GRAPH'] }, `permissions ${nameRule}, got "READ GRAPH"`],
      [{ permissions: ['"READ"'] }, `permissions ${nameRule}, got "\\"READ\\""`],
      [{ permissions: ['READ\\'] }, `permissions ${nameRule}, got "READ\\\\"`],
      [{ permissions: ['LÄSEN'] }, `permissions ${nameRule}, got "LÄSEN"`],
      [{ permissions: ['A'.repeat(101)] }, `permissions ${nameRule}, got "${'A'.repeat(101)}"`],
      [
        { permissions: { READ: true } },
        'permissions.READ must be a description, or an object with one, got true',
      ],
      [
        { permissions: { READ: null } },
        'permissions.READ must be a description, or an object with one, got null',
      ],
      [
        { permissions: { READ: { implies: ['WRITE'] }, WRITE: 'Write' } },
        'permissions.READ must be a description, or an object with one, got { implies: [Array] }',
      ],
      [
        { permissions: { READ: { description: 'Read', imply: [] } } },
        'permissions.READ has no member imply. It must be one of description, implies.',
      ],
      [
        { permissions: { READ: { description: 'Read', implies: 'READ' } } },
        `permissions.READ must imply a list of permissions, or '*', got "READ"`,
      ],
      [
        { permissions: { READ: { description: 'Read', implies: ['*'] } } },
        'permissions.READ implies "*", which is not one of the permissions. It must be one of READ.',
      ],
      [
        { permissions: { READ: 'Read', WRITE: { description: 'Write', implies: ['RAED'] } } },
        'permissions.WRITE implies "RAED", which is not one of the permissions. Did you mean READ?',
      ],

      [
        { formerPermissions: ['READ'] },
        "formerPermissions must be an object of former names and their new names, got [ 'READ' ]",
      ],
      [
        { formerPermissions: { READ: undefined } },
        'formerPermissions.READ must be the new name, or null if it was dropped, got undefined',
      ],
      [
        { formerPermissions: { READ: ['READ_GRAPH'] } },
        "formerPermissions.READ must be the new name, or null if it was dropped, got [ 'READ_GRAPH' ]",
      ],
      [
        { formerPermissions: { 'READ GRAPH': 'READ_GRAPH' } },
        'formerPermissions.READ GRAPH is not a name that a permission can have',
      ],
      [
        { formerPermissions: { READ: 'READ_GRAPHS' } },
        'formerPermissions.READ is "READ_GRAPHS", which is not one of the permissions. Did you mean READ_GRAPH?',
      ],
      [
        { formerPermissions: { READ: 'VIEW', VIEW: 'READ_GRAFH' } },
        'formerPermissions.VIEW is "READ_GRAFH", which is not one of the permissions. Did you mean READ_GRAPH?',
      ],
      [
        { formerPermissions: { READ_GRAPH: null } },
        'formerPermissions.READ_GRAPH is also one of the permissions of today: leave it out of one of the two options',
      ],
      [
        { formerPermissions: { READ_GRAPH: 'EXECUTE_GRAPH', EXECUTE_GRAPH: 'READ_GRAPH' } },
        'formerPermissions.READ_GRAPH is also one of the permissions of today: leave it out of one of the two options',
      ],
      [
        { formerPermissions: { READ: 'VIEW', VIEW: 'SEE', SEE: 'VIEW' } },
        'formerPermissions.READ leads nowhere, because these names go round in a circle: READ, VIEW, SEE, VIEW',
      ],
      [
        { formerPermissions: { READ: 'READ' } },
        'formerPermissions.READ leads nowhere, because these names go round in a circle: READ, READ',
      ],

      [{ schema: '' }, 'schema must be the name of a schema, got ""'],
      [{ schema: 42 }, 'schema must be the name of a schema, got 42'],
      [{ schema: null }, 'schema must be the name of a schema, got null'],
      [
        { schema: 'ä'.repeat(32) },
        `schema must be the name of a schema, got ${JSON.stringify('ä'.repeat(32))}`,
      ],
      [{ schema: '"keys"' }, 'schema must be the name of a schema, got "\\"keys\\""'],
      [{ schema: '"keys"' }, String.raw`schema must be the name of a schema, got "\"keys\""`],
      [{ schema: 'keys\0' }, 'schema must be the name of a schema, got "keys\\u0000"'],

      [
        { users: null },
        `users must be a model of Sequelize, or an object such as { table: 'users' }, got null`,
      ],
      [
        { users: 'people' },
        `users must be a model of Sequelize, or an object such as { table: 'users' }, got "people"`,
      ],
      [{ users: { type: 'number' } }, `users.type ${typeRule}, got "number"`],
      [{ users: { type: null } }, `users.type ${typeRule}, got null`],
      [{ users: { table: '' } }, 'users.table must be the name of one, got ""'],
      [
        { users: { table: 'users', onDelete: 'set null' } },
        'users.onDelete must be one of cascade, restrict, got "set null"',
      ],
      [
        { organizations: { type: 'serial' } },
        'organizations.type must be one of text, uuid, integer, bigint, got "serial"',
      ],
      [
        { organizations: true },
        `organizations must be a model of Sequelize, or an object such as { table: 'organizations' }, got true`,
      ],
      [{ users: { table: 'users', schema: 7 } }, 'users.schema must be the name of one, got 7'],
      [{ users: { table: 'users', column: {} } }, 'users.column must be the name of one, got {}'],
      [{ users: { column: 'uuid' } }, 'users.table must be given if column, schema or onDelete is'],
      [
        { users: { schema: 'people' } },
        'users.table must be given if column, schema or onDelete is',
      ],

      [{ currentUser: 'alice' }, 'currentUser must be a function, got "alice"'],
      [{ isAdmin: true }, 'isAdmin must be a function, got true'],
      [{ loadOwner: {} }, 'loadOwner must be a function, got {}'],
      [{ ownerNames: {} }, 'ownerNames must be a function, got {}'],
      [{ grantable: ['READ_GRAPH'] }, "grantable must be a function, got [ 'READ_GRAPH' ]"],
      [{ onRefusal: null }, 'onRefusal must be a function, got null'],

      [
        { maxKeysPerOwner: 0 },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got 0',
      ],
      [
        { maxKeysPerOwner: -1 },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got -1',
      ],
      [
        { maxKeysPerOwner: 2.5 },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got 2.5',
      ],
      [
        { maxKeysPerOwner: '5' },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got "5"',
      ],
      [
        { maxKeysPerOwner: Number.NaN },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got NaN',
      ],
      [
        { maxKeysPerOwner: -Infinity },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got -Infinity',
      ],
      [
        { maxLifetimeSeconds: 0 },
        'maxLifetimeSeconds must be a whole number of seconds from 1 to 3,162,240,000 (100 years), or Infinity, got 0',
      ],
      [
        { maxIdleDays: 36_501 },
        'maxIdleDays must be a whole number of days from 1 to 36500, or Infinity, got 36501',
      ],
      [{ undoMinutes: 61 }, 'undoMinutes must be a whole number from 0 to 60, got 61'],
      [
        { maxGracePeriodSeconds: -1 },
        'maxGracePeriodSeconds must be a whole number from 0 to 31536000, got -1',
      ],
      [{ reservedMetadata: 'plan' }, 'reservedMetadata must be a list of names, got "plan"'],
      [{ reservedMetadata: [7] }, 'reservedMetadata must be a list of names, got [ 7 ]'],
      [
        { maxKeysPerOwner: null },
        'maxKeysPerOwner must be a whole number above 0, or an object such as { user: 10, organization: 100 }, got null',
      ],

      [{ limits: [] }, 'limits must be an object of limits, by their names, got []'],
      [{ limits: 100 }, 'limits must be an object of limits, by their names, got 100'],
      [{ limits: { burst: 100 } }, 'limits.burst must be { limit, windowSeconds }, got 100'],
      [
        { limits: { burst: { limit: 100 } } },
        'limits.burst.windowSeconds must be a whole number from 1 to 31622400, got undefined',
      ],
      [
        { limits: { burst: { limit: 0, windowSeconds: 60 } } },
        'limits.burst.limit must be a whole number from 1 to 1000000000000, got 0',
      ],
      [
        { limits: { '7 days': { limit: 1, windowSeconds: 60 } } },
        'limits.7 days must be a letter, and at most 31 more letters, digits, "_" and "-", got "7 days"',
      ],
      [{ redis: 'redis://127.0.0.1' }, redisRule],
      [{ redis: {} }, redisRule],
      [{ redis: null }, redisRule],
      [{ onLimiterOutage: 'pass' }, `onLimiterOutage must be 'refuse' or 'allow', got "pass"`],
      [
        { maxFailedAttemptsPerMinute: 0 },
        'maxFailedAttemptsPerMinute must be a whole number above 0, got 0',
      ],

      [{ acceptUnkeyed: 'yes' }, 'acceptUnkeyed must be true or false, got "yes"'],
      [{ acceptUnkeyed: true }, 'acceptUnkeyed needs secrets: without them all keys are unkeyed'],

      [{ header: '' }, `header ${headerRule}, got ""`],
      [{ header: 'X API Key' }, `header ${headerRule}, got "X API Key"`],
      [{ header: 'X-API-Key:' }, `header ${headerRule}, got "X-API-Key:"`],
      [{ header: 'Authorization' }, `header ${headerRule}, got "Authorization"`],
      [{ header: 'cookie' }, `header ${headerRule}, got "cookie"`],
      [{ header: ['X-API-Key'] }, `header ${headerRule}, got [ 'X-API-Key' ]`],

      [{ realm: 'Ärger' }, 'realm must be printable ASCII, got "Ärger"'],
      [{ realm: 'a\r\nb' }, 'realm must be printable ASCII, got "a\\r\\nb"'],
      [{ realm: 42 }, 'realm must be printable ASCII, got 42'],

      [
        { trustedOrigins: 'https://acme.com' },
        'trustedOrigins must be a list of origins or a function, got "https://acme.com"',
      ],
      [
        { trustedOrigins: ['https://acme.com/'] },
        'trustedOrigins must have origins such as https://console.example.com, got "https://acme.com/"',
      ],
      [
        { trustedOrigins: ['acme.com'] },
        'trustedOrigins must have origins such as https://console.example.com, got "acme.com"',
      ],
      [
        { trustedOrigins: ['*'] },
        'trustedOrigins must have origins such as https://console.example.com, got "*"',
      ],
      [
        { trustedOrigins: ['null'] },
        'trustedOrigins must have origins such as https://console.example.com, got "null"',
      ],
      [
        { trustedOrigins: ['capacitor://localhost/'] },
        'trustedOrigins must have origins such as https://console.example.com, got "capacitor://localhost/"',
      ],
      [
        { trustedOrigins: ['capacitor://'] },
        'trustedOrigins must have origins such as https://console.example.com, got "capacitor://"',
      ],
      [
        { trustedOrigins: ['https://Acme.com'] },
        'trustedOrigins must have origins such as https://console.example.com, got "https://Acme.com"',
      ],
      [
        { trustedOrigins: ['https://acme.com:443'] },
        'trustedOrigins must have origins such as https://console.example.com, got "https://acme.com:443"',
      ],
    ]),
  )('refuses %s', (_, options, refusal) => {
    const message = messageOf(() => create({ ...needed, ...options }))

    expect(message).toBe(`createApiKeys: the option ${refusal}`)
  })

  it.each([
    ['maxStalenessMs', 100, 600_000],
    ['outageGraceMs', 0, 3_600_000],
    ['cacheSize', 1, 10_000_000],
    ['lastUsedResolutionMs', 0, 86_400_000],
    ['grantableMaxAgeMs', 0, 86_400_000],
  ])('takes for %s whole numbers from %d to %d, and nothing else', (option, least, most) => {
    for (const value of [least, least + 1, most - 1, most]) {
      expect(() => create({ ...needed, [option]: value })).not.toThrow()
    }
    for (const value of [
      least - 1,
      most + 1,
      least + 0.5,
      -Infinity,
      Infinity,
      Number.NaN,
      String(most),
      BigInt(most),
      [most],
      true,
      null,
    ]) {
      const message = messageOf(() => create({ ...needed, [option]: value }))
      expect(message).toContain(
        `createApiKeys: the option ${option} must be a whole number from ${least} to ${most}, got `,
      )
    }
  })

  it.each(['yes', '', 0, 1, null, {}])(
    'refuses %p for preparedStatements',
    (preparedStatements) => {
      const message = messageOf(() => create({ ...needed, preparedStatements }))

      expect(message).toContain(
        'createApiKeys: the option preparedStatements must be true or false, got ',
      )
    },
  )

  it.each([
    ['a number', 5432],
    ['a null', null],
    ['an object', { url: 'postgres://alice:hunter2@db/app' }],
    ['a list', ['postgres://alice:hunter2@db/app']],
    ['nothing', ''],
    ['yes', 'yes'],
    ['an address without a scheme', 'alice:hunter2@db:5432/app'],
    ['an address of something else', 'mysql://alice:hunter2@db/app'],
    ['an address of a page', 'https://alice:hunter2@db/app'],
    ['an address behind something', ' postgres://alice:hunter2@db/app'],
    ['an address that is broken', 'postgres://alice:hunter2@db:port/app'],
  ])('refuses %s for listen, without showing it', (_, listen) => {
    const message = messageOf(() => create({ ...needed, listen }))

    expect(message).toBe(
      'createApiKeys: the option listen must be true, false or the address of the database',
    )
  })

  const acceptedRule = 'must name the environments whose keys pass a guard that does not say which'

  it.each(
    titled([
      [{ environments: {} }, 'environments must name at least one'],
      [
        { environments: { live: 42 } },
        'environments.live must be a key prefix, or { prefix, formerPrefixes, limits }, got 42',
      ],
      [{ environments: { live: 'Acme' } }, `environments.live.prefix ${prefixRule}, got "Acme"`],
      [{ environments: { live: {} } }, `environments.live.prefix ${prefixRule}, got undefined`],
      [
        { environments: { live: { prefix: 'acme', formerPrefixes: ['-'] } } },
        `environments.live.formerPrefixes[0] ${prefixRule}, got "-"`,
      ],
      [
        {
          environments: {
            live: { prefix: 'acme', limits: { burst: { limit: 0, windowSeconds: 1 } } },
          },
        },
        'environments.live.limits.burst.limit must be a whole number from 1 to 1000000000000, got 0',
      ],
      [
        { environments: { Live: 'acme' } },
        'environments.Live must have a name of at most 32 lower-case letters, digits and underscores, with a letter first, got "Live"',
      ],
      [
        { environments: { live: 'acme', test: 'acme' } },
        'environments.test must not repeat a prefix, got "acme"',
      ],
      [
        { environments: { live: 'acme', test: { prefix: 'acme_test', formerPrefixes: ['acme'] } } },
        'environments.test must not repeat a prefix, got "acme"',
      ],
      [
        { environments: { live: 'acme', test: 'sk_test' } },
        foreign('sk_test', 'Stripe').replace('keyPrefix', 'environments.test'),
      ],
      [
        { environments: { live: 'acme' }, formerPrefixes: ['old'] },
        'formerPrefixes must be given in environments, beside the prefix',
      ],
      [{ environments: { live: 'acme' } }, `acceptedEnvironments ${acceptedRule}, got undefined`],
      [
        { environments: { live: 'acme' }, acceptedEnvironments: [] },
        `acceptedEnvironments ${acceptedRule}, got []`,
      ],
      [
        { environments: { live: 'acme', test: 'acme_test' }, acceptedEnvironments: ['tset'] },
        'acceptedEnvironments must be some of live, test, got "tset"',
      ],
      [
        { environments: { live: 'acme' }, acceptedEnvironments: ['live', 'live'] },
        'acceptedEnvironments must not repeat a name',
      ],
    ]),
  )('refuses environments: %s', (_, options, refusal) => {
    const message = messageOf(() => create({ ...needed, keyPrefix: undefined, ...options }))

    expect(message).toBe(`createApiKeys: the option ${refusal}`)
  })

  it.each(
    titled([
      [{ keyprefix: 'acme' }, 'there is no option keyprefix. Did you mean keyPrefix?'],
      [{ permission: ['READ'] }, 'there is no option permission. Did you mean permissions?'],
      [{ maxKeys: 5 }, 'there is no option maxKeys.'],
      [{ cache: 10 }, 'there is no option cache.'],
      [{ stalenessMs: 10 }, 'there is no option stalenessMs. Did you mean maxStalenessMs?'],
      [{ users: { tabel: 'users' } }, 'there is no option users.tabel. Did you mean table?'],
      [
        { users: { id: 'uuid' } },
        'there is no option users.id. It must be one of type, table, schema, column, onDelete.',
      ],
      [
        { limits: { burst: { max: 5, windowSeconds: 60 } } },
        'there is no option limits.burst.max. It must be one of limit, windowSeconds.',
      ],
      [
        { environments: { live: { prefix: 'acme', formerPrefix: 'old' } } },
        'there is no option environments.live.formerPrefix. Did you mean formerPrefixes?',
      ],
      [
        { environments: { live: { prefix: 'acme', limits: { burst: { max: 5 } } } } },
        'there is no option environments.live.limits.burst.max. It must be one of limit, windowSeconds.',
      ],
    ]),
  )(
    'rejects %s as unknown, and names the nearest option, or all options if they are few',
    (_, options, refusal) => {
      const message = messageOf(() => create({ ...needed, ...options }))

      expect(message).toBe(`createApiKeys: ${refusal}`)
    },
  )

  it.each([
    ['a text', secret, 'secrets must be a list'],
    ['none at all', [undefined], 'secrets[0] must be text or bytes, it is undefined'],
    ['a number', [secret, 123456], 'secrets[1] must be text or bytes, it is number'],
    [
      'a short one',
      [secret.slice(0, 31)],
      'secrets[0] must have at least 32 bytes, such as those of "openssl rand -base64 32", it has 31',
    ],
    [
      'short bytes',
      [Buffer.alloc(16, secret)],
      'secrets[0] must have at least 32 bytes, such as those of "openssl rand -base64 32", it has 16',
    ],
    [
      'an empty one',
      [secret, ''],
      'secrets[1] must have at least 32 bytes, such as those of "openssl rand -base64 32", it has 0',
    ],
    [
      'one of few characters',
      ['horse'.repeat(10)],
      'secrets[0] must be random: it repeats a few characters',
    ],
    ['one twice', [secret, `${secret}!`, secret], 'secrets[2] must not be repeated'],
    ['one twice, as bytes', [secret, Buffer.from(secret)], 'secrets[1] must not be repeated'],
  ])('refuses %s for secrets, without showing any', (_, secrets, refusal) => {
    const message = messageOf(() => create({ ...needed, secrets }))

    expect(message).toBe(`createApiKeys: the option ${refusal}`)
    expect(message).not.toMatch(/horse|battery|staple|123456/)
  })

  it.each([
    ['the longest prefix', { keyPrefix: 'a'.repeat(16) }],
    ['a prefix of several words', { keyPrefix: 'acme_live_2' }],
    ['a former prefix', { formerPrefixes: ['acme_old', 'old'] }],
    ['a former prefix that is another vendor’s', { formerPrefixes: ['sk_live'] }],
    [
      'environments',
      {
        keyPrefix: undefined,
        environments: { live: 'acme', test: { prefix: 'acme_test', formerPrefixes: ['sk_test'] } },
        acceptedEnvironments: ['live', 'test'],
      },
    ],
    [
      'prefixes of other vendors in environments, if they may be there',
      {
        keyPrefix: undefined,
        environments: { live: 'sk_live', test: 'sk_test' },
        acceptedEnvironments: ['live'],
        allowForeignPrefix: true,
      },
    ],
    ['a prefix that begins as another vendor’s does', { keyPrefix: 'ghpx_live' }],
    ['a prefix of another vendor if it may', { keyPrefix: 'sk_live', allowForeignPrefix: true }],
    ['permissions with descriptions', { permissions: { READ_GRAPH: 'Read graphs' } }],
    [
      'permissions that imply others',
      {
        permissions: {
          READ: { description: 'Read' },
          WRITE: { description: 'Write', implies: ['READ'] },
          ADMIN: { description: 'All', implies: '*' },
        },
      },
    ],
    [
      'former names, one for another and one for none',
      { formerPermissions: { READ: 'VIEW', VIEW: 'READ_GRAPH', RUN: 'GONE', GONE: null } },
    ],
    ['permissions with colons, dots and slashes', { permissions: ['graphs:read', 'a.b/c'] }],
    ['permissions of odd characters', { permissions: ["graphs:read/*'%$1"] }],
    ['schemas of odd characters', { schema: 'My "keys"', users: { table: 'u', schema: "It's" } }],
    ['a schema of 63 bytes', { schema: 'a'.repeat(63) }],
    ['no limit', { maxKeysPerOwner: Infinity }],
    ['secrets of text and of bytes', { secrets: [secret, Buffer.from(`${secret}!`)] }],
    ['unkeyed keys beside keyed ones', { secrets: [secret], acceptUnkeyed: true }],
    ['a second header', { header: 'X-API-Key' }],
    ['an empty realm', { realm: '' }],
    ['no listener', { listen: false }],
    ['a listener at an address', { listen: 'postgres://alice:hunter2@db:5432/app' }],
    ['the other scheme of addresses', { listen: 'postgresql://db/app?sslmode=require' }],
    ['statements that are not prepared', { preparedStatements: false }],
    ['origins', { trustedOrigins: ['https://acme.com', 'http://localhost:3000'] }],
    [
      'origins of other schemes',
      { trustedOrigins: ['capacitor://localhost', 'app://obsidian.md'] },
    ],
    ['a function for origins', { trustedOrigins: () => true }],
  ])('takes %s', (_, options) => {
    expect(() => create({ ...needed, ...options })).not.toThrow()
  })
})

describe('each option', () => {
  const docstrings = readFileSync(join(__dirname, '..', 'lib', 'options.ts'), 'utf8')
  const defaults = new Map<string, unknown>([
    ...Object.entries(optionFields).map(
      ([name, field]) => [name, 'default' in field ? field.default : undefined] as const,
    ),
    ...storageOptionNames.map(
      (name) => [name, { schema: 'public', users: {}, organizations: false }[name]] as const,
    ),
  ])
  const names = [...defaults.keys()]

  it.each(names)('is refused if it is nonsense: %s', (name) => {
    const message = messageOf(() => create({ ...needed, [name]: Symbol('nonsense') }))

    expect(message).toMatch(new RegExp(`^createApiKeys: the option ${name} must be `))
  })

  it.each(names)('stands in the table of options, with its default: %s', (name) => {
    const row = readmeSection('Options')
      .split('\n')
      .find((line) => line.startsWith(`| \`${name}\` `))
    const [, , shown = ''] = row?.split('|').map((cell) => cell.trim()) ?? []

    expect(row).toBeDefined()
    expect(readCell(shown)).toEqual(name in needed ? 'required' : defaults.get(name))
  })

  it('stands in the table of options alone', () => {
    const rows = [...readmeSection('Options').matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name)

    expect(new Set(rows)).toEqual(new Set(names))
    expect(rows).toHaveLength(names.length)
  })

  it.each(Object.keys(optionFields))('has its default in its docstring: %s', (name) => {
    const [, docstring = ''] =
      new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\s+${name}\\??:`).exec(docstrings) ?? []
    const [, shown] = /@default (\S+)/.exec(docstring) ?? []

    expect(docstring).not.toBe('')
    expect(shown === undefined ? undefined : valueOf(shown)).toEqual(defaults.get(name))
  })
})

/** Returns the default in a cell of the table; `undefined` if there is none. */
function readCell(text: string): unknown {
  if (text.startsWith('`')) return valueOf(text.replaceAll('`', ''))
  return text === 'required' ? text : undefined
}

/** Returns the value of a literal in a document. */
function valueOf(literal: string): unknown {
  return runInNewContext(`(${literal})`)
}

describe('migrations', () => {
  it.each([
    [{ shema: 'keys' }, 'there is no option shema. Did you mean schema?'],
    [{ users: { tabel: 'users' } }, 'there is no option users.tabel. Did you mean table?'],
    [{ schema: '' }, 'the option schema must be the name of a schema, got ""'],
    [
      { users: { type: 'number' } },
      'the option users.type must be one of text, uuid, integer, bigint, got "number"',
    ],
  ])('refuse %j like createApiKeys', (options, refusal) => {
    expect(messageOf(() => migrations.initial(options as never))).toBe(
      `migrations.initial: ${refusal}`,
    )
  })
})

describe('readOptions', () => {
  it('takes an explicit undefined for a missing option', () => {
    const undefinedOptions = {
      formerPrefixes: undefined,
      environments: undefined,
      allowForeignPrefix: undefined,
      formerPermissions: undefined,
      schema: undefined,
      users: undefined,
      currentUser: undefined,
      isAdmin: undefined,
      loadOwner: undefined,
      ownerNames: undefined,
      grantable: undefined,
      grantableMaxAgeMs: undefined,
      maxKeysPerOwner: undefined,
      maxLifetimeSeconds: undefined,
      maxGracePeriodSeconds: undefined,
      reservedMetadata: undefined,
      limits: undefined,
      redis: undefined,
      onLimiterOutage: undefined,
      maxFailedAttemptsPerMinute: undefined,
      secrets: undefined,
      acceptUnkeyed: undefined,
      header: undefined,
      realm: undefined,
      trustedOrigins: undefined,
      maxStalenessMs: undefined,
      outageGraceMs: undefined,
      cacheSize: undefined,
      lastUsedResolutionMs: undefined,
      listen: undefined,
      preparedStatements: undefined,
      onRefusal: undefined,
    }

    const { permissions, environments, ...settings } = readOptions({
      ...needed,
      ...undefinedOptions,
    })

    const { permissions: others, environments: otherEnvironments, ...rest } = readOptions(needed)
    expect(settings).toEqual(rest)
    expect(permissions.known).toEqual(others.known)
    expect(environments.all).toEqual(otherEnvironments.all)
    expect(settings).toMatchObject({
      storage: { schema: 'public', users: { idType: 'text' }, organizations: undefined },
      maxKeysPerOwner: { user: 1_000, organization: 1_000, service: 1_000 },
      limits: {},
      redis: undefined,
      onLimiterOutage: 'refuse',
      maxFailedAttemptsPerMinute: 60,
      secrets: [],
      acceptUnkeyed: false,
      realm: 'api',
      trustedOrigins: [],
      grantableMaxAgeMs: 60_000,
      maxStalenessMs: 1_000,
      outageGraceMs: 0,
      cacheSize: 100_000,
      lastUsedResolutionMs: 60_000,
      listen: true,
      preparedStatements: true,
    })
    const owners = {
      type: undefined,
      table: undefined,
      schema: undefined,
      column: undefined,
      onDelete: undefined,
    }
    const { storage } = readOptions({ ...needed, users: owners, organizations: owners as never })
    const defaults = { idType: 'text', columnType: undefined, reference: undefined }
    expect(storage).toEqual({ schema: 'public', users: defaults, organizations: defaults })
  })

  it('lists the permissions in the order in which they are named', () => {
    const permissions = { WRITE: 'Write', READ: 'Read' }

    expect(readOptions({ ...needed, permissions }).permissions.names).toEqual(['WRITE', 'READ'])
  })

  it('stores the name of the second header in lower case, like Node', () => {
    expect(readOptions({ ...needed, header: 'X-API-Key' }).header).toBe('x-api-key')
  })
})
