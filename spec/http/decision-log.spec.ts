import { format, stripVTControlCharacters } from 'node:util'

import createDebug from 'debug'
import passport from 'passport'

import { createTestApp, type Options, type TestApiKeys } from '../support/app'
import { vectors } from '../support/imported-keys'
import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

const { createProcess, createKey, http } = useWorld()
const { log: printLine } = createDebug

let lines: string[] = []

beforeEach(() => {
  lines = []
  createDebug.log = (...args: unknown[]) => {
    // Colours and the time since the last line depend on the terminal.
    lines.push(
      stripVTControlCharacters(format(...args))
        .replaceAll(/^\S+Z | \+\d+m?s$/g, '')
        .trim(),
    )
  }
  createDebug.enable('express-api-keys:*')
})

afterEach(() => {
  createDebug.disable()
  createDebug.log = printLine
})

/** An app with guards, of an instance that reads `DEBUG` when it is made. */
function createApp(options: Options = {}) {
  const { apiKeys } = createProcess(options)
  const app = createTestApp(apiKeys, (app) => {
    passport.use(apiKeys.strategy)
    app.use('/graphs', apiKeys.requirePermission('READ_GRAPH'))
    app.get('/any', apiKeys.requirePermission({ any: ['READ_BLOCK', 'READ_GRAPH'] }))
    app.get('/optional', apiKeys.authenticate({ optional: true }))
    app.get('/passport', passport.authenticate('api-key', { session: false }))
    app.get('/request', (req, res, next) => {
      apiKeys.authenticateRequest(req, { permissions: 'READ_BLOCK' }).then(() => res.end(), next)
    })
  })
  return { apiKeys, calls: http.to(app) }
}

describe('DEBUG', () => {
  it('prints a line for each request that passes, with its demand and the id of its key', async () => {
    const { calls } = createApp()
    const { plainTextKey, id } = await createKey()

    await calls.with(plainTextKey).get('/graphs/7?token=abc')
    await calls.with(plainTextKey).get('/any')

    expect(lines).toEqual([
      `express-api-keys:http GET /graphs/7 requirePermission("READ_GRAPH"); key ${id}; passes`,
      `express-api-keys:http GET /any requirePermission({"any":["READ_BLOCK","READ_GRAPH"]}); key ${id}; passes`,
    ])
  })

  it('prints why a request is refused', async () => {
    const { calls } = createApp()
    const { plainTextKey, id } = await createKey({ permissions: ['READ_BLOCK'] })
    const { plainTextKey: revoked, id: revokedId } = await createKey({ status: 'REVOKED' })

    await calls.with(plainTextKey).get('/graphs')
    await calls.with(revoked).get('/graphs')
    await calls.with(forgeKey()).get('/graphs')
    await calls.get('/graphs')

    const start = 'express-api-keys:http GET /graphs requirePermission("READ_GRAPH")'
    expect(lines).toEqual([
      `${start}; key ${id}; refused: 403 missing_permission (READ_GRAPH)`,
      `${start}; key ${revokedId}; refused: 401 invalid_api_key (revoked)`,
      `${start}; no key; refused: 401 invalid_api_key (unknown)`,
      `${start}; no key; refused: 401 missing_credential`,
    ])
  })

  it('prints the decisions of optional guards, of the strategy and of authenticateRequest', async () => {
    const { calls } = createApp()
    const { plainTextKey, id } = await createKey()

    await calls.get('/optional')
    await calls.with(plainTextKey).get('/passport')
    await calls.with(plainTextKey).get('/request')

    expect(lines).toEqual([
      'express-api-keys:http GET /optional authenticate(); no key; passes',
      `express-api-keys:http GET /passport passport.authenticate(); key ${id}; passes`,
      `express-api-keys:http GET /request authenticateRequest("READ_BLOCK"); key ${id}; refused: 403 missing_permission (READ_BLOCK)`,
    ])
  })

  it('prints the verdicts of verify', async () => {
    const { apiKeys } = createApp()
    const { plainTextKey, id } = await createKey()
    const { plainTextKey: suspended, id: suspendedId } = await createKey({ status: 'SUSPENDED' })

    for (const key of [plainTextKey, suspended, 'nonsense']) await apiKeys.verify(key)

    expect(lines).toEqual([
      `express-api-keys:verify key ${id}; passes`,
      `express-api-keys:verify key ${suspendedId}; refused: suspended`,
      'express-api-keys:verify no key; refused: malformed',
    ])
  })

  it('prints that a function of the app has thrown, and not what', async () => {
    const secret = 'postgres://app:password@db'
    const currentUser = () => Promise.reject(new RangeError(secret))
    const { apiKeys } = createProcess({ currentUser })
    const app = createTestApp(apiKeys, (app) =>
      app.get('/page', apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true })),
    )

    await http.to(app).get('/page')

    expect(lines).toEqual([
      'express-api-keys:http GET /page requirePermission("READ_GRAPH"); no key; refused: the app threw RangeError',
    ])
  })

  it('prints no secret, wherever a request has it', async () => {
    const { calls, apiKeys } = createApp()
    const { plainTextKey } = await createKey()
    const secret = plainTextKey.slice(11, -9)

    await calls.with(plainTextKey).get(`/graphs/${plainTextKey}?key=${plainTextKey}`)
    await calls.with(`${plainTextKey}x`).get(`/graphs/x${plainTextKey}`)
    await apiKeys.verify(plainTextKey)

    expect(lines).toHaveLength(3)
    expect(lines.join('\n')).not.toContain(secret)
    expect(lines[0]).toContain(`/graphs/${plainTextKey.slice(0, 11)}... `)
  })

  it('prints no key of another system in a path, encoded or not', async () => {
    const { sanctum, knox } = vectors
    if (!sanctum || !knox) throw new Error('There are no such vectors')
    const { calls } = createApp({ imports: [sanctum.source, knox.source] })

    await calls.get(`/graphs/${knox.key}/runs`)
    await calls.get(`/graphs/${encodeURIComponent(sanctum.key)}`)
    await calls.get('/graphs/%E0%A4%A')

    const paths = lines.map((line) => line.split(' ')[2])
    expect(paths).toEqual([
      `/graphs/${knox.key.slice(0, 6)}.../runs`,
      `/graphs/${encodeURIComponent(sanctum.key).slice(0, 6)}...`,
      '/graphs/%E0%A4%A',
    ])
  })

  it('is read when the instance is made', async () => {
    createDebug.disable()
    const { calls, apiKeys } = createApp()
    const { plainTextKey } = await createKey()
    createDebug.enable('express-api-keys:*')

    await calls.with(plainTextKey).get('/graphs')
    await useKey(apiKeys, plainTextKey)

    expect(lines).toEqual([])
  })

  it('prints the decisions of one part, if it names that', async () => {
    createDebug.enable('express-api-keys:verify')
    const { calls, apiKeys } = createApp()
    const { plainTextKey } = await createKey()

    await calls.with(plainTextKey).get('/graphs')
    await useKey(apiKeys, plainTextKey)

    expect(lines).toHaveLength(1)
  })
})

function useKey(apiKeys: TestApiKeys, key: string) {
  return apiKeys.verify(key)
}
