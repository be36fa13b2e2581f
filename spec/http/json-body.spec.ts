import { gzipSync } from 'node:zlib'

import express, { type Express, type RequestHandler } from 'express'
import request from 'supertest'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { sendRaw } from '../support/raw-http'

const maxBytes = 32 * 1024

let apiKeys: TestApiKeys

beforeAll(() => {
  apiKeys = createTestApiKeys(databaseAway)
})

/** An app whose parsers run before the router, signed in as alice. */
function createApp(...parsers: RequestHandler[]): Express {
  const app = express()
  app.use(...parsers, (_req, _res, next) => next())
  app.use('/api-keys', apiKeys.router())
  return app
}

/** Creates a key. Without a database, the request comes no further than to the rules. */
function post(app: Express) {
  return request(app).post('/api-keys').set('X-User', 'alice')
}

/** The faults of an empty JSON object. */
const nothingInside = [
  { pointer: '#/name', message: 'is required' },
  { pointer: '#/permissions', message: 'is required' },
]

const unsupportedMediaType = {
  title: 'Unsupported Media Type',
  status: 415,
  detail: 'The body must be JSON in UTF-8, with the header: Content-Type: application/json.',
  code: 'unsupported_media_type',
}

const malformedJson = {
  title: 'Bad Request',
  status: 400,
  detail: 'The body is not valid JSON.',
  code: 'malformed_json',
}

const bodyTooLarge = {
  title: 'Payload Too Large',
  status: 413,
  detail: 'The body is larger than 32 kB.',
  code: 'body_too_large',
}

