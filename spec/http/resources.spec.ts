import express, { type Express, type NextFunction, type Request, type Response } from 'express'
import { Passport } from 'passport'

import type { Guard, RequestDenied } from '../../lib'
import { createBindingApiKeys } from '../support/bound-keys'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { database, http, rows, createProcess } = useWorld()
const apiKeys = createBindingApiKeys(database, {
  limits: { burst: { limit: 1_000, windowSeconds: 3_600 } },
})
const passport = new Passport().use(apiKeys.strategy)

type Bound = { graph?: string[]; project?: string[] } | null

async function createKey(resources: Bound, wishes: object = {}) {
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId: 'alice',
    name: 'Deployment',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    resources,
    ...wishes,
  })
  return { id: apiKey.id, plainTextKey }
}

/** The callers of an app with a route for one graph behind these guards. Its error handler shows errors. */
function createApp(...guards: Guard[]) {
  const app = express()
  app.all('/graphs/:id', ...guards, (req, res) => {
    res.json({ graph: req.params.id })
  })
  return http.to(withErrors(app))
}

function withErrors(app: Express) {
  app.use((error: unknown, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(500).json({ app: error instanceof Error ? error.message : error })
  })
  return app
}

const asked = jest.fn()
const readGraph = apiKeys.requirePermission('READ_GRAPH', {
  resource(req) {
    asked()
    return { graph: req.params.id }
  },
})

let unbound: string
/** The key of graphs 7 and 8. */
let bound: string
/** The key of no graph. */
let empty: string

beforeAll(async () => {
  unbound = (await createKey(null)).plainTextKey
  bound = (await createKey({ graph: ['7', '8'] })).plainTextKey
  empty = (await createKey({ graph: [] })).plainTextKey
})

beforeEach(() => asked.mockClear())

