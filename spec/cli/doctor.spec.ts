import { randomUUID } from 'node:crypto'

import { instanceModule, jsonLines, useCli } from '../support/cli'
import { describeWithRedis, startRedis } from '../support/redis'

interface Finding {
  check: string
  state: string
  finding: string
  remedy?: string
}

const world = useCli()
const { cli, write, path, rows, createKey, database } = world

/** Returns what doctor says of a check. */
async function examine(args: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
  const { code, stdout, stderr } = await cli(['doctor', '--json', ...args], { env })
  const findings = jsonLines<Finding>(stdout)
  return {
    code,
    stderr,
    findings,
    of: (check: string) => findings.find((finding) => finding.check === check),
  }
}

/** Makes a role for a spec, which signs in without a password. */
async function createRole(grants: string): Promise<string> {
  const role = `spec_${randomUUID().replaceAll('-', '')}`
  await rows(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`)
  await rows(grants.replaceAll('ROLE', role))
  return role
}

function urlOf(role: string): string {
  const url = new URL(database.url)
  url.username = role
  url.password = 'x'
  return url.href
}

async function drop(role: string) {
  await rows(`DROP OWNED BY ${role}`)
  await rows(`DROP ROLE ${role}`)
}

describe('doctor', () => {
  it('finds no fault in an app that is well', async () => {
    const secret = 'openssl-rand-base64-32-of-the-app-0'
    const app =
      'module.exports = { apiKeys, app: { get: () => 1, set() {}, listen() {}, handle() {} } }'
    const config = await write('well.cjs', instanceModule(`secrets: ['${secret}'],`, app))

    const { code, findings, stderr } = await examine(['--config', config])

    expect(stderr).toBe('')
    expect(findings.map(({ check, state }) => `${check}: ${state}`)).toEqual([
      'connection: ok',
      'primary: ok',
      'settings of the role: ok',
      'clock: ok',
      expect.stringContaining('connections: '),
      'standbys: ok',
      'pooler: ok',
      'tables: ok',
      'rights: ok',
      'other roles: ok',
      'keys: ok',
      'secrets: ok',
      'trust proxy: ok',
    ])
    expect(code).toBe(0)
  })

  it('prints a table and what to do for people', async () => {
    const { code, stdout, stderr } = await cli(['doctor'])

    expect(code).toBe(0)
    expect(stdout).toMatch(/^ok +connection +PostgreSQL/m)
    expect(stdout).toMatch(/^advice +secrets/m)
    expect(stderr).toContain('What to do:\nsecrets: Set secrets')
  })

  it('says that the database is away, and checks no more', async () => {
    const { code, findings } = await examine([], { DATABASE_URL: 'postgres://a@127.0.0.1:1/b' })

    expect(code).toBe(1)
    expect(findings).toMatchObject([
      { check: 'connection', state: 'fault', finding: expect.stringContaining('ECONNREFUSED') },
    ])
  })

  it('finds triggers that are off, and tables that are missing', async () => {
    await rows('ALTER TABLE api_keys DISABLE TRIGGER api_key_gather_update')
    const off = await examine()
    await rows('ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_gather_update')
    const missing = await examine([], { DATABASE_URL: process.env.SPEC_POSTGRES_URL })

    expect(off.code).toBe(1)
    expect(off.of('triggers')).toMatchObject({
      state: 'fault',
      finding: expect.stringContaining('api_key_gather_update'),
      remedy: expect.stringContaining('express-api-keys migrate'),
    })
    expect(missing.of('tables')).toMatchObject({ state: 'fault' })
  })

  it('finds rights that the role lacks, and the setting that keeps it from writing', async () => {
    const role = await createRole('GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE')
    await rows(`ALTER ROLE ${role} SET default_transaction_read_only = on`)
    await rows(`ALTER ROLE ${role} SET statement_timeout = '200ms'`)

    const { code, findings, of } = await examine([], { DATABASE_URL: urlOf(role) })
    const [granted = ''] = /GRANT .*$/.exec(of('rights')?.remedy ?? '') ?? []
    await rows(granted)
    await rows(`ALTER ROLE ${role} RESET ALL`)
    const afterwards = await examine([], { DATABASE_URL: urlOf(role) })
    await drop(role)

    expect(code).toBe(1)
    expect(of('rights')?.finding).toContain('INSERT, UPDATE, DELETE on api_keys')
    expect(
      findings.filter(({ check }) => check === 'settings of the role').map(({ state }) => state),
    ).toEqual(['fault', 'advice'])
    // The statement that it prints is what was missing.
    expect(afterwards.of('rights')).toMatchObject({ state: 'ok' })
    expect(afterwards.of('settings of the role')).toMatchObject({ state: 'ok' })
  })

  it('names the one right that a role lacks on one table: to erase entries of the trail', async () => {
    const role = await createRole(
      'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ROLE; REVOKE UPDATE ON api_key_events FROM ROLE',
    )

    const { code, of } = await examine([], { DATABASE_URL: urlOf(role) })
    await drop(role)

    expect(code).toBe(1)
    expect(of('rights')).toMatchObject({
      finding: 'the role lacks UPDATE on api_key_events',
      remedy: expect.stringMatching(
        /^Run as the owner: GRANT .*UPDATE.* ON "public"\."api_key_events" TO /,
      ),
    })
  })

  it('finds roles that may read hashes', async () => {
    const role = await createRole('GRANT SELECT ON api_keys TO ROLE')

    const { of } = await examine()
    const [revoke = ''] = /REVOKE .*$/.exec(of('other roles')?.remedy ?? '') ?? []
    await rows(revoke)
    const afterwards = await examine()
    await drop(role)

    expect(of('other roles')).toMatchObject({
      state: 'advice',
      finding: expect.stringContaining(role),
    })
    expect(afterwards.of('other roles')).toMatchObject({ state: 'ok' })
  })

  it('prints no character of a role that does more than to show its name', async () => {
    const role = `spec ${randomUUID()}\u009b2J\u202E`
    await rows(`CREATE ROLE "${role}"`)
    await rows(`GRANT SELECT ON api_keys TO "${role}"`)

    const { stdout, stderr } = await cli(['doctor'])
    await rows(`DROP OWNED BY "${role}"`)
    await rows(`DROP ROLE "${role}"`)

    expect(stderr).toContain('REVOKE')
    expect(stdout + stderr).not.toMatch(/[^\P{C}\n]/u)
  })

  it('finds keys with prefixes, permissions and secrets that the app does not know', async () => {
    const { id } = await createKey()
    await createKey()
    await rows(`UPDATE api_keys SET permissions = '{FLY}' WHERE id = $1`, [id])
    const secret = 'openssl-rand-base64-32-of-the-app-0'
    const other = await write('other.cjs', instanceModule(`secrets: ['${secret}'],`))
    const made = path('made-with-a-secret')
    await cli([
      'create',
      '--config',
      other,
      '--user',
      'a',
      '--name',
      'CI',
      '-p',
      'READ_GRAPH',
      '-o',
      made,
    ])
    const renamed = instanceModule().replace("'agpt'", "'acme'")

    const [plain, ofOther] = await Promise.all([
      examine(),
      examine(['--config', await write('renamed.cjs', renamed)]),
    ])

    expect(plain.of('permissions')?.finding).toContain('FLY (1 key)')
    expect(plain.of('secrets')).toMatchObject({
      state: 'fault',
      finding: expect.stringContaining('1 living keys'),
    })
    expect(ofOther.of('prefixes')).toMatchObject({
      finding: expect.stringContaining('with agpt'),
      remedy: expect.stringContaining('the source of @name in imports'),
    })
  })

  it('finds a trust proxy by which clients choose their address', async () => {
    const app =
      'module.exports = { apiKeys, app: { get: () => true, set() {}, listen() {}, handle() {} } }'

    const { code, of } = await examine([
      '--config',
      await write('proxy.cjs', instanceModule('', app)),
    ])

    expect(code).toBe(1)
    expect(of('trust proxy')).toMatchObject({ state: 'fault', finding: 'it is true' })
  })
})

describe('a role with half of the rights', () => {
  it('lists keys, and is told what it lacks to revoke one', async () => {
    const { id } = await createKey()
    const role = await createRole('GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE')
    const env = { DATABASE_URL: urlOf(role) }

    const [listed, revoked, migrated] = await Promise.all([
      cli(['list', '--json', '--limit', '1'], { env }),
      cli(['revoke', id, '--yes'], { env }),
      cli(['migrate'], { env }),
    ])
    await drop(role)

    expect(listed.code).toBe(0)
    expect(revoked).toMatchObject({ code: 7, stdout: '' })
    expect(revoked.stderr).toContain('permission denied for table')
    // It has nothing to do.
    expect(migrated.code).toBe(0)
  })
})

describeWithRedis('doctor with Redis', () => {
  it.each([
    ['noeviction', 'ok'],
    ['allkeys-lru', 'advice'],
  ])('says of the eviction policy %s: %s', async (policy, state) => {
    const redis = await startRedis(['--maxmemory-policy', policy])
    const config = await write(
      `redis-${policy}.cjs`,
      instanceModule(
        `limits: { burst: { limit: 10, windowSeconds: 60 } }, redis,`,
        'module.exports = apiKeys',
      ).replace(
        'const permissions',
        `const { Redis } = require(${JSON.stringify(require.resolve('ioredis'))})
         const redis = new Redis(${redis.port}, '127.0.0.1')
         const permissions`,
      ),
    )

    const { of } = await examine(['--config', config])
    await redis.kill()

    expect(of('Redis')).toMatchObject({ state, finding: `maxmemory-policy is ${policy}` })
  })
})
