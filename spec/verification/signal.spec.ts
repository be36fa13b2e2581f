import { EventEmitter, once } from 'node:events'

import express, { type Express } from 'express'
import type { Sequelize } from 'sequelize'

import { InvalidApiKeyError, MissingPermissionError, type Guard } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { recordStatements } from '../support/statements'
import { until } from '../support/until'

let database: Database
let sequelize: Sequelize
/** Two processes: one serves, one changes. */
let [apiKeys, other]: TestApiKeys[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

beforeEach(() => {
  ;[apiKeys, other] = [createTestApiKeys(database), createTestApiKeys(database)]
})

afterEach(async () => {
  await serving().close()
  await changing().close()
})

afterAll(() => database.drop())

function serving(): TestApiKeys {
  if (!apiKeys) throw new Error('no instance')
  return apiKeys
}

function changing(): TestApiKeys {
  if (!other) throw new Error('no instance')
  return other
}

/** Requests a route behind guards, with a key that holds two permissions, and leaves its response open. */
async function openResponse(
  guardsOf: (apiKeys: TestApiKeys) => Guard[],
  wishes: Parameters<typeof newKey>[0] = {},
) {
  const { apiKey, plainTextKey } = await changing().create(
    newKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'], ...wishes }),
  )
  const seen = new EventEmitter()
  const app: Express = express()
  app.get('/', ...guardsOf(serving()), (req, res) => {
    const { signal } = serving().getApiKey(req)
    res.write('begun')
    seen.emit('signal', signal, res)
  })
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }

  const signalled = once(seen, 'signal') as Promise<[AbortSignal, express.Response]>
  const client = new AbortController()
  const fetching = fetch(`http://127.0.0.1:${port}`, {
    headers: { Authorization: `Bearer ${plainTextKey}` },
    signal: client.signal,
  }).catch(() => {})
  const [signal, res] = await signalled

  return {
    id: apiKey.id,
    signal,
    res,
    async close() {
      client.abort()
      await fetching
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** The reason of a signal, once it has aborted. */
async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, 'abort')
  return signal.reason
}

function requireRead(apiKeys: TestApiKeys) {
  return [apiKeys.requirePermission('READ_GRAPH')]
}

describe('the signal of a key', () => {
  it.each<[string, (id: string) => Promise<unknown>, string]>([
    ['revoked', (id) => changing().revoke(id), 'revoked'],
    ['suspended', (id) => changing().suspend(id), 'suspended'],
    ['deleted', (id) => sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`), 'unknown'],
    [
      'made to expire',
      (id) => changing().update(id, { expiresAt: new Date(Date.now() + 200) }),
      'expired',
    ],
  ])('aborts when the key is %s', async (_, change, reason) => {
    const { id, signal, close } = await openResponse(requireRead)
    expect(signal.aborted).toBe(false)

    await change(id)

    const error = await reasonOf(signal)
    expect(error).toBeInstanceOf(InvalidApiKeyError)
    expect(error).toMatchObject({ code: 'invalid_api_key', reason })
    await close()
  })

  it('aborts when the key expires by itself', async () => {
    const { signal, close } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 500),
    })

    expect(await reasonOf(signal)).toMatchObject({ reason: 'expired' })
    await close()
  })

  it('aborts when the key loses a permission that a guard demanded, and for no other', async () => {
    const { id, signal, close } = await openResponse((apiKeys) => [
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.requireAnyPermission(['EXECUTE_GRAPH', 'EXECUTE_BLOCK']),
    ])

    await changing().setPermissions(id, ['READ_GRAPH', 'EXECUTE_BLOCK'])
    await changing().update(id, { name: 'Another name' })
    expect(signal.aborted).toBe(false)
    await changing().setPermissions(id, ['READ_GRAPH', 'READ_BLOCK'])

    const error = await reasonOf(signal)
    expect(error).toBeInstanceOf(MissingPermissionError)
    expect(error).toMatchObject({ missing: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'] })
    await close()
  })

  it('goes on when the expiry of the key is put off', async () => {
    const { id, signal, close } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 2_000),
    })
    const { signal: other, close: closeOther } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 2_000),
    })
    await changing().update(id, { expiresAt: new Date(Date.now() + 3_600_000_000) })

    // Made later, to expire later: by then, the timer of the first is over as well.
    expect(await reasonOf(other)).toMatchObject({ reason: 'expired' })
    expect(signal.aborted).toBe(false)
    await changing().suspend(id)

    expect(await reasonOf(signal)).toMatchObject({ reason: 'suspended' })
    await Promise.all([close(), closeOther()])
  })

  it('is one for the request, and another for each', async () => {
    const { plainTextKey } = await changing().create(newKey())
    const [first, second] = [
      await serving().verify(plainTextKey),
      await serving().verify(plainTextKey),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')

    expect(first.apiKey.signal).toBe(first.apiKey.signal)
    expect(first.apiKey.signal).not.toBe(second.apiKey.signal)
    expect(JSON.stringify(first.apiKey)).not.toContain('signal')
  })

  it('is let go when the response closes', async () => {
    const [one, two] = [await openResponse(requireRead), await openResponse(requireRead)]
    await one.close()
    if (!one.res.closed) await once(one.res, 'close')

    await changing().revoke(one.id)
    await changing().revoke(two.id)

    await reasonOf(two.signal)
    expect(one.signal.aborted).toBe(false)
    await two.close()
  })

  it('aborts without a request, until what it is for closes', async () => {
    const [held, dropped] = [await changing().create(newKey()), await changing().create(newKey())]
    const socket = new EventEmitter()
    const [first, second] = [
      await serving().verify(held.plainTextKey),
      await serving().verify(dropped.plainTextKey, { until: socket }),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')
    const signals = [first.apiKey.signal, second.apiKey.signal] as const

    socket.emit('close')
    await changing().revoke(dropped.apiKey.id)
    await changing().revoke(held.apiKey.id)

    expect(await reasonOf(signals[0])).toMatchObject({ reason: 'revoked' })
    expect(signals[1].aborted).toBe(false)
  })

  it('aborts for a change that comes while it looks at another one', async () => {
    const statements = recordStatements()
    const slow = createTestApiKeys(database, {
      sequelize: database.connect({ dialectModule: statements.driver }),
    })
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const verdict = await slow.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    await until(async () => (await slow.health()).doorbell === 'up')

    const held = statements.holdLookUps()
    await changing().update(apiKey.id, { name: 'Another name' })
    await held
    const { revision } = await slow.health()
    await changing().revoke(apiKey.id)
    await until(async () => (await slow.health()).revision === (revision ?? 0) + 1)
    statements.letGo()

    expect(await reasonOf(signal)).toMatchObject({ reason: 'revoked' })
    await slow.close()
  })

  it('leaves no listener behind at what it is for', async () => {
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const socket = new EventEmitter()
    const verdict = await serving().verify(plainTextKey, { until: socket })
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    expect(socket.listenerCount('close')).toBe(1)

    await changing().revoke(apiKey.id)
    await reasonOf(signal)

    expect(socket.listenerCount('close')).toBe(0)
  })

  it('aborts at once for a key that was revoked before anybody asked for the signal', async () => {
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const verdict = await serving().verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')

    await changing().revoke(apiKey.id)

    expect(await reasonOf(verdict.apiKey.signal)).toMatchObject({ reason: 'revoked' })
  })
})
