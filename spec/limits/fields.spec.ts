import express, { type RequestHandler } from 'express'
import { Passport } from 'passport'
import { parseList } from 'structured-headers'
import request from 'supertest'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
let headers: { Authorization: string }

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, { limits: { burst: { limit: 5, windowSeconds: 3_600 } } })
})

beforeEach(async () => {
  const { plainTextKey } = await apiKeys.create(newKey())
  headers = { Authorization: `Bearer ${plainTextKey}` }
})

afterAll(() => database.drop())

const theirs = {
  'RateLimit-Policy': '"a, \\"b\\""; q=100; w=900; pk=:YWJj:',
  RateLimit: '"a, \\"b\\""; r=99; t=900',
}

/** Another limiter of the app, before the guard or behind it. */
const limitByAddress: RequestHandler = (_req, res, next) => {
  res.append('RateLimit-Policy', theirs['RateLimit-Policy'])
  res.append('RateLimit', theirs.RateLimit)
  next()
}

const end: RequestHandler = (_req, res) => {
  res.end()
}

/** The names that a parser of structured fields finds in a field. */
const namesIn = (field: string | undefined) => parseList(String(field)).map(([name]) => name)

describe('the fields of limits', () => {
  it.each<[string, () => RequestHandler[]]>([
    ['before a guard', () => [limitByAddress, apiKeys.authenticate()]],
    [
      'before several guards',
      () => [limitByAddress, apiKeys.authenticate(), apiKeys.requirePermission('READ_GRAPH')],
    ],
  ])('keep the fields of another limiter %s', async (_, middlewares) => {
    const app = express().get('/', ...middlewares(), end)

    const answer = await request(app).get('/').set(headers)

    expect(answer.headers['ratelimit-policy']).toBe(
      `${theirs['RateLimit-Policy']}, "burst";q=5;w=3600`,
    )
    expect(answer.headers.ratelimit).toMatch(/^"a, \\"b\\""; r=99; t=900, "burst";r=4;t=\d+$/)
    expect(namesIn(answer.headers.ratelimit)).toEqual(['a, "b"', 'burst'])
  })

  it('name each limit once, even if another limiter writes last', async () => {
    const app = express().get('/', apiKeys.authenticate(), limitByAddress, async (req, res) => {
      await apiKeys.consume(req, 2)
      await apiKeys.consume(req, 1)
      res.end()
    })

    const answer = await request(app).get('/').set(headers)

    expect(namesIn(answer.headers['ratelimit-policy'])).toEqual(['a, "b"', 'burst'])
    expect(answer.headers.ratelimit).toMatch(/, "burst";r=1;t=\d+$/)
  })

  it.each<[string, () => RequestHandler]>([
    ['a guard', () => apiKeys.requirePermission('READ_GRAPH', { cost: 6 })],
    [
      'the strategy',
      () => new Passport().use(apiKeys.strategy).authenticate('api-key') as RequestHandler,
    ],
  ])('keep it in a refusal by %s', async (name, refuse) => {
    const uses = name === 'the strategy' ? 5 : 0
    const app = express().get('/', limitByAddress, refuse(), end)
    for (let use = 0; use < uses; use++) await request(app).get('/').set(headers)

    const answer = await request(app).get('/').set(headers)

    expect(answer.status).toBe(429)
    expect(namesIn(answer.headers['ratelimit-policy'])).toEqual(['a, "b"', 'burst'])
    expect(namesIn(answer.headers.ratelimit)).toEqual(['a, "b"', 'burst'])
  })

  it('keep an entry that is no list of limits, for example of an older draft', async () => {
    const older = 'limit=100, remaining=99, reset=900'
    const app = express().get(
      '/',
      (_req, res, next) => {
        res.set('RateLimit', older)
        next()
      },
      apiKeys.authenticate(),
      end,
    )

    const answer = await request(app).get('/').set(headers)

    expect(answer.headers.ratelimit).toMatch(/^limit=100, remaining=99, reset=900, "burst";r=4;/)
  })
})