describe('a guard that says what a request is about', () => {
  const app = createApp(readGraph)

  it('lets a key through that is not bound, without asking the app', async () => {
    const answer = await app.with(unbound).get('/graphs/9')

    expect(answer.status).toBe(200)
    expect(asked).not.toHaveBeenCalled()
  })

  it('lets a bound key through for its own resources', async () => {
    const answers = [
      await app.with(bound).get('/graphs/7'),
      await app.with(bound).get('/graphs/8'),
      await app.with(bound).get('/graphs/%37'),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
  })

  it.each(['9', '07', '7%20', '%207', '77', '7.0', '__proto__', 'constructor', '7%00'])(
    'refuses a bound key for any other resource: %s',
    async (id) => {
      expectProblem(await app.with(bound).get(`/graphs/${id}`), 'resource_not_allowed')
    },
  )

  it('refuses a key with an empty list for each resource', async () => {
    for (const id of ['7', 'undefined', '%20']) {
      expectProblem(await app.with(empty).get(`/graphs/${id}`), 'resource_not_allowed')
    }
  })

  it('demands nothing of a type to which the key is not bound', async () => {
    const { plainTextKey } = await createKey({ project: ['x'] })
    const both = createApp(
      apiKeys.requirePermission('READ_GRAPH', {
        resource: (req) => ({ graph: req.params.id, project: 'x' }),
      }),
    )

    expect((await both.with(plainTextKey).get('/graphs/9')).status).toBe(200)
    expect((await both.with(bound).get('/graphs/7')).status).toBe(200)
  })

  it('wants a resource of each type to which the key is bound', async () => {
    const { plainTextKey } = await createKey({ graph: ['7'], project: ['x'] })

    expectProblem(await app.with(plainTextKey).get('/graphs/7'), 'resource_not_allowed')
  })

  it('looks at the permissions first', async () => {
    const other = createApp(
      apiKeys.requirePermission('READ_BLOCK', {
        resource(req) {
          asked()
          return { graph: req.params.id }
        },
      }),
    )

    const answer = await other.with(bound).get('/graphs/9')

    expectProblem(answer, 'missing_permission', { missing: ['READ_BLOCK'] })
    expect(asked).not.toHaveBeenCalled()
  })

  it('counts no use towards the limits of a key that it refuses', async () => {
    const { plainTextKey } = await createKey({ graph: ['7'] })

    const refused = await app.with(plainTextKey).get('/graphs/9')
    const passed = await app.with(plainTextKey).get('/graphs/7')

    expect(refused.headers).not.toHaveProperty('ratelimit')
    expect(passed.headers.ratelimit).toMatch(/;r=999;/)
  })

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['an object without the type', {}],
    ['another type', { project: '7' }],
    ['undefined for the type', { graph: undefined }],
    ['a list for the type', { graph: ['7'] }],
    ['a list', ['7']],
  ])('refuses a bound key if the app returns %s', async (_, resources) => {
    const resource = () => resources as { graph: string }
    const { with: carrying } = createApp(apiKeys.requirePermission('READ_GRAPH', { resource }))

    expectProblem(await carrying(bound).get('/graphs/7'), 'resource_not_allowed')
    expect((await carrying(unbound).get('/graphs/7')).status).toBe(200)
  })

  it('takes a number as text', async () => {
    const guard = apiKeys.requirePermission('READ_GRAPH', {
      resource: (req) => ({ graph: Number(req.params.id) as unknown as string }),
    })
    const { with: carrying } = createApp(guard)

    expect((await carrying(bound).get('/graphs/7')).status).toBe(200)
    expectProblem(await carrying(bound).get('/graphs/9'), 'resource_not_allowed')
    expectProblem(await carrying(bound).get('/graphs/x'), 'resource_not_allowed')
  })

  it.each<[string, unknown, unknown]>([
    ['an error', new Error('no such route'), 'no such route'],
    // Express goes on if it is given nothing, or one of these texts.
    ['undefined', undefined, 'express-api-keys: a function of the app failed without an Error'],
    ['null', null, 'express-api-keys: a function of the app failed without an Error'],
    ['the text route', 'route', 'express-api-keys: a function of the app failed without an Error'],
    [
      'the text router',
      'router',
      'express-api-keys: a function of the app failed without an Error',
    ],
  ])('passes what the app throws to its error handler: %s', async (_, thrown, message) => {
    const guard = apiKeys.requirePermission('READ_GRAPH', {
      resource() {
        throw thrown
      },
    })

    const answer = await createApp(guard).with(bound).get('/graphs/7')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: message })
  })

  it('passes a mistake of the app to its error handler: a promise, or an id alone', async () => {
    const wrong: [unknown, string][] = [
      [Promise.resolve({ graph: '7' }), 'resource must return the ids at once, not a promise'],
      [Promise.reject(new Error('away')), 'resource must return the ids at once, not a promise'],
      ['7', 'resource must return ids by their types, got "7"'],
      [7, 'resource must return ids by their types, got 7'],
    ]

    for (const [returned, message] of wrong) {
      const resource = () => returned as { graph: string }
      const guard = apiKeys.requirePermission('READ_GRAPH', { resource })
      const answer = await createApp(guard).with(bound).get('/graphs/7')
      expect([answer.status, answer.body]).toEqual([500, { app: message }])
    }
  })

  it('asks for each request by itself, also behind another guard', async () => {
    const nested = express.Router()
    nested.get('/inner/:id', readGraph, (_req, res) => {
      res.json({ inner: true })
    })
    const outer = express()
    outer.use('/graphs/:id', readGraph, nested)
    const app = http.to(withErrors(outer))

    const statuses = [
      await app.with(bound).get('/graphs/7/inner/8'),
      await app.with(bound).get('/graphs/7/inner/9'),
      await app.with(bound).get('/graphs/9/inner/8'),
    ].map(({ status }) => status)

    expect(statuses).toEqual([200, 403, 403])
  })
})

describe('a guard that says nothing about resources', () => {
  it('refuses a bound key, because a route that was forgotten would undo the binding', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    expectProblem(await app.with(bound).get('/graphs/7'), 'resource_not_allowed')
    expectProblem(await app.with(empty).get('/graphs/7'), 'resource_not_allowed')
    expect((await app.with(unbound).get('/graphs/7')).status).toBe(200)
  })

  it('refuses it if the guard before has let it through', async () => {
    const app = createApp(
      apiKeys.authenticate(),
      readGraph,
      apiKeys.requirePermission('READ_GRAPH'),
    )

    expectProblem(await app.with(bound).get('/graphs/7'), 'resource_not_allowed')
  })

  it('lets it through if the route sees to it: with null', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH', { resource: null }))

    expect((await app.with(bound).get('/graphs/9')).status).toBe(200)
    expect((await app.with(empty).get('/graphs/9')).status).toBe(200)
  })

  it('lets it through if it demands nothing: authenticate() and Passport', async () => {
    const guarded = createApp(apiKeys.authenticate())
    const throughPassport = createApp(passport.authenticate('api-key', { session: false }) as Guard)

    expect((await guarded.with(bound).get('/graphs/9')).status).toBe(200)
    expect((await throughPassport.with(bound).get('/graphs/9')).status).toBe(200)
  })
})

describe('authenticate', () => {
  it('may say what a request is about', async () => {
    const app = createApp(apiKeys.authenticate({ resource: (req) => ({ graph: req.params.id }) }))

    expect((await app.with(bound).get('/graphs/7')).status).toBe(200)
    expectProblem(await app.with(bound).get('/graphs/9'), 'resource_not_allowed')
  })
})

