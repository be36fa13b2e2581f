import { join } from 'node:path'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'
import { createConsumer, packedPackage, root, type Consumer } from '../support/package'
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
const consumers: Consumer[] = []

beforeEach(async () => {
  database = await createDatabase('empty')
})

afterEach(() => database.drop())

afterAll(async () => {
  for (const consumer of consumers) await consumer.remove()
})

/** Makes a project in which npm installs the package and other packages. */
async function createInstalled(packages: readonly string[], packageJson = {}): Promise<Consumer> {
  const consumer = await createConsumer({ packageJson, files: {} })
  consumers.push(consumer)
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline']
  await consumer.run('npm', 'install', ...quiet, packedPackage(), ...packages)
  return consumer
}

let plain: Promise<Consumer> | undefined

/** Returns a project without settings, which has the peers and the types of Node. It is made once, because npm takes its time. */
function plainProject(): Promise<Consumer> {
  return (plain ??= createInstalled([...peers, '@types/node@20']))
}

/** Calls the route of the example with a key and without. */
async function expectToWork(consumer: Consumer, file: string) {
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
    const consumer = await plainProject()
    await consumer.write('example.cjs', asCommonJs(firstExample()))

    await expectToWork(consumer, 'example.cjs')
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
    const consumer = await plainProject()
    await consumer.write('example.ts', example)
    await consumer.write(
      'tsconfig.json',
      JSON.stringify({ compilerOptions, files: ['example.ts'] }),
    )

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
    const consumer = await plainProject()
    await consumer.write('api-keys.js', module)
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
    const consumer = await plainProject()
    await consumer.write('key.test.js', test)

    const bin = join(root, 'node_modules', 'jest', 'bin', 'jest.js')
    const run = consumer.run(process.execPath, bin, '--rootDir', consumer.folder)

    await expect(run).resolves.toBeDefined()
  })

  it('runs the first example of the README as an ES module, its peers installed by npm', async () => {
    const consumer = await createInstalled([], { type: 'module' })
    await consumer.write('example.js', firstExample())

    await expectToWork(consumer, 'example.js')
  })

  it('runs the first example of the README as strict TypeScript', async () => {
    const types = ['@types/express', '@types/node@20', '@types/passport']
    const consumer = await createInstalled([...peers, ...types], { type: 'module' })
    await consumer.write('example.ts', firstExample())
    await consumer.write('user.d.ts', userTypes)
    await consumer.write('tsconfig.json', tsconfig)
    await consumer.run(join(root, 'node_modules', '.bin', 'tsc'))

    await expectToWork(consumer, 'example.js')
  })
})
