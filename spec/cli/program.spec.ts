import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import { promisify } from 'node:util'

import { findBin, instanceModule, jsonLines, useCli } from '../support/cli'

const { cli, write, path, createKey, database, rows } = useCli()

const commands =
  'migrate prune import create list show revoke suspend reactivate unrevoke rotate transfer usage health explain scanners audit doctor'.split(
    ' ',
  )

describe('the command line', () => {
  it('lists its commands and its exit codes', async () => {
    const { code, stdout } = await cli(['--help'])

    expect(code).toBe(0)
    for (const command of commands) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'))
    }
    expect(stdout).toContain('Exit codes:')
  })

  it('has the version of the package', async () => {
    const { version } = require('../../package.json') as { version: string }

    expect(await cli(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
  })

  it('begins with the line by which a shell finds Node', async () => {
    const { stdout } = await promisify(execFile)('head', ['-n', '1', await findBin()])

    expect(stdout).toBe('#!/usr/bin/env node\n')
  })

  it.each([
    [['lst'], "unknown command 'lst'\n(Did you mean list?)"],
    [['list', '--jsn'], "unknown option '--jsn'\n(Did you mean --json?)"],
    [['show'], "missing required argument 'id'"],
    [['show', 'a', 'b'], 'too many arguments'],
    [['audit', 'verfy'], "unknown command 'verfy'"],
    [['list', '--limit', 'ten'], '"ten" is not a whole number'],
    [['list', '--status', 'GONE'], 'status must be'],
  ])('refuses %j', async (args, message) => {
    const { code, stdout, stderr } = await cli(args)

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(message)
  })
})

describe('the module of --config', () => {
  const instance = instanceModule('', '')

  it.each([
    ['CommonJS, by its name', 'named.cjs', `${instance}; module.exports = { apiKeys, other: 1 }`],
    [
      'CommonJS of a compiler',
      'compiled.cjs',
      `${instance}; exports.__esModule = true; exports.default = apiKeys`,
    ],
    [
      'ES, by any name',
      'module.mjs',
      esModule('export const keys = apiKeys; export { keys as default }'),
    ],
    ['ES that waits', 'waits.mjs', esModule('await sequelize.authenticate(); export { apiKeys }')],
  ])('may be %s', async (_, name, text) => {
    await createKey()
    await write(name, text)

    const { code, stdout, stderr } = await cli(['list', '--limit', '1', '--json', '--config', name])

    expect({ code, stderr: stderr.replace(/^There are more.*\n/, '') }).toEqual({
      code: 0,
      stderr: '',
    })
    expect(JSON.parse(stdout)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each([
    ['does not exist', 'nowhere.js', undefined, 'nowhere.js does not exist'],
    ['exports nothing', 'nothing.mjs', '', 'exports nothing. Export what createApiKeys returns.'],
    [
      'exports something else',
      'else.cjs',
      'module.exports = { app: {}, sequelize: 1 }',
      'exports no instance, only app, sequelize',
    ],
    [
      'exports a promise',
      'promise.cjs',
      'module.exports = Promise.resolve(1)',
      'exports a promise',
    ],
    [
      'throws',
      'throws.cjs',
      'throw new Error("no DATABASE_URL")',
      'cannot be loaded: no DATABASE_URL',
    ],
    ['does not parse', 'broken.cjs', 'module.exports = {', 'cannot be loaded'],
    ['has wrong options', 'wrong.cjs', instanceModule('realm: 7'), 'realm'],
    [
      'exports several instances',
      'several.cjs',
      `${instance}
      exports.one = apiKeys
      exports.two = createApiKeys({ sequelize, keyPrefix: 'other', permissions })`,
      'exports several instances: one, two',
    ],
    [
      'exports what another copy has made',
      'copy.cjs',
      'exports.apiKeys = { requirePermission() {}, verifyAuditTrail() {} }',
      'another copy of express-api-keys',
    ],
  ])('is refused if it %s', async (_, name, text, message) => {
    if (text !== undefined) await write(name, text)

    const { code, stdout, stderr } = await cli(['list', '--config', name])

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(message)
    // People who type a command are not shown where in the library it failed.
    expect(stderr).not.toMatch(/^ +at /m)
  })

  it('is api-keys.js unless it is named, and is asked for if there is none', async () => {
    await mkdir(path('empty'), { recursive: true })
    const bin = await findBin()
    const run = promisify(execFile)(process.execPath, [bin, 'list'], { cwd: path('empty') })

    await expect(run).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: There is no api-keys\.js in .*empty\./),
    })
  })

  it('may be TypeScript if Node loads it', async () => {
    await write('typed.mts', esModule('const keys: object = apiKeys; export default keys'))

    const { code, stderr } = await cli(['list', '--limit', '1', '--config', 'typed.mts'])

    const { typescript } = process.features as { typescript?: unknown }
    const [exitCode, said] = typescript
      ? [0, /^(There are more.*\n)?$/]
      : [2, /does not load TypeScript/]
    expect({ code, stderr }).toEqual({ code: exitCode, stderr: expect.stringMatching(said) })
  })

  it('may be named before the command', async () => {
    await write('before.cjs', instanceModule())

    expect(await cli(['--config', 'before.cjs', 'list', '--limit', '1'])).toMatchObject({ code: 0 })
  })

  it('may print to the console, and the output stays the result alone', async () => {
    const noisy = instanceModule('', 'console.log("ready"); module.exports = apiKeys')
    // Sequelize prints each statement by default.
    await write('noisy.cjs', noisy.replace('{ logging: false }', '{}'))

    const { code, stdout, stderr } = await cli(['health', '--json', '--config', 'noisy.cjs'])

    expect(code).toBe(0)
    expect(jsonLines(stdout)).toMatchObject([{ ok: true }])
    expect(stderr).toContain('ready')
    expect(stderr).toContain('SELECT')
  })

  it('may keep timers and servers, which do not keep the command', async () => {
    await write(
      'server.cjs',
      instanceModule(
        '',
        'require("node:http").createServer().listen(0); setInterval(() => {}, 1e6); module.exports = apiKeys',
      ),
    )

    expect(await cli(['list', '--limit', '1', '--config', 'server.cjs'])).toMatchObject({ code: 0 })
  })
})

describe('the database', () => {
  const away = { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing' }

  it.each([
    [['list']],
    [['revoke', '01993b5e-0000-7000-8000-000000000000', '--yes']],
    [['migrate']],
    [['migrate', '--dry-run']],
    [['audit', 'verify']],
    [['usage']],
  ])('is named if it is away: %j', async (args) => {
    const { code, stdout, stderr } = await cli(args, { env: away })

    expect({ code, stdout }).toEqual({ code: 4, stdout: '' })
    expect(stderr).toContain('ECONNREFUSED')
  })

  it('is named with what to do about it by migrate', async () => {
    const { stderr } = await cli(['migrate'], { env: away })

    expect(stderr).toMatch(/^error: migrate: the database cannot be used \(.*\)\. \w+/)
  })

  it('leaves no file for a key if it is away', async () => {
    const args = ['create', '--user', 'a', '--name', 'CI', '-p', 'READ_GRAPH', '-o', path('away')]

    expect(await cli(args, { env: away })).toMatchObject({ code: 4 })
    await expect(stat(path('away'))).rejects.toThrow('ENOENT')
  })

  it('is asked for its tables if these are missing', async () => {
    const env = { DATABASE_URL: process.env.SPEC_POSTGRES_URL }

    const { code, stderr } = await cli(['list'], { env })

    expect(code).toBe(6)
    expect(stderr).toMatch(/^error: The tables are missing.* Run express-api-keys migrate\.\n$/)
  })

  it('names a right that the role lacks, in each command, and changes nothing then', async () => {
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await rows(
      `CREATE ROLE ${role} LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`,
    )
    const url = new URL(database.url)
    url.username = role
    url.password = 'x'
    const env = { DATABASE_URL: url.href }
    const { id } = await createKey()

    const [listed, revoked, migrated] = await Promise.all([
      cli(['list', '--limit', '1'], { env }),
      cli(['revoke', id, '--yes'], { env }),
      cli(['erase', '--user', 'alice', '--reason', 'Request 4711', '--revoke', '--yes'], { env }),
    ])
    const [found] = await rows<{ status: string }>('SELECT status FROM api_keys WHERE id = $1', [
      id,
    ])
    await rows(`DROP OWNED BY ${role}; DROP ROLE ${role}`)

    expect(listed.code).toBe(0)
    for (const { code, stderr } of [revoked, migrated]) {
      expect(code).toBe(7)
      expect(stderr).toMatch(
        /permission denied for .*Run express-api-keys doctor, which names the GRANT/,
      )
    }
    expect(found).toEqual({ status: 'ACTIVE' })
  })
})

/** A module of ES that makes the instance. */
function esModule(rest: string): string {
  return `import { createRequire } from 'node:module'
    const require = createRequire(import.meta.url)
    ${instanceModule('', '')}
    ${rest}`
}
