import { join } from 'node:path'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'
import { createConsumer, pack, root, type Consumer } from '../support/package'
import { asCommonJs, firstExample, runExample } from '../support/readme'

/*
 * Installs from the registry, so it runs apart from the other specs: npm run check:install
 */

const peers = ['express', 'passport', 'sequelize', 'pg']

const userTypes = `
export {}
declare global {
  namespace Express {
    interface User {
      id: string
    }
  }
}
`
const tsconfig = JSON.stringify({
  compilerOptions: {
    target: 'es2022',
    module: 'nodenext',
    strict: true,
    types: ['node', 'passport'],
    skipLibCheck: true,
  },
})

let database: Database
let consumer: Consumer

beforeEach(async () => {
  database = await createDatabase('empty')
})

afterEach(async () => {
  await consumer.remove()
  await database.drop()
})

async function install(...packages: string[]) {
  const tarball = await pack(consumer.folder)
  await consumer.run('npm', 'install', '--no-audit', '--no-fund', tarball, ...packages)
}

/** Calls the route of the example with a key and without. */
async function expectToWork(file: string) {
  const { url, stop } = await runExample(consumer, file, database.url)
  const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH'] as const
  const apiKeys = createApiKeys({ sequelize: database.connect(), keyPrefix: 'acme', permissions })
  const { plainTextKey } = await apiKeys.create({ userId: 'alice', name: 'CI', permissions })

  const headers = { Authorization: `Bearer ${plainTextKey}` }
  const accepted = await fetch(`${url}/graphs/7/execute`, { method: 'POST', headers })
  const refused = await fetch(`${url}/graphs/7/execute`, { method: 'POST' })
  const body: unknown = await accepted.json()
  await stop()

  expect(body).toEqual({ graph: '7', ranFor: 'alice' })
  expect(refused.status).toBe(401)
}

describe('the packed package, installed into an empty project', () => {
  it('runs the first example of the README as CommonJS', async () => {
    consumer = await createConsumer({ files: { 'example.cjs': asCommonJs(firstExample()) } })
    await install(...peers)

    await expectToWork('example.cjs')
  })

  it('runs the first example of the README as an ES module, its peers installed by npm', async () => {
    consumer = await createConsumer({
      packageJson: { type: 'module' },
      files: { 'example.js': firstExample() },
    })
    await install()

    await expectToWork('example.js')
  })

  it('runs the first example of the README as strict TypeScript', async () => {
    consumer = await createConsumer({
      packageJson: { type: 'module' },
      files: { 'example.ts': firstExample(), 'user.d.ts': userTypes, 'tsconfig.json': tsconfig },
    })
    await install(...peers, '@types/express', '@types/node@20', '@types/passport')
    await consumer.run(join(root, 'node_modules', '.bin', 'tsc'))

    await expectToWork('example.js')
  })

  it('asks for no types but those of Node, and has none that are wrong', async () => {
    const example = `
      import { createApiKeys } from 'express-api-keys'
      import { Sequelize } from 'sequelize'

      export const apiKeys = createApiKeys({
        sequelize: new Sequelize('postgres://localhost'),
        keyPrefix: 'acme',
        permissions: ['READ_GRAPH'],
      })`
    const compilerOptions = { module: 'nodenext', strict: true, noEmit: true, types: ['node'] }
    consumer = await createConsumer({
      files: { 'example.ts': example, 'tsconfig.json': JSON.stringify({ compilerOptions }) },
    })
    await install(...peers, '@types/node@20')

    expect(await consumer.run(join(root, 'node_modules', '.bin', 'tsc'))).toBe('')
  })

  it('runs its command line', async () => {
    const module = `
      const { createApiKeys } = require('express-api-keys')
      const { Sequelize } = require('sequelize')

      exports.apiKeys = createApiKeys({
        sequelize: new Sequelize(${JSON.stringify(database.url)}, { logging: false }),
        keyPrefix: 'acme',
        permissions: ['READ_GRAPH'],
      })`
    consumer = await createConsumer({ files: { 'api-keys.js': module } })
    await install(...peers)
    const command = ['--no-install', 'express-api-keys'] as const

    await consumer.run('npx', ...command, 'migrate')
    const options = ['--user', 'alice', '--name', 'CI', '--permission', 'READ_GRAPH']
    await consumer.run('npx', ...command, 'create', ...options, '--output', 'key.txt')
    const listed = await consumer.run('npx', ...command, 'list', '--json')

    expect(JSON.parse(listed)).toMatchObject({ name: 'CI', owner: { type: 'user', id: 'alice' } })
  })

  it('runs in the tests of an app, in Jest with its default settings', async () => {
    const test = `
      const { createApiKeys } = require('express-api-keys')
      const { Sequelize } = require('sequelize')

      test('a key', async () => {
        const sequelize = new Sequelize(${JSON.stringify(database.url)}, { logging: false })
        const apiKeys = createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['READ_GRAPH'] })
        await apiKeys.migrate()
        const key = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'] }
        const { apiKey, plainTextKey } = await apiKeys.create(key)
        expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
        await apiKeys.revoke(apiKey.id)
        expect(await apiKeys.verify(plainTextKey)).toMatchObject({ code: 'revoked' })
        await apiKeys.close()
        await sequelize.close()
      })`
    consumer = await createConsumer({ files: { 'key.test.js': test } })
    await install(...peers)

    const bin = join(root, 'node_modules', 'jest', 'bin', 'jest.js')
    const run = consumer.run(process.execPath, bin, '--rootDir', consumer.folder)

    await expect(run).resolves.toBeDefined()
  })
})
