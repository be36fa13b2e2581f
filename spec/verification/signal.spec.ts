import { EventEmitter, once } from 'node:events'

import express, { type Express } from 'express'

import { InvalidApiKeyError, MissingPermissionError, type Guard } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { reasonOf, useTwoProcesses } from '../support/two-processes'
import { until } from '../support/until'

const processes = useTwoProcesses()

/** Requests a route behind guards, with a key that holds two permissions, and leaves its response open. */
async function openResponse(
  guardsOf: (apiKeys: TestApiKeys) => Guard[],
  wishes: Parameters<typeof newKey>[0] = {},
) {
  const { apiKey, plainTextKey } = await processes.changing.create(
    newKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'], ...wishes }),
  )
  const seen = new EventEmitter()
  const app: Express = express()
  app.get('/', ...guardsOf(processes.serving), (req, res) => {
    const { signal } = processes.serving.getApiKey(req)
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

  async function close() {
    client.abort()
    await fetching
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }

  // The handler runs before its answer arrives.
  const begun = await Promise.race([signalled, fetching.then(() => undefined)])
  if (!begun) return close().then(refuse)

  const [signal, res] = begun
  return { id: apiKey.id, signal, res, close }
}

/**
 * Plays a scenario with a key that soon expires. On a busy machine, the key may expire before the scenario has used it. Then the
 * scenario is played again, with a key that lives for twice as long.
 */
async function withShortLife<Result>(play: (expiresAt: Date) => Promise<Result>): Promise<Result> {
  for (let lifeMs = 500; ; lifeMs *= 2) {
    const expiresAt = new Date(Date.now() + lifeMs)
    try {
      return await play(expiresAt)
    } catch (error) {
      if (!String(error).includes(refused) || Date.now() < expiresAt.getTime()) throw error
    }
  }
}

const refused = 'The key was refused.'

function refuse(): never {
  throw new Error(refused)
}

function requireRead(apiKeys: TestApiKeys) {
  return [apiKeys.requirePermission('READ_GRAPH')]
}

describe('the signal of a key', () => {
  it.each<[string, (id: string) => Promise<unknown>, string]>([
    ['revoked', (id) => processes.changing.revoke(id), 'revoked'],
    ['suspended', (id) => processes.changing.suspend(id), 'suspended'],
    [
      'deleted',
      (id) => processes.world.rows('DELETE FROM api_keys WHERE id = $1', [id]),
      'unknown',
    ],
    [
      'made to expire',
      (id) => processes.changing.update(id, { expiresAt: new Date(Date.now() + 200) }),
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
    const { signal, close } = await withShortLife((expiresAt) =>
      openResponse(requireRead, { expiresAt }),
    )

    expect(await reasonOf(signal)).toMatchObject({ reason: 'expired' })
    await close()
  })

  it('aborts when the key loses a permission that a guard demanded, and not for another permission', async () => {
    const { id, signal, close } = await openResponse((apiKeys) => [
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.requirePermission({ any: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'] }),
    ])

    await processes.changing.setPermissions(id, ['READ_GRAPH', 'EXECUTE_BLOCK'])
    await processes.changing.update(id, { name: 'Another name' })
    expect(signal.aborted).toBe(false)
    await processes.changing.setPermissions(id, ['READ_GRAPH', 'READ_BLOCK'])

    const error = await reasonOf(signal)
    expect(error).toBeInstanceOf(MissingPermissionError)
    expect(error).toMatchObject({
      missing: ['EXECUTE_GRAPH'],
      anyOf: [['EXECUTE_GRAPH'], ['EXECUTE_BLOCK']],
    })
    await close()
  })

  it('goes on when the expiry of the key is put off', async () => {
    const { id, signal, close } = await withShortLife(async (expiresAt) => {
      const opened = await openResponse(requireRead, { expiresAt })
      await processes.changing.update(opened.id, {
        expiresAt: new Date(Date.now() + 3_600_000_000),
      })
      if (!opened.signal.aborted) return opened

      await opened.close()
      return refuse()
    })
    const { signal: other, close: closeOther } = await withShortLife((expiresAt) =>
      openResponse(requireRead, { expiresAt }),
    )

    // The second key expires later. By then, the timer of the first key is over as well.
    expect(await reasonOf(other)).toMatchObject({ reason: 'expired' })
    expect(signal.aborted).toBe(false)
    await processes.changing.suspend(id)

    expect(await reasonOf(signal)).toMatchObject({ reason: 'suspended' })
    await Promise.all([close(), closeOther()])
  })

  it('is the same within a request, and differs between requests', async () => {
    const { plainTextKey } = await processes.changing.create(newKey())
    const [first, second] = [
      await processes.serving.verify(plainTextKey),
      await processes.serving.verify(plainTextKey),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')

    expect(first.apiKey.signal).toBe(first.apiKey.signal)
    expect(first.apiKey.signal).not.toBe(second.apiKey.signal)
    expect(JSON.stringify(first.apiKey)).not.toContain('signal')
  })

  it('is dropped when the response closes', async () => {
    const [one, two] = [await openResponse(requireRead), await openResponse(requireRead)]
    await one.close()
    if (!one.res.closed) await once(one.res, 'close')

    await processes.changing.revoke(one.id)
    await processes.changing.revoke(two.id)

    await reasonOf(two.signal)
    expect(one.signal.aborted).toBe(false)
    await two.close()
  })

  it('aborts without a request, until its event emitter closes', async () => {
    const [held, dropped] = [
      await processes.changing.create(newKey()),
      await processes.changing.create(newKey()),
    ]
    const socket = new EventEmitter()
    const [first, second] = [
      await processes.serving.verify(held.plainTextKey),
      await processes.serving.verify(dropped.plainTextKey, { until: socket }),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')
    const signals = [first.apiKey.signal, second.apiKey.signal] as const

    socket.emit('close')
    await processes.changing.revoke(dropped.apiKey.id)
    await processes.changing.revoke(held.apiKey.id)

    expect(await reasonOf(signals[0])).toMatchObject({ reason: 'revoked' })
    expect(signals[1].aborted).toBe(false)
  })

  it('aborts for a change that comes while another change is checked', async () => {
    const { apiKeys: slow, statements } = processes.world.createProcess()
    const { apiKey, plainTextKey } = await processes.changing.create(newKey())
    const verdict = await slow.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    await until(async () => (await slow.health()).listener === 'up')

    const held = statements.holdLookUps()
    await processes.changing.update(apiKey.id, { name: 'Another name' })
    await held
    await processes.changing.revoke(apiKey.id)
    const [newest] = await processes.world.rows<{ revision: number }>(
      'SELECT max(revision)::float8 AS revision FROM api_key_revisions',
    )
    await until(async () => (await slow.health()).revision === newest?.revision)
    statements.letGo()

    expect(await reasonOf(signal)).toMatchObject({ reason: 'revoked' })
    await slow.close()
  })

  it('leaves no listener behind at its event emitter', async () => {
    const { apiKey, plainTextKey } = await processes.changing.create(newKey())
    const socket = new EventEmitter()
    const verdict = await processes.serving.verify(plainTextKey, { until: socket })
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    expect(socket.listenerCount('close')).toBe(1)

    await processes.changing.revoke(apiKey.id)
    await reasonOf(signal)
  })

  it('aborts by an event if the key had expired before the signal was asked for', async () => {
    const verified = await withShortLife(async (expiresAt) => {
      const { plainTextKey } = await processes.changing.create(newKey({ expiresAt }))
      const verdict = await processes.serving.verify(plainTextKey)
      return verdict.valid ? { ...verdict, expiresAt } : refuse()
    })
    await until(() => Date.now() > verified.expiresAt.getTime())

    const aborted = once(verified.apiKey.signal, 'abort')

    await aborted
    expect(verified.apiKey.signal.reason).toMatchObject({ reason: 'expired' })
  })

  it('aborts at once for a key that was revoked before the signal was asked for', async () => {
    const { apiKey, plainTextKey } = await processes.changing.create(newKey())
    const verdict = await processes.serving.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')

    await processes.changing.revoke(apiKey.id)

    expect(await reasonOf(verdict.apiKey.signal)).toMatchObject({ reason: 'revoked' })
  })
})
