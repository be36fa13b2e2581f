import { inspect } from 'node:util'

import express, { type Express, type RequestHandler } from 'express'
import { Passport } from 'passport'
import { Client } from 'pg'
import { QueryTypes, type Sequelize } from 'sequelize'
import request from 'supertest'

import { fromStoredHash } from '../../lib/keys/secret'
import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { sendRaw } from '../support/raw-http'
import { useWorld } from '../support/world'

const { database, createProcess } = useWorld()
let sequelize: Sequelize
let apiKeys: TestApiKeys
let app: Express
/** The log of Sequelize. */
let statements: string[]
/** The statements of every connection, Sequelize's and ours. */
let asked: jest.SpyInstance
/** The printed output. */
let printed: jest.SpyInstance[]
/** The lines of a logger for every finished request and for every refusal. */
let dumps: string[]

/** Everything in the answer to the creation. */
let answer: string
let id: string
let plainTextKey: string
let hash: string

beforeAll(async () => {
  const methods = ['log', 'info', 'warn', 'error', 'debug', 'dir', 'trace'] as const
  printed = [
    ...methods.map((method) => jest.spyOn(console, method)),
    jest.spyOn(process.stdout, 'write'),
    jest.spyOn(process.stderr, 'write'),
    jest.spyOn(process, 'emitWarning').mockImplementation(),
  ]
  asked = jest.spyOn(Client.prototype, 'query')
  statements = []
  dumps = []

  sequelize = database.connect({
    logging: (...given) => statements.push(dump(given)),
    logQueryParameters: true,
    benchmark: true,
  })
  ;({ apiKeys } = createProcess({ sequelize, header: 'X-API-Key' }))
  app = createLoggedApp(apiKeys)

  const created = await request(app)
    .post('/api-keys')
    .set('X-User', 'alice')
    .send({ name: 'Canary', permissions: ['READ_GRAPH'] })
  answer = created.text
  id = created.body.apiKey.id
  plainTextKey = created.body.plainTextKey
  const [row] = await sequelize.query<{ hash: string }>('SELECT hash FROM api_keys', {
    type: QueryTypes.SELECT,
    logging: false,
  })
  hash = String(row?.hash)
})

afterAll(async () => {
  for (const spy of [...printed, asked]) spy.mockRestore()
  await databaseAway.drop()
})

/** Returns everything that can be printed of a value. */
function dump(value: unknown) {
  return inspect(value, {
    depth: 20,
    showHidden: true,
    maxArrayLength: null,
    maxStringLength: null,
  })
}

const log: RequestHandler = (req, res, next) => {
  res.on('finish', () => dumps.push(dump(req)))
  next()
}

const show: RequestHandler = (req, res) => {
  res.json({ headers: req.headers, rawHeaders: req.rawHeaders })
}

/** An app that dumps every request at its end. */
function createLoggedApp(keys: TestApiKeys) {
  const passport = new Passport().use(keys.strategy)

  return express()
    .use(log)
    .use(
      createTestApp(keys, (app) => {
        app.get('/guard', keys.requirePermission('READ_GRAPH'), show)
        app.get('/masked', keys.maskKeys(), show)
        app.get('/optional', keys.authenticate({ optional: true }), show)
        app.get('/forbidden', keys.requirePermission('EXECUTE_GRAPH'), show)
        app.get('/passport', passport.authenticate('api-key'), show)
        app.get('/throws', keys.authenticate(), (req) => {
          throw Object.assign(new Error('mine'), { req })
        })
      }),
    )
}

/** True if a text shows 14 characters or more of the part of the key that lists do not show. */
function showsKey(text: string) {
  const hidden = plainTextKey.slice(11, -8)
  return [0, 5, 10, 15, 20, 25].some((at) => text.includes(hidden.slice(at, at + 10)))
}

/** True if a text shows the hash of the key in the form of the database or of the cache. */
function showsHash(text: string) {
  return [hash, dump(fromStoredHash(hash)).slice(1, -1)].some((form) => text.includes(form))
}

