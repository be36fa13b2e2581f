import { existsSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'

import { QueryTypes } from 'sequelize'

import { createApiKeys } from '../lib'
import { createDatabase, type Database } from './support/database'
import { createConsumer, pack, provide, root, unpack, type Consumer } from './support/package'
import { firstExample, pages, readmeBlocks, readPage, runExample } from './support/readme'
import { ourTables } from './support/tables'

/** What the blocks take for granted: the parts of somebody's app. */
const surroundings = `
import express, { type RequestHandler } from 'express'
import { createApiKeys } from 'express-api-keys'
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
    'fastest-levenshtein',
    'ipaddr.js',
    'passport-http-bearer',
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
  it('opens with an example that runs, and answers what it shows', async () => {
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
      if (block.startsWith('declare global')) return `export {}\n${block}`

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

/** The anchors that headings of a page have on GitHub. */
function anchorsOf(page: string): string[] {
  return [...readPage(page).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\- _]/gu, '')
      .replaceAll(' ', '-'),
  )
}

/** The links of a page that stay in the repository, as path and anchor from its top. */
function linksOf(page: string): [path: string, anchor: string][] {
  return [...readPage(page).matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)].map(
    ([, path = '', anchor = '']) => [
      path === '' ? page : normalize(join(dirname(page), path)),
      anchor,
    ],
  )
}

describe('the pages', () => {
  it('are all README files of the repository', async () => {
    const folders = ['lib', 'models', 'migrations', 'spec', 'example-app']
    const found = await Promise.all(
      folders.map(async (folder) => {
        const names = await readdir(join(root, folder), { recursive: true })
        return names
          .map((name) => join(folder, name))
          .filter((name) => !/node_modules|adopters/.test(name))
      }),
    )

    expect(
      ['README.md', ...found.flat().filter((name) => name.endsWith('README.md'))].toSorted(),
    ).toEqual(pages.toSorted())
  })

  it.each(pages)('have no link that leads nowhere: %s', (page) => {
    const dead = linksOf(page).filter(
      ([path, anchor]) =>
        !existsSync(join(root, path)) ||
        (anchor !== '' && path.endsWith('.md') && !anchorsOf(path).includes(anchor)),
    )

    expect(dead).toEqual([])
  })

  const ofRooms = pages.filter((page) => page.startsWith('lib/'))

  it.each(ofRooms)('name each file of their folder: %s', async (page) => {
    const names = await readdir(join(root, dirname(page)))
    const files = names
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(dirname(page), name))

    expect(linksOf(page).map(([path]) => path)).toEqual(expect.arrayContaining(files))
  })

  const shipped = pages.filter((page) => /^(README|lib\/|migrations\/)/.test(page))

  it.each(shipped)('come with the package: %s', (page) => {
    expect(existsSync(join(consumer.folder, 'node_modules', 'express-api-keys', page))).toBe(true)
  })
})
