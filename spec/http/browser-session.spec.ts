import express, { type Express, type RequestHandler } from 'express'
import session, { MemoryStore } from 'express-session'
import { Passport, type AuthenticateCallback } from 'passport'
import request from 'supertest'

import { bearer } from '../support/http'
import { useWorld } from '../support/world'

const { apiKeys, createKey } = useWorld({
  options: { currentUser: undefined, isAdmin: undefined },
})
let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

describe('a browser session', () => {
  const pathsOfKeys = [
    '/graphs',
    '/account',
    '/callback',
    '/callback-alias',
    '/callback/later',
    '/callback-alias/later',
    '/callback-sessionless',
    '/callback-sessionless/later',
  ]
  let store: MemoryStore
  let app: Express

  beforeEach(() => {
    store = new MemoryStore()
    const passport = new Passport().use(apiKeys.strategy)
    passport.serializeUser((user, done) => done(null, Object(user).id))
    passport.deserializeUser((id, done) => done(null, { id: String(id) }))

    app = express()
    app.use(session({ secret: 'spec', store, resave: false, saveUninitialized: false }))
    app.use(passport.session())
    app.get('/who', (req, res) => {
      res.json(req.user ?? null)
    })
    app.post('/cart', (req, res) => {
      Object.assign(req.session, { cart: ['apple'] })
      res.json(null)
    })
    app.get('/cart', (req, res) => {
      res.json(Object(req.session).cart)
    })
    app.post('/sign-in/:id', (req, res, next) => {
      req.logIn({ id: req.params.id }, (error) => (error ? next(error) : res.json(null)))
    })
    app.use('/graphs', passport.authenticate('api-key'), (req, res) => {
      res.json(req.user)
    })
    app.use('/account', passport.authorize('api-key'), (req, res) => {
      res.json(Object(req).account)
    })
    for (const [path, logIn, options] of [
      ['/callback', 'logIn', {}],
      ['/callback-alias', 'login', {}],
      ['/callback-sessionless', 'logIn', { session: false }],
    ] as const) {
      app.use(path, (req, res, next) => {
        const callback: AuthenticateCallback = (error, user) => {
          if (error || !user) return next(error)
          const answer = () =>
            req[logIn](user, (error) => (error ? next(error) : res.json(req.user)))
          return req.path === '/later' ? setImmediate(answer) : answer()
        }
        const authenticate: RequestHandler = passport.authenticate('api-key', options, callback)
        authenticate(req, res, next)
      })
    }
    app.use('/exchange', passport.authenticate('api-key'), (req, res, next) => {
      req.logIn({ id: 'bob' }, (error) => (error ? next(error) : res.json(req.user)))
    })
  })

  async function countSessions() {
    const sessions = await new Promise<object>((resolve, reject) => {
      store.all((error, all) => (error ? reject(error) : resolve(all ?? {})))
    })
    return Object.keys(sessions).length
  }

  it.each(pathsOfKeys)(
    'is not started by a key, so that no cookie is set and the next request is anonymous: %s',
    async (path) => {
      const agent = request.agent(app)

      const first = await agent.get(path).set(bearer(plainTextKey))
      const next = await agent.get('/who')

      expect(first.status).toBe(200)
      expect(first.body).toEqual({ id: 'alice' })
      expect(first.headers).not.toHaveProperty('set-cookie')
      expect(next.body).toBeNull()
      expect(await countSessions()).toBe(0)
    },
  )

  it.each(pathsOfKeys)('stays the same if it exists already: %s', async (path) => {
    const agent = request.agent(app)
    await agent.post('/cart')

    const first = await agent.get(path).set(bearer(plainTextKey))
    const who = await agent.get('/who')
    const cart = await agent.get('/cart')

    expect(first.body).toEqual({ id: 'alice' })
    expect(first.headers).not.toHaveProperty('set-cookie')
    expect(who.body).toBeNull()
    expect(cart.body).toEqual(['apple'])
  })

  it('of the owner of the key goes on beside the key', async () => {
    const agent = request.agent(app)
    await agent.post('/sign-in/alice')

    const first = await agent.get('/graphs').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.status).toBe(200)
    expect(next.body).toEqual({ id: 'alice' })
  })

  it('of another user is a second credential, and outlives the refusal', async () => {
    const agent = request.agent(app)
    await agent.post('/sign-in/bob')

    const first = await agent.get('/graphs').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.status).toBe(400)
    expect(next.body).toEqual({ id: 'bob' })
  })

  it('is still started if the app signs in another user', async () => {
    const agent = request.agent(app)

    const first = await agent.get('/exchange').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.body).toEqual({ id: 'bob' })
    expect(first.headers).toHaveProperty('set-cookie')
    expect(next.body).toEqual({ id: 'bob' })
  })
})