describe('a guard for keys and for users who are signed in', () => {
  const app = createApp(
    apiKeys.requirePermission('READ_GRAPH', {
      orSignedIn: true,
      resource(req) {
        asked()
        return { graph: req.params.id }
      },
    }),
  )

  it('asks the app about keys alone', async () => {
    const signedIn = await app.as('alice').get('/graphs/9')

    expect(signedIn.status).toBe(200)
    expect(asked).not.toHaveBeenCalled()
  })

  it('refuses a bound key for another resource', async () => {
    expectProblem(await app.with(bound).get('/graphs/9'), 'resource_not_allowed')
    expect((await app.with(bound).get('/graphs/7')).status).toBe(200)
  })

  it('refuses a bound key if it says nothing about resources', async () => {
    const forgotten = createApp(apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true }))

    expectProblem(await forgotten.with(bound).get('/graphs/7'), 'resource_not_allowed')
  })
})

describe('authenticateRequest', () => {
  type Options = Parameters<typeof apiKeys.authenticateRequest>[1]

  /** The callers of an app that authenticates its requests by itself. */
  function createSelfMade(options: Options) {
    const app = express()
    app.get('/', (req, res, next) => {
      apiKeys.authenticateRequest(req, options).then(
        ({ id }) => res.json({ id }),
        (error: unknown) => next(error),
      )
    })
    app.use(
      (
        error: Error & { status?: number; code?: string },
        _req: Request,
        res: Response,
        next: NextFunction,
      ) => {
        if (res.headersSent) return next(error)
        res.status(error.status ?? 500).json({ code: error.code ?? error.message })
      },
    )
    return http.to(app)
  }

  it.each<[string, Options, string, number]>([
    [
      'permissions, and the resource of the key',
      { permissions: 'READ_GRAPH', resource: { graph: '7' } },
      'bound',
      200,
    ],
    [
      'permissions, and another resource',
      { permissions: 'READ_GRAPH', resource: { graph: '9' } },
      'bound',
      403,
    ],
    [
      'permissions, and another type',
      { permissions: 'READ_GRAPH', resource: { project: 'x' } },
      'bound',
      403,
    ],
    ['permissions alone', { permissions: 'READ_GRAPH' }, 'bound', 403],
    [
      'permissions, and undefined',
      { permissions: 'READ_GRAPH', resource: undefined },
      'bound',
      403,
    ],
    ['permissions, and null', { permissions: 'READ_GRAPH', resource: null }, 'bound', 200],
    ['no permissions', {}, 'bound', 200],
    ['an empty list of permissions', { permissions: [] }, 'bound', 200],
    ['no permissions, and another resource', { resource: { graph: '9' } }, 'bound', 403],
    [
      'permissions alone, for a key that is not bound',
      { permissions: 'READ_GRAPH' },
      'unbound',
      200,
    ],
    ['another resource, for a key that is not bound', { resource: { graph: '9' } }, 'unbound', 200],
  ])('with %s', async (_, options, key, status) => {
    const answer = await createSelfMade(options)
      .with(key === 'bound' ? bound : unbound)
      .get('/')

    expect([answer.status, answer.body.code]).toEqual([
      status,
      status === 403 ? 'resource_not_allowed' : undefined,
    ])
  })

  it('refuses a function in place of ids', async () => {
    const resource = (() => ({ graph: '7' })) as unknown as { graph: string }

    const answer = await createSelfMade({ resource }).with(bound).get('/')

    expect([answer.status, answer.body.code]).toEqual([
      500,
      'authenticateRequest: resource must be an object of ids by their types, or null, got a function',
    ])
  })
})

describe('verify', () => {
  it.each<[string, object, boolean]>([
    ['the resource of the key', { resource: { graph: '7' } }, true],
    ['another resource', { resource: { graph: '9' } }, false],
    ['another type', { resource: { project: 'x' } }, false],
    ['no type', { resource: {} }, false],
    ['null', { resource: null }, true],
    ['undefined', { resource: undefined }, true],
    ['no options', {}, true],
  ])('with %s', async (_, options, valid) => {
    expect(await apiKeys.verify(bound, options)).toMatchObject(
      valid ? { valid } : { valid, code: 'resource_not_allowed' },
    )
    expect((await apiKeys.verify(unbound, options)).valid).toBe(true)
  })

  it('counts a refusal for the owner to see', async () => {
    const { id, plainTextKey } = await createKey({ graph: ['7'] })

    await apiKeys.verify(plainTextKey, { resource: { graph: '9' } })
    await apiKeys.verify(plainTextKey, { resource: { graph: '7' } })
    await apiKeys.flush()

    expect((await apiKeys.usage(id)).totals).toMatchObject({ accepted: 1, denied: 1 })
  })

  it.each<[string, unknown, string]>([
    ['a function', () => ({ graph: '7' }), 'a function'],
    ['an id', '7', '"7"'],
  ])('refuses %s in place of ids', async (_, resource, shown) => {
    await expect(apiKeys.verify(bound, { resource: resource as object })).rejects.toThrow(
      new TypeError(
        `verify: resource must be an object of ids by their types, or null, got ${shown}`,
      ),
    )
  })
})

