import { readFile } from 'node:fs/promises'

import type { NextFunction, Request, RequestHandler, Response } from 'express'

import { createApiKeys } from '../../lib'
import { createEchoApp, type User } from '../support/app'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, sequelize, database, createKey, createProcess } = useWorld()

/** A key of alice, which may read graphs and blocks. */
let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })).plainTextKey
})

/** The callers of an app whose handler shows its request behind these middlewares. */
function createApp(...middlewares: RequestHandler[]) {
  return http.to(createEchoApp(...middlewares))
}

describe('req.apiKey', () => {
  it('is frozen with its permissions, and getApiKey returns it', async () => {
    const seen: unknown[] = []
    const app = createApp(apiKeys.authenticate(), (req, res) => {
      const apiKey = apiKeys.getApiKey(req)
      seen.push(apiKey === req.apiKey, Object.isFrozen(apiKey), Object.isFrozen(apiKey.permissions))
      res.end()
    })

    await app.with(plainTextKey).get('/').expect(200)

    expect(seen).toEqual([true, true, true])
  })

  it('is missing for getApiKey without a guard, or if only a user is signed in', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true, orSignedIn: true }),
      (req, res) => {
        res.json(apiKeys.getApiKey(req))
      },
    )

    const answer = await app.as('alice').get('/')

    expect(() => apiKeys.getApiKey({})).toThrow(TypeError)
    expect(answer.status).toBe(500)
    expect(answer.body.app).toBe(
      'getApiKey: this request has no API key. Put requirePermission() or authenticate() before the handler.',
    )
  })
})

/** The app's own sign-in. */
function signedIn(user: object) {
  return function signIn(req: Request, _res: Response, next: NextFunction) {
    req.user = user
    next()
  }
}

describe('req.user', () => {
  it('is what loadOwner returns for the owner', async () => {
    const calls: unknown[] = []
    const keys = createProcess({
      loadOwner: async ({ id: userId }, req) => {
        calls.push([userId, req.path])
        return { id: userId, name: 'Alice' }
      },
    }).apiKeys

    const answer = await createApp(keys.authenticate(), keys.authenticate())
      .with(plainTextKey)
      .get('/graphs')

    expect(answer.body.user).toEqual({ id: 'alice', name: 'Alice' })
    expect(calls).toEqual([['alice', '/graphs']])
  })

  it.each([null, undefined])('makes a key invalid if loadOwner returns %s', async (gone) => {
    const keys = createProcess({ loadOwner: () => gone }).apiKeys

    const answer = await createApp(keys.authenticate()).with(plainTextKey).get('/')

    expectProblem(answer, 'invalid_api_key')
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('no directory')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no directory'))],
  ])('passes the error on to the app if loadOwner %s', async (_, loadOwner) => {
    const keys = createProcess({ loadOwner }).apiKeys

    const answer = await createApp(keys.authenticate()).with(plainTextKey).get('/')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it('passes an error of Node on as it came if loadOwner fails with it', async () => {
    const keys = createProcess({
      loadOwner: async () => ({ profile: await readFile('/no/such/profile') }),
    }).apiKeys

    const answer = await createApp(keys.authenticate()).with(plainTextKey).get('/')

    expect(answer.status).toBe(500)
    expect(answer.body.app).toContain('ENOENT')
  })

  it('stays the same if the app has signed in the owner', async () => {
    const keys = createProcess({
      currentUser: undefined,
      isAdmin: undefined,
      loadOwner: () => ({ id: 'never asked' }),
    }).apiKeys
    const app = createApp(signedIn({ id: 'alice', name: 'Alice' }), keys.authenticate())

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body.user).toEqual({ id: 'alice', name: 'Alice' })
  })

  it('is compared by the id that currentUser returns', async () => {
    const keys = createProcess({
      currentUser: (req) => ({ id: String(Object(req.user).sub), admin: false }),
    }).apiKeys
    const app = createApp(signedIn({ sub: 'alice' }), keys.authenticate())

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body.user).toEqual({ sub: 'alice' })
  })

  it.each([
    ['alone', undefined, { id: 'alice' }],
    [
      'with loadOwner',
      ({ id }: { id: string }) => ({ id, loaded: true }),
      { id: 'alice', loaded: true },
    ],
  ])(
    'is the owner in place of a guest, if currentUser returns null: %s',
    async (_, loadOwner, owner) => {
      const keys = createProcess({
        currentUser: ({ user }) => (user && 'guest' in user ? null : (user as User | undefined)),
        loadOwner,
      }).apiKeys
      const guest = signedIn({ id: 'anonymous', guest: true })
      const app = createApp(guest, keys.authenticate(), guest, keys.requirePermission('READ_GRAPH'))

      const answer = await app.with(plainTextKey).get('/')

      expect(answer.status).toBe(200)
      expect(answer.body.user).toEqual(owner)
    },
  )

  it('causes a warning if currentUser returns an id that no owner can have', async () => {
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
    const keys = createProcess({
      currentUser: () => ({ admin: false }) as User,
    }).apiKeys
    const app = createApp(signedIn({ id: 'alice' }), keys.authenticate())

    const answers = [await app.with(plainTextKey).get('/'), await app.with(plainTextKey).get('/')]

    expect(answers.map(({ status }) => status)).toEqual([400, 400])
    expect(emitWarning.mock.calls).toEqual([
      [
        expect.stringContaining('whose id is not of the type text'),
        { type: 'ApiKeysWarning', code: 'API_KEYS_USER_ID' },
      ],
    ])
    emitWarning.mockRestore()
  })

  it.each([{ id: 'bob' }, { id: 'ALICE' }, {}])(
    'makes two credentials of a request if the app has signed in %j',
    async (somebodyElse) => {
      const keys = createProcess({ currentUser: undefined, isAdmin: undefined }).apiKeys
      const app = createApp(signedIn(somebodyElse), keys.authenticate())

      const answer = await app.with(plainTextKey).get('/')

      expectProblem(answer, 'multiple_credentials')
    },
  )

  it.each([
    [{ id: 'alice', name: 'Alice' }, 200],
    [{ id: 'bob' }, 400],
  ])('may come later, behind a first guard, and counts then: %j', async (user, status) => {
    const keys = createProcess({ currentUser: undefined, isAdmin: undefined }).apiKeys
    const app = createApp(keys.authenticate(), signedIn(user), keys.requirePermission('READ_GRAPH'))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(status)
  })

  it('is the owner’s id as a number if ids of users are numbers', async () => {
    const keys = createApiKeys({
      sequelize,
      schema: 'numbers',
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
      users: { type: 'integer' },
    })
    database.closeFirst(keys)
    await keys.migrate()
    const created = await keys.create({ userId: 7, name: 'CI', permissions: ['READ_GRAPH'] })

    const fresh = await createApp(keys.authenticate()).with(created.plainTextKey).get('/')
    const present = await createApp(signedIn({ id: '7' }), keys.authenticate())
      .with(created.plainTextKey)
      .get('/')

    expect(fresh.body).toMatchObject({ user: { id: 7 }, apiKey: { userId: 7 } })
    expect(present.status).toBe(200)
    await keys.close()
  })
})