describe('a body', () => {
  it.each([
    'application/json',
    'APPLICATION/JSON',
    'application/json; charset=utf-8',
    'application/json;charset="UTF-8"',
    'application/merge-patch+json',
    'application/vnd.example+json; charset=utf-8',
  ])('is read as JSON if its type says so: %s', async (type) => {
    const answer = await post(createApp()).set('Content-Type', type).send('{"nonsense":true}')

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toContainEqual({
      pointer: '#/nonsense',
      message: 'is not known here',
    })
  })

  it.each([
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/plain',
    'text/plain; application/json',
    'text/json',
    'application/jsonp',
    'application/json-seq',
    'application/xml',
    'json',
    'application/json, text/plain',
    'application/json; charset=latin1',
    'application/json; charset=nonsense',
  ])('is refused unread if it has another type: %s', async (type) => {
    const answer = await post(createApp()).set('Content-Type', type).send('{"name":"CI"}')

    expect(answer.status).toBe(415)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(answer.text).toBe(JSON.stringify(unsupportedMediaType))
  })

  it('is refused unread if it has no type', async () => {
    const answer = await sendRaw(
      createApp(),
      ['POST /api-keys HTTP/1.1', 'X-User: alice', 'Content-Length: 2'],
      '{}',
    )

    expect(answer.status).toBe(415)
    expect(answer.body).toBe(JSON.stringify(unsupportedMediaType))
  })

  it.each(['compress', 'x-nonsense', 'gzip, gzip'])(
    'is refused in an unknown encoding: %s',
    async (encoding) => {
      const answer = await post(createApp())
        .type('json')
        .set('Content-Encoding', encoding)
        .send('{}')

      expect(answer.status).toBe(415)
      expect(answer.text).toBe(JSON.stringify(unsupportedMediaType))
    },
  )

  it.each(['{', '{"name":}', "{'name':1}", '{} {}', 'nonsense', ' ', '\0'])(
    'is refused if it is no JSON: %j',
    async (text) => {
      const answer = await post(createApp()).type('json').send(text)

      expect(answer.status).toBe(400)
      expect(answer.text).toBe(JSON.stringify(malformedJson))
    },
  )

  it.each<[string, RequestHandler[]]>([
    ['by us', []],
    ['by a parser of the app that keeps it as it came', [express.raw({ type: '*/*' })]],
  ])('is refused if it is not UTF-8, read %s', async (_, parsers) => {
    const body = Buffer.from('{"name":"caf\u00e9"}', 'latin1')

    const answer = await sendRaw(
      createApp(...parsers),
      [
        'POST /api-keys HTTP/1.1',
        'X-User: alice',
        'Content-Type: application/json',
        `Content-Length: ${body.length}`,
      ],
      body,
    )

    expect(answer.status).toBe(400)
    expect(answer.body).toBe(JSON.stringify(malformedJson))
  })

  it('is refused if it is not encoded as its Content-Encoding says', async () => {
    const answer = await sendRaw(
      createApp(),
      [
        'POST /api-keys HTTP/1.1',
        'X-User: alice',
        'Content-Type: application/json',
        'Content-Encoding: gzip',
        'Content-Length: 2',
      ],
      '{}',
    )

    expect(answer.status).toBe(400)
    expect(answer.body).toBe(JSON.stringify(malformedJson))
  })

  it.each(['[]', 'null', 'true', '7', '"text"'])(
    'is invalid input if it is JSON, but no object: %s',
    async (text) => {
      const answer = await post(createApp()).type('json').send(text)

      expect(answer.status).toBe(422)
      expect(answer.body).toMatchObject({
        detail: 'The input breaks the rules: it must be a JSON object',
        errors: [{ pointer: '#', message: 'must be a JSON object' }],
      })
    },
  )

  it.each<[string, string[], string]>([
    ['no body', [], ''],
    ['a body of no bytes', ['Content-Length: 0'], ''],
    ['a form of no bytes', ['Content-Length: 0', 'Content-Type: text/plain'], ''],
    ['no chunks', ['Content-Type: application/json', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
  ])('may be left out: %s', async (_, lines, body) => {
    const answer = await sendRaw(
      createApp(),
      ['POST /api-keys HTTP/1.1', 'X-User: alice', ...lines],
      body,
    )

    expect(answer.status).toBe(422)
    expect(JSON.parse(answer.body).errors).toEqual(nothingInside)
  })

  const chunked = ['X-User: alice', 'Transfer-Encoding: chunked']

  it.each<[string, string[], RequestHandler[]]>([
    ['of no type', [], []],
    ['of another type', ['Content-Type: text/plain'], []],
    ['read as text before', ['Content-Type: text/plain'], [express.text()]],
    ['read as bytes before', [], [express.raw({ type: () => true })]],
    [
      'read as JSON as it came',
      ['Content-Type: application/json'],
      [express.text({ type: '*/*' })],
    ],
    [
      'read as a form before',
      ['Content-Type: application/x-www-form-urlencoded'],
      [express.urlencoded({ extended: true })],
    ],
  ])('may be left out in no chunks %s', async (_, lines, parsers) => {
    const app = createApp(...parsers)
    const created = await sendRaw(
      app,
      ['POST /api-keys HTTP/1.1', ...chunked, ...lines],
      '0\r\n\r\n',
    )
    const deleted = await sendRaw(
      app,
      ['DELETE /api-keys/00000000-0000-4000-8000-000000000000 HTTP/1.1', ...chunked, ...lines],
      '0\r\n\r\n',
    )

    expect(created.status).toBe(422)
    expect(JSON.parse(created.body).errors).toEqual(nothingInside)
    // The request has come as far as the database, which is out of reach.
    expect(deleted.status).toBe(503)
  })

  it.each<[string, string[], RequestHandler[]]>([
    ['of no type', [], []],
    ['of another type', ['Content-Type: text/plain'], []],
    ['read as text before', ['Content-Type: text/plain'], [express.text()]],
    [
      'read as a form before',
      ['Content-Type: application/x-www-form-urlencoded'],
      [express.urlencoded({ extended: true })],
    ],
  ])('is refused in chunks %s', async (_, lines, parsers) => {
    const answer = await sendRaw(
      createApp(...parsers),
      ['DELETE /api-keys/none HTTP/1.1', ...chunked, ...lines],
      chunk('{}'),
    )

    expect(answer.status).toBe(415)
    expect(answer.body).toBe(JSON.stringify(unsupportedMediaType))
  })
})

describe('a body of 32 kB', () => {
  const fits = `{${' '.repeat(maxBytes - 2)}}`
  const tooLarge = `{${' '.repeat(maxBytes - 1)}}`
  const json = ['POST /api-keys HTTP/1.1', 'X-User: alice', 'Content-Type: application/json']

  it('is read', async () => {
    const plain = await post(createApp()).type('json').send(fits)
    const chunked = await sendRaw(createApp(), [...json, 'Transfer-Encoding: chunked'], chunk(fits))
    const zipped = gzipSync(fits)
    const gzip = await sendRaw(createApp(), gzipHead(zipped), zipped)

    expect([plain.status, chunked.status, gzip.status]).toEqual([422, 422, 422])
    expect(plain.body.errors).toEqual(nothingInside)
  })

  it('is refused with one byte more', async () => {
    const answer = await post(createApp()).type('json').send(tooLarge)

    expect(answer.status).toBe(413)
    expect(answer.text).toBe(JSON.stringify(bodyTooLarge))
  })

  it('is refused with one byte more in chunks', async () => {
    const lines = [...json, 'Transfer-Encoding: chunked']

    const answer = await sendRaw(createApp(), lines, chunk(tooLarge))

    expect(answer.status).toBe(413)
    expect(answer.body).toBe(JSON.stringify(bodyTooLarge))
  })

  it('is refused if a few bytes of gzip become too many bytes', async () => {
    const bomb = gzipSync(`{"name":"${'x'.repeat(10_000_000)}"}`)
    expect(bomb.length).toBeLessThan(maxBytes)

    const answer = await sendRaw(createApp(), gzipHead(bomb), bomb)

    expect(answer.status).toBe(413)
    expect(answer.body).toBe(JSON.stringify(bodyTooLarge))
  })

  it('is refused with more, even if a parser of the app has read it', async () => {
    const answer = await post(createApp(express.json({ limit: '1mb' })))
      .type('json')
      .send(tooLarge)

    expect(answer.status).toBe(413)
    expect(answer.text).toBe(JSON.stringify(bodyTooLarge))
  })

  function gzipHead({ length }: Buffer) {
    return [...json, 'Content-Encoding: gzip', `Content-Length: ${length}`]
  }
})

function chunk(text: string) {
  return `${text.length.toString(16)}\r\n${text}\r\n0\r\n\r\n`
}

describe('a body that a parser of the app has read', () => {
  it('counts if it was JSON', async () => {
    const answer = await post(createApp(express.json())).send({ name: 'CI', nonsense: true })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/permissions', message: 'is required' },
      { pointer: '#/nonsense', message: 'is not known here' },
    ])
  })

  it.each(['application/x-www-form-urlencoded', 'text/plain', 'application/x-pretends'])(
    'does not pass for JSON if it was no JSON: %s',
    async (type) => {
      const app = createApp(
        express.json({ type: 'application/x-pretends' }),
        express.urlencoded({ extended: true }),
        express.text(),
      )

      const answer = await post(app).set('Content-Type', type).send('{"name":"CI"}')

      expect(answer.status).toBe(415)
      expect(answer.text).toBe(JSON.stringify(unsupportedMediaType))
    },
  )

  it.each([
    ['text', express.text({ type: '*/*' })],
    ['bytes', express.raw({ type: '*/*' })],
  ])('counts if it was kept as %s', async (_, parser) => {
    const answer = await post(createApp(parser)).send({ name: 'CI', nonsense: true })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/permissions', message: 'is required' },
      { pointer: '#/nonsense', message: 'is not known here' },
    ])
  })

  it.each([
    ['text', express.text({ type: '*/*' })],
    ['bytes', express.raw({ type: '*/*' })],
  ])('is refused if it was kept as %s and is no JSON', async (_, parser) => {
    const answer = await post(createApp(parser)).type('json').send('{"name":')

    expect(answer.status).toBe(400)
    expect(answer.text).toBe(JSON.stringify(malformedJson))
  })
})