describe('a refused key', () => {
  it('is reported, and counted for the owner to see', async () => {
    const { id, plainTextKey } = await createKey({ graph: ['7'] })
    const denied: RequestDenied[] = []
    const stop = apiKeys.on('denied', (report) => void denied.push(report))

    await createApp(readGraph).with(plainTextKey).get('/graphs/9').expect(403)
    stop()
    await apiKeys.flush()

    expect(denied).toMatchObject([{ apiKey: { id }, error: { code: 'resource_not_allowed' } }])
    expect((await apiKeys.usage(id)).totals).toMatchObject({ accepted: 0, denied: 1 })
  })
})

describe('the options of a guard', () => {
  it.each<[string, unknown, string]>([
    ['an object', { graph: '7' }, "{ graph: '7' }"],
    ['an id', '7', '"7"'],
    ['true', true, 'true'],
    ['false', false, 'false'],
  ])('refuse %s in place of the function', (_, resource, shown) => {
    const options = { resource: resource as null }

    expect(() => apiKeys.requirePermission('READ_GRAPH', options)).toThrow(
      new TypeError(
        `requirePermission: resource must be a function that returns ids by their types, or null, got ${shown}`,
      ),
    )
    expect(() => apiKeys.authenticate(options)).toThrow(TypeError)
  })

  it('refuse it in an app without resources', async () => {
    const { apiKeys: others } = createProcess()
    const options = { resource: () => ({}) } as object

    expect(() => others.requirePermission('READ_GRAPH', options)).toThrow(
      new TypeError('requirePermission: resource needs the option resources of createApiKeys'),
    )
    await expect(others.verify(bound, options)).rejects.toThrow(
      new TypeError('verify: resource needs the option resources of createApiKeys'),
    )
  })
})

describe('an app that no longer has the option', () => {
  it('refuses bound keys at guards, and keeps what they are bound to', async () => {
    const { apiKeys: others } = createProcess()
    const app = createApp(others.requirePermission('READ_GRAPH'))

    expectProblem(await app.with(bound).get('/graphs/7'), 'resource_not_allowed')
    expect((await app.with(unbound).get('/graphs/7')).status).toBe(200)
  })
})

describe('the key of a request', () => {
  it('says what it is bound to', async () => {
    const { plainTextKey } = await createKey({ project: ['b', 'a'], graph: [] })
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)
    const { apiKey } = verdict

    expect(apiKey.resources).toEqual({ graph: [], project: ['a', 'b'] })
    expect(Object.isFrozen(apiKey.resources) && Object.isFrozen(apiKey.resources?.graph)).toBe(true)
    expect([apiKey.allows('graph', '7'), apiKey.allows('project', 'a')]).toEqual([false, true])
  })

  it('says null and true for all if it is not bound', async () => {
    const verdict = await apiKeys.verify(unbound)
    if (!verdict.valid) throw new Error(verdict.code)

    expect(verdict.apiKey.resources).toBeNull()
    expect(verdict.apiKey.allows('graph', '7')).toBe(true)
    expect(() => verdict.apiKey.allows('grpah' as 'graph', '7')).toThrow(TypeError)
  })
})

describe('a change of what a key is bound to', () => {
  it('holds from the next request on, also if a program makes it by SQL', async () => {
    const { id, plainTextKey } = await createKey({ graph: ['7'] })
    const app = createApp(readGraph)
    const send = async () => (await app.with(plainTextKey).get('/graphs/9')).status

    const statuses = [await send()]
    await apiKeys.update(id, { resources: { graph: ['9'] } })
    statuses.push(await send())
    await apiKeys.update(id, { resources: { graph: [] } })
    statuses.push(await send())
    await apiKeys.update(id, { resources: null })
    statuses.push(await send())
    await rows(`UPDATE api_keys SET resources = '{"graph":["8"]}' WHERE id = $1`, [id])
    while ((await send()) === 200);
    await rows('UPDATE api_keys SET resources = NULL WHERE id = $1', [id])
    while ((await send()) === 403);

    expect(statuses).toEqual([403, 200, 403, 200])
  })
})