describe('the plain text of a key', () => {
  it('is in the answer to its creation, once', () => {
    expect(answer.split(plainTextKey)).toHaveLength(2)
    expect(showsKey(answer.replace(plainTextKey, ''))).toBe(false)
  })

  it.each<[string, string[]]>([
    ['accepted by a guard', ['GET /guard', 'Authorization: Bearer KEY']],
    ['accepted in the app’s own header', ['GET /guard', 'X-API-Key: KEY']],
    ['masked and not asked for', ['GET /masked', 'Authorization: Bearer KEY']],
    ['accepted by Passport', ['GET /passport', 'Authorization: bearer   KEY']],
    ['accepted where it is optional', ['GET /optional', 'Authorization: Bearer KEY']],
    ['accepted before a handler that throws', ['GET /throws', 'Authorization: Bearer KEY']],
    ['short of a permission', ['GET /forbidden', 'Authorization: Bearer KEY']],
    ['mistyped', ['GET /guard', 'Authorization: Bearer KEYx']],
    ['mistyped, to Passport', ['GET /passport', 'Authorization: Bearer KEYx']],
    ['mistyped, where it is optional', ['GET /optional', 'Authorization: Bearer KEYx']],
    ['without scheme', ['GET /guard', 'Authorization: KEY']],
    ['without scheme, to Passport', ['GET /passport', 'Authorization: KEY']],
    ['of another scheme', ['GET /guard', 'Authorization: Token token="KEY"']],
    ['in a template', ['GET /guard', 'Authorization: Bearer <KEY>']],
    ['twice in a line', ['GET /guard', 'Authorization: Bearer KEY, Bearer KEY']],
    ['twice', ['GET /guard', 'Authorization: Bearer KEY', 'Authorization: Bearer KEY']],
    ['behind a JWT', ['GET /guard', 'Authorization: Bearer a.b.c', 'Authorization: Bearer KEY']],
    ['in both headers', ['GET /guard', 'Authorization: Bearer KEY', 'X-API-Key: KEY']],
    ['to manage keys with', ['GET /api-keys', 'X-User: alice', 'Authorization: Bearer KEY']],
    ['to make keys with', ['POST /api-keys', 'X-User: alice', 'X-API-Key: KEY']],
    ['to administer with', ['GET /admin/api-keys', 'X-User: admin', 'X-API-Key: KEY']],
  ])('is in no answer and no dump of a request that carries it %s', async (_, lines) => {
    dumps.length = 0

    const [requestLine, ...headers] = lines.map((line) => line.replaceAll('KEY', plainTextKey))
    const { body } = await sendRaw(app, [`${requestLine} HTTP/1.1`, ...headers])

    expect(dumps.length).toBeGreaterThan(0)
    expect(showsKey(body)).toBe(false)
    for (const dump of dumps) {
      expect(dump).toContain(`${plainTextKey.slice(0, 11)}...`)
      expect(showsKey(dump)).toBe(false)
      expect(showsHash(dump)).toBe(false)
    }
  })

  it('is in no dump of a request that carries it after it was revoked, and neither is its hash', async () => {
    dumps.length = 0
    const revoked = await apiKeys.create({ userId: 'bob', name: 'x', permissions: ['READ_GRAPH'] })
    await apiKeys.revoke(revoked.apiKey.id)
    const [row] = await sequelize.query<{ hash: string }>(
      'SELECT hash FROM api_keys WHERE id = $1',
      { type: QueryTypes.SELECT, logging: false, bind: [revoked.apiKey.id] },
    )
    const form = dump(fromStoredHash(String(row?.hash))).slice(1, -1)

    const { status } = await request(app)
      .get('/guard')
      .set('Authorization', `Bearer ${revoked.plainTextKey}`)

    expect(status).toBe(401)
    expect(dumps.join()).toContain(revoked.apiKey.id)
    expect(dumps.join()).not.toContain(form)
    expect(dumps.join()).not.toContain(revoked.plainTextKey.slice(11, -8))
  })

  it('is in no answer and no dump of what its owner does with it', async () => {
    dumps.length = 0
    const alice = request.agent(app).set('X-User', 'alice')

    const answers = [
      await alice.get('/api-keys'),
      await alice.get(`/api-keys/${id}`),
      await alice.patch(`/api-keys/${id}`).send({ description: 'A bird.' }),
      await alice.put(`/api-keys/${id}/permissions`).send({ permissions: ['READ_BLOCK'] }),
      await alice.post(`/api-keys/${id}/suspend`),
      await alice.post(`/api-keys/${id}/reactivate`),
      await alice.get(`/api-keys/${id}/events`),
    ]

    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(showsKey(answers.map(({ text }) => text).join())).toBe(false)
    expect(dumps).toHaveLength(answers.length)
    expect(showsKey(dumps.join())).toBe(false)
  })

  it('is in no error, whatever goes wrong, and neither is its hash', async () => {
    const errors: unknown[] = []
    const onRefusal = (error: unknown, _req: unknown, res: { end(): void }) => {
      errors.push(error)
      res.end()
    }
    const slow = database.connect({ dialectOptions: { statement_timeout: 1 } })
    for (const keys of [
      createTestApiKeys(database, { onRefusal }),
      createTestApiKeys(databaseAway, { onRefusal }),
      createTestApiKeys(database, { schema: 'unmigrated', onRefusal }),
      // Then the hash is in the text of the statement.
      createTestApiKeys(database, { sequelize: slow, preparedStatements: false, onRefusal }),
    ]) {
      const app = createTestApp(keys, (app) => {
        app.get('/', keys.requirePermission('EXECUTE_GRAPH'))
      })
      app.use((error: unknown, _req: unknown, res: { end(): void }, _next: unknown) => {
        errors.push(error)
        res.end()
      })
      for (const sent of [`Bearer ${plainTextKey}`, `Bearer ${plainTextKey}x`, plainTextKey]) {
        await request(app).get('/').set('Authorization', sent)
        await keys.verify(sent).catch((error: unknown) => errors.push(error))
      }
    }

    const shown = errors.map((error) => dump(error) + String((error as Error).stack)).join()
    expect(errors.length).toBeGreaterThanOrEqual(9)
    expect(shown).toContain('statement timeout')
    expect(showsKey(shown)).toBe(false)
    expect(showsHash(shown)).toBe(false)
  })

  it('is in no column of any table', async () => {
    const tables = await sequelize.query<{ schema: string; name: string }>(
      `SELECT table_schema AS schema, table_name AS name FROM information_schema.tables
        WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')`,
      { type: QueryTypes.SELECT },
    )
    const rows: string[] = []
    for (const { schema, name } of tables) {
      const found = await sequelize.query<{ row: string }>(
        `SELECT t::text AS row FROM "${schema}"."${name}" AS t`,
        { type: QueryTypes.SELECT },
      )
      rows.push(...found.map(({ row }) => row))
    }

    expect(tables.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['api_keys', 'api_key_events', 'api_key_migrations']),
    )
    // The ends of the key are there, in its row and in the entry of its creation. So the search works.
    expect(rows.filter((row) => row.includes(plainTextKey.slice(0, 11)))).toHaveLength(2)
    expect(rows.filter((row) => row.includes(id)).length).toBeGreaterThan(5)
    expect(showsKey(rows.join())).toBe(false)
  })

  it('is in no audit entry', async () => {
    const { events } = await apiKeys.events({ apiKeyId: id })

    expect(events.map(({ action }) => action)).toContain('created')
    expect(showsKey(dump(events) + JSON.stringify(events))).toBe(false)
  })

  it('is in no log of Sequelize, its options and parameters included, nor is its hash', () => {
    expect(statements.some((statement) => statement.includes('INSERT INTO'))).toBe(true)
    expect(showsKey(statements.join())).toBe(false)
    expect(showsHash(statements.join())).toBe(false)
  })

  it('is in no statement or parameter that any connection was asked', () => {
    const calls = dump(
      asked.mock.calls.map(([statement, values]: unknown[]) => [statement, values]),
    )

    // The hash is in the statements that create and look up the key. So the search works.
    expect(showsHash(calls)).toBe(true)
    expect(calls).toContain('key.hash = ANY')
    expect(showsKey(calls)).toBe(false)
  })

  it('is in nothing that was printed: warnings of a database that is away or cancels statements', () => {
    const calls: unknown[][] = printed.flatMap(({ mock }) => mock.calls)

    expect(showsKey(dump(calls))).toBe(false)
    expect(showsHash(dump(calls))).toBe(false)
    const codes = ['API_KEYS_DATABASE_UNAVAILABLE', 'API_KEYS_STATEMENT_TIMEOUT']
    const warnings = calls.map(([, options]) => options as { type: string; code: string })
    expect(new Set(warnings.map(({ type }) => type))).toEqual(new Set(['ApiKeysWarning']))
    expect(new Set(warnings.map(({ code }) => code))).toEqual(new Set(codes))
  })
})

describe('a credential that is no key of the library', () => {
  it.each([
    'Authorization: Bearer eyJ0eXAi.agpt_x.c2ln',
    'Authorization: Basic YWxpY2U6c2VjcmV0',
    'Authorization: Digest username="alice", uri="/agpt_1"',
    'X-API-Key: sk_live_123',
    'Cookie: session=agpt_1',
    'X-Other: agpt_1',
  ])('is in the request as it came: %s', async (line) => {
    const colon = line.indexOf(':')
    const [name, value] = [line.slice(0, colon), line.slice(colon + 2)]

    const app = express().use(apiKeys.authenticate({ optional: true }), show)

    const { body } = await sendRaw(app, ['GET / HTTP/1.1', line])

    const { headers, rawHeaders } = JSON.parse(body)
    expect(headers[name.toLowerCase()]).toBe(value)
    expect(rawHeaders.slice(0, 2)).toEqual([name, value])
  })
})
