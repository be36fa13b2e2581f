import { EventEmitter, once } from 'node:events'

import express, { type Response } from 'express'

import { createBindingApiKeys } from '../support/bound-keys'
import { reasonOf } from '../support/two-processes'
import { useWorld } from '../support/world'

const { database, rows } = useWorld()
const serving = createBindingApiKeys(database)
const changing = createBindingApiKeys(database)

const app = express()
const seen = new EventEmitter()
const graphs = express.Router()
// The parameters of the outer path are gone here.
graphs.get('/events', (req, res) => {
  res.write('begun')
  seen.emit('signal', serving.getApiKey(req).signal, res)
})
app.use(
  '/graphs/:id',
  serving.requirePermission('READ_GRAPH', { resource: (req) => ({ graph: req.params.id }) }),
  graphs,
)
app.get(
  '/self',
  serving.requirePermission('READ_GRAPH', { resource: null }),
  (req, res) => void seen.emit('signal', serving.getApiKey(req).signal, res.write('begun') && res),
)

/** Asks for the events of graph 7, or for another path, and leaves the response open. */
async function openResponse(resources: { graph: string[] } | null, path = '/graphs/7/events') {
  const { apiKey, plainTextKey } = await changing.create({
    userId: 'alice',
    name: 'Deployment',
    permissions: ['READ_GRAPH'],
    resources,
  })
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const signalled = once(seen, 'signal') as Promise<[AbortSignal, Response]>
  const fetching = fetch(`http://127.0.0.1:${port}${path}`, {
    headers: { Authorization: `Bearer ${plainTextKey}` },
  }).then((answer) => answer.text())
  const [signal, res] = await signalled

  return {
    id: apiKey.id,
    signal,
    async close() {
      res.end()
      await fetching
      server.close()
      await once(server, 'close')
    },
  }
}

describe('the signal of a key', () => {
  it('aborts when the key is bound to other resources than the request is about', async () => {
    const { id, signal, close } = await openResponse({ graph: ['7', '8'] })

    await changing.update(id, { resources: { graph: ['8'] } })

    expect(await reasonOf(signal)).toMatchObject({ code: 'resource_not_allowed', status: 403 })
    await close()
  })

  it.each<[string, { graph: string[] } | null]>([
    ['bound to the same and others', { graph: ['7', '9'] }],
    ['no longer bound', null],
  ])('goes on when the key is %s, and when it is renamed', async (_, resources) => {
    const { id, signal, close } = await openResponse({ graph: ['7', '8'] })

    await changing.update(id, { resources })
    await changing.update(id, { name: 'Another name' })
    await changing.revoke(id)

    expect(await reasonOf(signal)).toMatchObject({ reason: 'revoked' })
    await close()
  })

  it('aborts when the key was not bound, and then is', async () => {
    const { id, signal, close } = await openResponse(null)

    await rows(`UPDATE api_keys SET resources = '{"graph":["9"]}' WHERE id = $1`, [id])

    expect(await reasonOf(signal)).toMatchObject({ code: 'resource_not_allowed' })
    await close()
  })

  it('goes on if the route sees to it itself', async () => {
    const { id, signal, close } = await openResponse({ graph: ['7'] }, '/self')

    await changing.update(id, { resources: { graph: ['8'] } })
    await changing.revoke(id)

    expect(await reasonOf(signal)).toMatchObject({ reason: 'revoked' })
    await close()
  })

  it('of verify() aborts likewise', async () => {
    const { apiKey, plainTextKey } = await changing.create({
      userId: 'alice',
      name: 'Socket',
      permissions: ['READ_GRAPH'],
      resources: { graph: ['7'] },
    })
    const named = await serving.verify(plainTextKey, { resource: { graph: '7' } })
    const unnamed = await serving.verify(plainTextKey)
    if (!named.valid || !unnamed.valid) throw new Error('both are good')
    const [signal, other] = [named.apiKey.signal, unnamed.apiKey.signal]

    await changing.update(apiKey.id, { resources: { graph: [] } })
    expect(await reasonOf(signal)).toMatchObject({ code: 'resource_not_allowed' })
    await changing.revoke(apiKey.id)

    expect(await reasonOf(other)).toMatchObject({ reason: 'revoked' })
  })
})
