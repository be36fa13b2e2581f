import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { QueryTypes } from 'sequelize'

import { createApiKeys } from '../lib'
import { createDatabase, type Database } from './support/database'
import { createConsumer, pack, provide, root, unpack, type Consumer } from './support/package'
import { firstExample, pages, readmeBlocks, runExample } from './support/readme'
import { ourTables } from './support/tables'

/** The parts of an app that the blocks expect. */
const surroundings = `
import express, { type RequestHandler } from 'express'
import { createApiKeys, digests, sources } from 'express-api-keys'
import passport from 'passport'
import { Sequelize } from 'sequelize'

declare const redis: import('express-api-keys').RedisClient
declare const pinoHttp: (options: { redact: string[] }) => RequestHandler
declare const Sentry: {
  init(options: { integrations: object[] }): void
  requestDataIntegration(options: { include: { headers: boolean } }): object
}
declare const sequelize: Sequelize
declare const app: express.Express
declare const listGraphs: RequestHandler, executeGraph: RequestHandler, showStatus: RequestHandler
declare function findMember(organizationId: string | undefined, userId: string | number): Promise<{
  organizationId: string
  organizationName: string
  isManager: boolean
  permissions: ('READ_GRAPH' | 'EXECUTE_GRAPH')[]
} | null>
declare function bringToPrograms(id: string, plainTextKey: string): Promise<void>
declare const showMe: RequestHandler, showPublic: RequestHandler, showGraph: RequestHandler
`
const ownApiKeys = `
const apiKeys = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
  currentUser: (req) => req.user,
  isAdmin: (user) => user.admin,
})
`

let database: Database
let consumer: Consumer

beforeAll(async () => {
  database = await createDatabase('empty')
  consumer = await createConsumer({ files: {} })
  await unpack(await pack(consumer.folder), consumer)
  for (const name of ['express', 'passport', 'sequelize', 'pg', 'valibot'])
    await provide(consumer, name)
  for (const name of [
    'debug',
    'fastest-levenshtein',
    'ipaddr.js',
    'passport-http-bearer',
    'preact',
    'preact-render-to-string',
    'structured-headers',
  ])
    await provide(consumer, name)
  await provide(consumer, '@types')
})

afterAll(async () => {
  await consumer.remove()
  await database.drop()
})

describe('README', () => {
  it('opens with an example that runs and gives the answers on the page', async () => {
    await writeFile(join(consumer.folder, 'example.mjs'), firstExample())
    const example = await runExample(consumer, 'example.mjs', database.url)
    const [okBlock = '', forbiddenBlock = ''] = readmeBlocks('http')
    const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH'] as const
    const apiKeys = createApiKeys({ sequelize: database.connect(), keyPrefix: 'acme', permissions })
    const [good, poor] = await Promise.all(
      [permissions, ['READ_GRAPH'] as const].map((held) =>
        apiKeys.create({ userId: 'alice', name: 'CI', permissions: held }),
      ),
    )

    const execute = (key?: string) =>
      fetch(`${example.url}/graphs/7/execute`, {
        method: 'POST',
        headers: key === undefined ? {} : { Authorization: `Bearer ${key}` },
      })
    const answers = [
      await execute(good?.plainTextKey),
      await execute(poor?.plainTextKey),
      await execute(),
    ]
    const bodies = await Promise.all(answers.map((answer) => answer.text()))
    await example.stop()

    expect(answers.map(({ status }) => status)).toEqual([200, 403, 401])
    expect(okBlock).toBe(`HTTP/1.1 200 OK\n\n${bodies[0]}\n`)
    expect(forbiddenBlock).toBe(
      [
        'HTTP/1.1 403 Forbidden',
        `Content-Type: ${answers[1]?.headers.get('content-type')}`,
        `WWW-Authenticate: ${answers[1]?.headers.get('www-authenticate')}`,
        '',
        `${bodies[1]}\n`,
      ].join('\n'),
    )
  })

  it('has no TypeScript that does not compile', async () => {
    const [first = '', ...others] = readmeBlocks('ts')
    const files = others.map((block, index) => {
      if (/^declare (global|module)/.test(block)) return `export {}\n${block}`

      const needsApiKeys = !block.includes('const apiKeys =')
      return `${surroundings}\nexport async function block${index}() {\n${needsApiKeys ? ownApiKeys : ''}${block}}\n`
    })
    for (const [index, text] of [first, ...files].entries()) {
      await writeFile(join(consumer.folder, `block${index}.mts`), text)
    }
    const compilerOptions = {
      target: 'es2022',
      module: 'nodenext',
      strict: true,
      skipLibCheck: true,
      noEmit: true,
      types: ['node', 'passport'],
    }
    await writeFile(join(consumer.folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }))

    expect(await consumer.run(join(root, 'node_modules', '.bin', 'tsc'))).toBe('')
  })

  it('has migrations for sequelize-cli that make the tables', async () => {
    const own = await createDatabase('empty')
    const sequelize = own.connect()
    await sequelize.query('CREATE TABLE users (id uuid PRIMARY KEY)')

    const migrations = readmeBlocks('js').filter((block) => block.includes('migrations.'))
    for (const [index, block] of migrations.entries()) {
      const file = join(consumer.folder, `migration${index}.js`)
      await writeFile(file, block)
      const { up } = jest.requireActual<{ up(queryInterface: object): Promise<void> }>(file)
      await up(sequelize.getQueryInterface())
    }

    const tables = await sequelize.query<{ name: string }>(
      `SELECT tablename AS name FROM pg_tables WHERE tablename LIKE 'api_key%' ORDER BY 1`,
      { type: QueryTypes.SELECT },
    )
    expect(tables.map(({ name }) => name)).toEqual(ourTables)
    await own.drop()
  })
})

describe('the pages', () => {
  const shipped = pages.filter((page) => /^(README|lib\/|migrations\/)/.test(page))

  it.each(shipped)('come with the package: %s', (page) => {
    expect(existsSync(join(consumer.folder, 'node_modules', 'express-api-keys', page))).toBe(true)
  })
})
