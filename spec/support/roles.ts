import { once } from 'node:events'

import express, { type RequestHandler } from 'express'

import type { UserOwner } from '../../lib'
import { createTestApp, permissions, type Options, type Permission, type TestApiKeys } from './app'
import type { Http } from './http'
import { until } from './until'
import { useWorld } from './world'

const [read, execute] = permissions

/**
 * Gives a spec file an app that keeps the roles of its users in the database, so that `grantable` returns them. Before each
 * `it`, alice holds `READ_GRAPH` and `EXECUTE_GRAPH`; behind it, its instances are closed.
 */
export function useRoles() {
  const world = useWorld()
  const { http, rows, createProcess } = world
  let instances: TestApiKeys[] = []
  /** The users for whom `grantable` was called, in all processes. */
  const asked: string[] = []

  beforeAll(() => rows('CREATE TABLE roles (user_id text, permission text)'))

  beforeEach(async () => {
    asked.length = 0
    await hold('alice', [read, execute])
  })

  afterEach(async () => {
    for (const instance of instances) await instance.close()
    instances = []
  })

  async function rolesOf({ id: userId }: UserOwner<string>): Promise<Permission[]> {
    asked.push(userId)
    const roles = await rows<{ permission: Permission }>(
      'SELECT permission FROM roles WHERE user_id = $1',
      [userId],
    )
    return roles.map(({ permission }) => permission)
  }

  /** Replaces the roles of a user, and notifies no process. */
  async function hold(userId: string, held: readonly Permission[]) {
    await rows('DELETE FROM roles WHERE user_id = $1', [userId])
    for (const permission of held) {
      await rows('INSERT INTO roles VALUES ($1, $2)', [userId, permission])
    }
  }

  return {
    ...world,
    asked,
    rolesOf,
    hold,
    /** Makes one more process of the library. */
    createInstance(options: Options = {}) {
      const { apiKeys } = createProcess({ grantable: rolesOf, ...options })
      instances.push(apiKeys)
      return apiKeys
    },
    /** Creates a key whose owner holds all of its permissions. */
    async createKey(wishes: Parameters<typeof world.createKey>[0] = {}) {
      const created = await world.createKey({ permissions: [read, execute], ...wishes })
      return { id: created.id, key: created.plainTextKey }
    },
    /**
     * The callers of an app with a route for each permission, and a route for any key. Each route returns the
     * permissions of the key.
     */
    createApp(apiKeys: TestApiKeys): Http {
      const app = createTestApp(apiKeys, (app) => {
        const answer: RequestHandler = (req, res) => {
          res.json(apiKeys.getApiKey(req).permissions)
        }
        for (const permission of permissions) {
          app.get(`/${permission}`, apiKeys.requirePermission(permission), answer)
        }
        app.get('/any', apiKeys.authenticate(), answer)
      })
      return http.to(app)
    },
  }
}

/** Requests a route with a key. */
export function get(http: Http, path: string, key: string) {
  return http.with(key).get(`/${path}`)
}

export async function statusOf(http: Http, path: string, key: string) {
  return (await get(http, path, key)).status
}

/** The permissions that a key holds in an instance, or the reason why it is invalid. */
export async function holdingOf(apiKeys: TestApiKeys, key: string) {
  const verdict = await apiKeys.verify(key)
  return verdict.valid ? verdict.apiKey.permissions : verdict.code
}

/** Makes a `grantable` that answers when a spec says so. */
export function createAnswers() {
  const waiting: { give(held: readonly Permission[]): void; fail(error: Error): void }[] = []

  return {
    grantable: () =>
      new Promise<readonly Permission[]>((give, fail) => {
        waiting.push({ give, fail })
      }),
    /** Resolves once `grantable` is called. */
    async next() {
      await until(() => waiting.length > 0)
      const answer = waiting.shift()
      if (!answer) throw new Error('the app is not asked')
      return answer
    },
    get waiting() {
      return waiting.length
    },
  }
}

/** Requests a route that demands `READ_GRAPH`, and leaves its response open. */
export async function openResponse(apiKeys: TestApiKeys, key: string) {
  const app = express()
  const signals: AbortSignal[] = []
  app.get('/', apiKeys.requirePermission(read), (req, res) => {
    signals.push(apiKeys.getApiKey(req).signal)
    res.write('begun')
  })
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const client = new AbortController()
  const fetching = fetch(`http://127.0.0.1:${port}`, {
    headers: { Authorization: `Bearer ${key}` },
    signal: client.signal,
  }).catch(() => {})
  await until(() => signals.length > 0)
  const [signal] = signals
  if (!signal) throw new Error('no signal')

  return {
    signal,
    async close() {
      client.abort()
      await fetching
      server.closeAllConnections()
      server.close()
    },
  }
}
