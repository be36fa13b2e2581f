import express, { type NextFunction, type Request, type RequestHandler } from 'express'
import { Passport } from 'passport'

import { createApiKeys, type Owner } from '../../lib'
import { createDatabase, type Database } from '../support/database'
import { createHttp } from '../support/http'
import { expectProblem } from '../support/problem'

type Keys = ReturnType<typeof createInstance>

let database: Database
let apiKeys: Keys

const user = { type: 'user', id: 7 } as const
const organization = { type: 'organization', id: 7 } as const
const service = { type: 'service', id: '7' } as const
const others = [organization, service]

/** A guest, who is on the request but not signed in. */
const guest = { id: 'anonymous', guest: true }

function createInstance(loadOwner?: (owner: Owner) => object | null | undefined) {
  const created = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions: ['READ_GRAPH'],
    users: { table: 'users', type: 'integer' },
    organizations: { table: 'organizations', type: 'integer' },
    services: true,
    currentUser: ({ user }: Request): { id: number } | null => {
      const present = user as typeof guest | { id: number } | undefined
      return present && !('guest' in present) ? present : null
    },
    // The types of the specs take an object of any kind for a user.
    loadOwner: loadOwner as never,
  })
  database.closeFirst(created)
  return created
}

beforeAll(async () => {
  database = await createDatabase('empty')
  await database.connect().query(`
    CREATE TABLE users (id integer PRIMARY KEY);
    INSERT INTO users VALUES (7), (8);
    CREATE TABLE organizations (id integer PRIMARY KEY);
    INSERT INTO organizations VALUES (7)`)
  apiKeys = createInstance()
  await apiKeys.migrate()
})

afterAll(() => database.drop())

async function createKey(owner: typeof user | typeof organization | typeof service) {
  const { plainTextKey } = await apiKeys.create({ owner, name: 'CI', permissions: ['READ_GRAPH'] })
  return plainTextKey
}

/** The callers of an app that shows `req.user` behind these middlewares, and says if there is none. */
function createApp(...middlewares: RequestHandler[]) {
  const app = express()
  app.use(...middlewares, (_req, _res, next) => next())
  app.use((req, res) => {
    res.json({ user: req.user === undefined ? 'unset' : req.user, owner: req.apiKey?.owner })
  })
  return createHttp(() => app)
}

/** The app's own sign-in. */
function signIn(user: object): RequestHandler {
  return function signInUser(req: Request, _res, next: NextFunction) {
    req.user = user
    next()
  }
}

describe('req.user behind a guard', () => {
  it.each(others)('is unset for a key of an owner of the type $type', async (owner) => {
    const key = await createKey(owner)

    for (const guard of [apiKeys.requirePermission('READ_GRAPH'), apiKeys.authenticate()]) {
      const answer = await createApp(guard, guard).with(key).get('/')

      expect(answer.status).toBe(200)
      expect(answer.body).toEqual({ user: 'unset', owner })
    }
  })

  it.each([user, ...others])('is the object that loadOwner returns for $type', async (owner) => {
    const key = await createKey(owner)
    const asked: Owner[] = []
    const keys = createInstance((loaded) => {
      asked.push(loaded)
      return { name: loaded.type }
    })

    const answer = await createApp(keys.authenticate(), keys.authenticate()).with(key).get('/')

    expect(answer.body).toEqual({ user: { name: owner.type }, owner })
    expect(asked).toEqual([owner])
  })

  it.each([null, undefined])('is unset for them if loadOwner returns %s', async (nothing) => {
    const keys = createInstance(() => nothing)
    const app = createApp(keys.authenticate(), keys.requirePermission('READ_GRAPH'))

    for (const owner of others) {
      const answer = await app.with(await createKey(owner)).get('/')
      expect(answer.status).toBe(200)
      expect(answer.body).toEqual({ user: 'unset', owner })
    }
    expectProblem(await app.with(await createKey(user)).get('/'), 'invalid_api_key')
  })

  it.each(others)(
    'makes two credentials beside a key of the type $type, whoever is signed in',
    async (owner) => {
      const key = await createKey(owner)
      const guard = apiKeys.requirePermission('READ_GRAPH')

      // 7 has the id of the owner, and 8 has not.
      for (const signedIn of [signIn({ id: 7 }), signIn({ id: 8 }), signIn({ id: '7' })]) {
        expectProblem(await createApp(signedIn, guard).with(key).get('/'), 'multiple_credentials')
        expectProblem(
          await createApp(guard, signedIn, guard).with(key).get('/'),
          'multiple_credentials',
        )
      }
      const own = await createApp(signIn({ id: 7 }), guard)
        .with(await createKey(user))
        .get('/')
      expect(own.body).toEqual({ user: { id: 7 }, owner: user })
    },
  )

  it.each(others)('is unset in place of a guest for a key of the type $type', async (owner) => {
    const key = await createKey(owner)
    const guard = apiKeys.requirePermission('READ_GRAPH')
    const keys = createInstance(({ type }) => ({ name: type }))

    const before = await createApp(signIn(guest), guard).with(key).get('/')
    const between = await createApp(guard, signIn(guest), guard).with(key).get('/')
    const loaded = await createApp(signIn(guest), keys.authenticate()).with(key).get('/')

    expect(before.body).toEqual({ user: 'unset', owner })
    expect(between.body).toEqual({ user: 'unset', owner })
    expect(loaded.body).toEqual({ user: { name: owner.type }, owner })
  })
})

/** A middleware of a Passport with the strategy of an instance. */
function createPassport(keys: Keys) {
  return new Passport().use(keys.strategy).authenticate('api-key')
}

describe('req.user by Passport', () => {
  it.each(others)('is { owner } without an id for a key of the type $type', async (owner) => {
    const key = await createKey(owner)
    const passport = createPassport(apiKeys)

    const alone = await createApp(passport).with(key).get('/')
    const guarded = await createApp(passport, apiKeys.requirePermission('READ_GRAPH'))
      .with(key)
      .get('/')

    for (const answer of [alone, guarded]) {
      expect(answer.status).toBe(200)
      expect(answer.body).toEqual({ user: { owner }, owner })
    }
  })

  it('is what loadOwner returns for any owner, and refuses a user who is gone', async () => {
    const loading = createPassport(createInstance(({ type }) => ({ name: type })))
    const empty = createPassport(createInstance(() => null))

    for (const owner of others) {
      const key = await createKey(owner)
      const loaded = await createApp(loading).with(key).get('/')
      const unknown = await createApp(empty).with(key).get('/')
      expect(loaded.body).toEqual({ user: { name: owner.type }, owner })
      expect(unknown.body).toEqual({ user: { owner }, owner })
    }
    const gone = await createApp(empty)
      .with(await createKey(user))
      .get('/')
    expect(gone.status).toBe(401)
  })

  it.each(others)('is refused beside a user who is signed in: a key of $type', async (owner) => {
    const app = createApp(signIn({ id: 7 }), createPassport(apiKeys))

    const answer = await app.with(await createKey(owner)).get('/')

    // Passport writes its own text.
    expect([answer.status, answer.text]).toEqual([400, 'Bad Request'])
  })
})
