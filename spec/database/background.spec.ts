import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import timers from 'node:timers'

import * as pg from 'pg'

import { createTestApiKeys, permissions } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

async function createKey(wishes: Parameters<typeof newKey>[0] = {}) {
  return createTestApiKeys(database).create(newKey(wishes))
}

function kindOf(statement: string | { text: string }): string {
  const text = typeof statement === 'string' ? statement : statement.text
  if (text.includes('key.hash = ANY')) return 'look-up'
  if (text.includes('fingerprint')) return 'poll'
  if (text.includes('api_key_usage')) return 'write of usage'
  return text.includes('LISTEN ') ? 'LISTEN' : 'other'
}

describe('work that requests share', () => {
  const storage = new AsyncLocalStorage<string>()
  const seen: { what: string; context: string | undefined }[] = []

  function note(what: string) {
    seen.push({ what, context: storage.getStore() })
  }

  function contextsOf(what: string): (string | undefined)[] {
    return seen.filter((one) => one.what === what).map(({ context }) => context)
  }

  class NotingClient extends pg.Client {
    constructor(...options: ConstructorParameters<typeof pg.Client>) {
      super(...options)
      const query = this.query.bind(this) as (...args: unknown[]) => unknown
      Object.assign(this, {
        query(...args: unknown[]) {
          note(kindOf(args[0] as string | { text: string }))
          return query(...args)
        },
      })
    }
  }

  function createInstance() {
    const sequelize = database.connect({ dialectModule: { ...pg, Client: NotingClient } })
    return storage.run('set-up', () =>
      createTestApiKeys(database, {
        sequelize,
        lastUsedResolutionMs: 1,
        grantableMaxAgeMs: 1,
        grantable() {
          note('grantable')
          return permissions
        },
      }),
    )
  }

  beforeEach(() => {
    seen.length = 0
  })

  it('runs in the async context of createApiKeys, whichever request starts it', async () => {
    const { plainTextKey } = await createKey()
    const apiKeys = createInstance()

    await storage.run('alice', () => apiKeys.verify(plainTextKey))
    await until(async () => (await apiKeys.health()).listener === 'up')
    await storage.run('bob', () => apiKeys.verify(plainTextKey))
    await storage.run('bob', () => apiKeys.flush())
    const polls = contextsOf('poll').length
    await until(() => contextsOf('poll').length > polls)

    for (const what of ['look-up', 'poll', 'write of usage', 'LISTEN', 'grantable'])
      expect({ what, contexts: new Set(contextsOf(what)) }).toEqual({
        what,
        contexts: new Set(['set-up']),
      })
  })

  it('opens connections there', async () => {
    const { plainTextKey } = await createKey()
    const apiKeys = storage.run('set-up', () => {
      const sequelize = database.connect()
      sequelize.addHook('beforeConnect', () => note('beforeConnect'))
      return createTestApiKeys(database, { sequelize })
    })

    await storage.run('alice', () => apiKeys.verify(plainTextKey))
    await until(async () => (await apiKeys.health()).listener === 'up')
    await storage.run('alice', () => apiKeys.flush())

    expect(contextsOf('beforeConnect')).toEqual(['set-up', 'set-up', 'set-up', 'set-up'])
  })

  it('reads the change of a request there', async () => {
    const { apiKey, plainTextKey } = await createKey()
    const apiKeys = createInstance()
    await apiKeys.verify(plainTextKey)
    seen.length = 0

    await storage.run('alice', () => apiKeys.suspend(apiKey.id))

    expect(new Set(contextsOf('poll'))).toEqual(new Set(['set-up']))
  })

  it('reports there that keys expire', async () => {
    const { apiKey } = await createKey()
    await database.connect().query(
      `UPDATE api_keys SET created_at = now() - interval '9 days', expires_at = now() + interval '1 hour'
          WHERE id = $1`,
      { bind: [apiKey.id] },
    )
    const apiKeys = createInstance()

    const context = await new Promise((resolve) => {
      storage.run('alice', () => apiKeys.on('expiring', () => resolve(storage.getStore())))
    })

    expect(context).toBe('set-up')
  })
})

describe('the signal of a key', () => {
  it('aborts in the async context of the request that asked for it', async () => {
    const storage = new AsyncLocalStorage<string>()
    const { apiKey, plainTextKey } = await createKey()
    const apiKeys = createTestApiKeys(database)
    const contexts: (string | undefined)[] = []
    const signal = await storage.run('alice', async () => {
      const verdict = await apiKeys.verify(plainTextKey)
      if (!verdict.valid) throw new Error(verdict.code)

      verdict.apiKey.signal.addEventListener('abort', () => contexts.push(storage.getStore()))
      return verdict.apiKey.signal
    })

    await storage.run('bob', () => apiKeys.revoke(apiKey.id))
    if (!signal.aborted) await once(signal, 'abort')

    expect(contexts).toEqual(['alice'])
  })
})

describe('fake timers of an app', () => {
  afterEach(() => {
    jest.useRealTimers()
  })

  it('keep no key from being verified', async () => {
    const { plainTextKey } = await createKey()
    const apiKeys = createTestApiKeys(database)
    jest.useFakeTimers()
    // Fake timers replace the members of the module as well.
    expect(timers.setTimeout).toBe(setTimeout)

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.verify(`${plainTextKey.slice(0, -1)}!`)).toMatchObject({ valid: false })
  })

  it('set the clock by which keys expire', async () => {
    const { plainTextKey } = await createKey({ expiresAt: new Date('2040-01-01T00:00:00Z') })
    const apiKeys = createTestApiKeys(database)
    await apiKeys.verify(plainTextKey)

    jest.useFakeTimers({ now: new Date('2040-01-01T00:00:00Z') })

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
  })
})
