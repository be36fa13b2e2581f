import type { RequestHandler } from 'express'

import { createApiKeys } from '../../lib'
import { createEchoApp, type User } from '../support/app'
import { bearer } from '../support/http'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, sequelize, database, createKey, createProcess } = useWorld()

/** A key of alice's, which may read graphs. */
let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

/** The callers of an app whose handler shows its request behind these middlewares. */
function createApp(...middlewares: RequestHandler[]) {
  return http.to(createEchoApp(...middlewares))
}

describe('orSignedIn', () => {
  const alice = { 'X-User': 'alice' }

  it.each([
    ['nothing', () => ({}), 401, 'missing_credential'],
    ['nothing, signed in', () => alice, 200, undefined],
    ['a good key', () => bearer(plainTextKey), 200, undefined],
    ['a good key, signed in', () => ({ ...bearer(plainTextKey), ...alice }), 200, undefined],
    ['a wrong key', () => bearer('agpt_x'), 401, 'invalid_api_key'],
    ['a wrong key, signed in', () => ({ ...bearer('agpt_x'), ...alice }), 401, 'invalid_api_key'],
    [
      'half a key, signed in',
      () => ({ ...bearer('agpt_x y'), ...alice }),
      400,
      'malformed_credential',
    ],
    ['a JWT', () => bearer('a.b.c'), 401, 'invalid_api_key'],
    ['a JWT, signed in', () => ({ ...bearer('a.b.c'), ...alice }), 200, undefined],
    ['Basic, signed in', () => ({ Authorization: 'Basic eA==', ...alice }), 200, undefined],
  ])('answers a request with %s', async (_, headers, status, code) => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true }))

    const answer = await app.get('/').set(headers())

    expect(answer.status).toBe(status)
    expect(answer.body.code).toBe(code)
  })

  it('holds a key to its permissions, even if a user is signed in', async () => {
    const app = createApp(apiKeys.requirePermission('EXECUTE_GRAPH', { orSignedIn: true }))

    const answer = await app.with(plainTextKey).get('/').set(alice)

    expect(answer.status).toBe(403)
  })

  it('does not take the owner of another kind of key for a signed-in user', async () => {
    const others = createApiKeys({
      sequelize,
      keyPrefix: 'other',
      schema: 'others',
      permissions: ['READ_GRAPH'],
    })
    database.closeFirst(others)
    await others.migrate()
    const { plainTextKey } = await others.create({
      userId: 'alice',
      name: 'Other',
      permissions: ['READ_GRAPH'],
    })
    const keys = createProcess({
      currentUser: ({ user }) => user as User | undefined,
    }).apiKeys
    const app = createApp(
      others.authenticate({ optional: true }),
      keys.authenticate({ orSignedIn: true }),
    )

    const answer = await app.with(plainTextKey).get('/')

    expectProblem(answer, 'invalid_api_key')
  })

  it('passes the error on to the app if currentUser fails', async () => {
    const failure = new Error('no session store')
    const throws = () => {
      throw failure
    }
    for (const currentUser of [throws, () => Promise.reject(failure)]) {
      const keys = createProcess({ currentUser }).apiKeys
      const app = createApp(keys.authenticate({ orSignedIn: true }))

      const answer = await app.get('/')

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'no session store' })
    }
  })

  it('cannot be asked for without currentUser', () => {
    const keys = createApiKeys({
      sequelize,
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    })

    for (const make of [
      () => keys.requirePermission('READ_GRAPH', { orSignedIn: true }),
      () => keys.requirePermission({ any: ['READ_GRAPH'] }, { orSignedIn: true }),
      () => keys.authenticate({ orSignedIn: true }),
    ]) {
      expect(make).toThrow(TypeError)
      expect(make).toThrow('orSignedIn needs the option currentUser')
    }
  })
})
