import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { Sequelize } from 'sequelize'

import { startPostgres, type EmbeddedPostgres } from '../../example-app/embedded-postgres'
import { createApiKeys, type AuditHead } from '../../lib'
import { findInstalledPostgres } from '../support/installed-postgres'
import { blocksOf, readmeSection } from '../support/readme'

const run = promisify(execFile)

const programs = findInstalledPostgres()
const describeIfInstalled = programs ? describe : describe.skip

if (!programs) process.stderr.write('pg_dump is not installed: its recipes are left out.\n')

const permissions = ['READ_GRAPH'] as const
const secrets = ['a secret of the spec, 32 bytes or more']

let folder: string
let server: EmbeddedPostgres
let connections: Sequelize[]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'express-api-keys-restoring-'))
  server = await startPostgres({ folder, programs: programs ?? '', settings: { fsync: 'off' } })
})

afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})

beforeEach(() => {
  connections = []
})

afterEach(async () => {
  for (const connection of connections) await connection.close()
})

function addressOf(name: string): string {
  const url = new URL(server.url)
  url.pathname = `/${name}`
  return url.href
}

function connect(name: string) {
  const sequelize = new Sequelize(addressOf(name), { logging: false })
  connections.push(sequelize)
  return sequelize
}

async function createDatabase(name: string) {
  await connect('postgres').query(`CREATE DATABASE ${name}`)
  return connect(name)
}

function createInstance(sequelize: Sequelize) {
  return createApiKeys({
    sequelize,
    keyPrefix: 'agpt',
    permissions,
    secrets,
    users: { table: 'users' },
  })
}

const createUsers = 'CREATE TABLE users (id text PRIMARY KEY)'

/** Makes keys in every state, some of them changed by hand, with entries that are sealed and entries that are not. */
async function fill(name: string): Promise<{ plainTextKeys: string[]; head: AuditHead }> {
  const sequelize = await createDatabase(name)
  await sequelize.query(`${createUsers}; INSERT INTO users VALUES ('alice')`)
  const apiKeys = createInstance(sequelize)
  await apiKeys.migrate()
  const made = []
  for (const key of ['rotated', 'suspended', 'revoked', 'changed by hand', 'as it was made']) {
    made.push(await apiKeys.create({ userId: 'alice', name: key, permissions }))
  }
  const [rotated, suspended, revoked] = made.map(({ apiKey }) => apiKey.id)
  await apiKeys.rotate(rotated ?? '')
  await apiKeys.suspend(suspended ?? '')
  await apiKeys.revoke(revoked ?? '')
  await sequelize.query(`
    UPDATE api_keys SET description = 'x' WHERE name = 'changed by hand';
    INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
    VALUES ('alice', 'made by hand', 'agpt_abc123', 'abcdefgh', repeat('ab', 32), '{READ_GRAPH}')`)
  const head = await apiKeys.auditHead()
  await sequelize.transaction((transaction) =>
    apiKeys.create({ userId: 'alice', name: 'not sealed', permissions }, { transaction }),
  )
  await apiKeys.close()
  return { plainTextKeys: made.map(({ plainTextKey }) => plainTextKey), head }
}

/** Runs a recipe of the README. */
async function follow(recipe: string, addresses: { OLD: string; NEW: string }) {
  await run('/bin/sh', ['-e', '-c', recipe], {
    cwd: folder,
    env: { ...addresses, PATH: `${programs}:${process.env.PATH}` },
  })
}

describeIfInstalled('the recipes of the README for pg_dump and pg_restore', () => {
  const [whole = '', inParts = '', dataAlone = ''] = blocksOf(
    readmeSection('Moving and restoring a database'),
    'sh',
  )

  it.each<[string, string, (sequelize: Sequelize) => Promise<unknown>]>([
    ['the whole database', whole, async () => {}],
    ['the schema, then the data', inParts, async () => {}],
    [
      'the data alone, into tables that migrate() has made',
      dataAlone,
      async (sequelize) => {
        await sequelize.query(createUsers)
        await createInstance(sequelize).migrate()
      },
    ],
  ])('restore %s', async (title, recipe, prepare) => {
    const name = title.replaceAll(/\W+/g, '_').toLowerCase()
    const [OLD, NEW] = [addressOf(`old_${name}`), addressOf(`new_${name}`)]
    const { plainTextKeys, head } = await fill(`old_${name}`)
    const restored = await createDatabase(`new_${name}`)
    await prepare(restored)

    await follow(recipe, { OLD, NEW })
    const apiKeys = createInstance(restored)
    await apiKeys.migrate()

    const verdicts = await Promise.all(plainTextKeys.map((key) => apiKeys.verify(key)))
    const { feed } = await apiKeys.health()
    const { apiKey, plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'New',
      permissions,
    })
    const good = await apiKeys.verify(plainTextKey)
    await apiKeys.revoke(apiKey.id)
    const revoked = await apiKeys.verify(plainTextKey)
    const trail = await apiKeys.verifyAuditTrail({ head })
    await apiKeys.close()

    expect(verdicts.map((verdict) => (verdict.valid ? 'valid' : verdict.code))).toEqual([
      'valid',
      'suspended',
      'revoked',
      'valid',
      'valid',
    ])
    expect(feed).toBe('following')
    expect([good.valid, revoked.valid]).toEqual([true, false])
    expect(trail).toMatchObject({ isIntact: true, faults: [] })
  })
})
