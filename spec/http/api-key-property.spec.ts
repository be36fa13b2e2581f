import express, { type Request, type RequestHandler } from 'express'

import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld()

let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

/** Shows whose key a request has, by both ways of asking. */
const show: RequestHandler = (req, res) => {
  res.json({ property: req.apiKey?.userId ?? null, known: knownUserId(req) })
}

function knownUserId(req: Request) {
  try {
    return apiKeys.getApiKey(req).userId
  } catch {
    return null
  }
}

const alice = { property: 'alice', known: 'alice' }
const nothing = { property: null, known: null }

describe('req.apiKey in an Express app', () => {
  it('is undefined on requests that no guard has accepted, although the requests of the app have the property', async () => {
    const isIn: boolean[] = []
    const app = express().get('/guarded', apiKeys.authenticate(), show)
    app.get('/open', (req, res, next) => {
      isIn.push('apiKey' in req, Object.hasOwn(req, 'apiKey'))
      show(req, res, next)
    })

    const guarded = await http.to(app).with(plainTextKey).get('/guarded')
    const open = await http.to(app).with(plainTextKey).get('/open')

    expect([guarded.body, open.body]).toEqual([alice, nothing])
    expect(isIn).toEqual([true, false])
  })

  it('is on the requests of that app alone, and never on those of Express', async () => {
    const app = express().get('/', apiKeys.authenticate(), show)
    const other = express().get('/', (req, res) => {
      res.json('apiKey' in req)
    })

    const answer = await http.to(app).with(plainTextKey).get('/')
    const elsewhere = await http.to(other).with(plainTextKey).get('/')

    expect(answer.body).toEqual(alice)
    expect(elsewhere.body).toBe(false)
    expect('apiKey' in express.request).toBe(false)
  })

  it('reaches the routes of an app that is mounted behind the guard', async () => {
    const inner = express().get('/page', show)
    const middle = express().use('/inner', inner)
    const app = express().use(apiKeys.authenticate()).use('/middle', middle).get('/page', show)

    const mounted = await http.to(app).with(plainTextKey).get('/middle/inner/page')
    const own = await http.to(app).with(plainTextKey).get('/page')

    expect([mounted.body, own.body]).toEqual([alice, alice])
  })

  it('reaches the routes behind a mounted app that has the guard', async () => {
    const inner = express().use(apiKeys.authenticate())
    const app = express().use(express().use(inner)).get('/page', show)

    const answer = await http.to(app).with(plainTextKey).get('/page')

    expect(answer.body).toEqual(alice)
  })

  it('is the value that the app puts there behind a guard, and then a property of the request', async () => {
    const app = express().get('/', apiKeys.authenticate(), (req, res) => {
      const userId = apiKeys.getApiKey(req).userId
      Object.assign(req, { apiKey: 'partner' })
      res.json([req.apiKey, Object.keys(req).includes('apiKey'), userId])
    })

    const first = await http.to(app).with(plainTextKey).get('/')
    const second = await http.to(app).with(plainTextKey).get('/')

    expect([first.body, second.body]).toEqual([
      ['partner', true, 'alice'],
      ['partner', true, 'alice'],
    ])
  })

  it('stays the property that the app has defined for all of its requests', async () => {
    const app = express().get('/', apiKeys.authenticate(), (req, res) => {
      res.json([req.apiKey, apiKeys.getApiKey(req).userId])
    })
    Object.defineProperty(app.request, 'apiKey', { get: () => 'partner', configurable: true })

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.body).toEqual(['partner', 'alice'])
  })

  it('is on each request if the prototype of requests takes no property', async () => {
    const app = express().get('/', apiKeys.authenticate(), show)
    Object.preventExtensions(app.request)

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.body).toEqual(alice)
  })

  it('is the key of the latest instance that has accepted one', async () => {
    const other = createProcess({ keyPrefix: 'acme', header: 'X-Other' }).apiKeys
    const bob = await other.create({ userId: 'bob', name: 'x', permissions: ['READ_GRAPH'] })
    const app = express().get('/', apiKeys.authenticate({ optional: true }))
    app.get('/', (req, _res, next) => {
      // Otherwise the owners of the two keys are two users at once.
      req.user = undefined
      next()
    })
    app.get('/', other.authenticate({ optional: true }), show)

    const both = await http.to(app).with(plainTextKey).get('/').set('X-Other', bob.plainTextKey)
    const first = await http.to(app).with(plainTextKey).get('/')

    expect(both.body).toEqual({ property: 'bob', known: 'alice' })
    expect(first.body).toEqual(alice)
  })

  it('is missing in a copy of a request', async () => {
    const app = express().get('/', apiKeys.authenticate(), (req, res) => {
      res.json({ ...{ ...req }.apiKey, inherited: Object.create(req).apiKey.userId })
    })

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.body).toEqual({ inherited: 'alice' })
  })
})
