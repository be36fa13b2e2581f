import { setTimeout as sleep } from 'node:timers/promises'

import { json, type Request, Router } from 'express'

import { forGraph, forTrials, type AppApiKeys } from './api-keys'
import type { Database } from './database'
import { ownedBy } from './organizations'
import { Problem } from './problems'
import { readInputs, runGraph } from './run-graph'

/** Serves the graphs of the key's owner, a user or an organization. For this key, graphs of other owners do not exist. */
export function graphsRouter({ Graph, Block }: Database, apiKeys: AppApiKeys): Router {
  const { requirePermission, getApiKey } = apiKeys
  const router = Router()

  // The list sees to the graphs of the key itself: undefined are all, an empty list is none.
  const forList = { ...forTrials, resource: null }
  router.get('/', requirePermission('READ_GRAPH', forList), async function listGraphs(req, res) {
    const { owner, resources } = getApiKey(req)
    const ids = resources?.graph
    const where = { ...ownedBy(owner), ...(ids && { id: [...ids] }) }
    const attributes = ['id', 'name', 'inputs']

    res.json({ graphs: await Graph.findAll({ where, attributes, order: ['id'] }) })
  })

  router.get(
    '/:id',
    requirePermission('READ_GRAPH', { ...forTrials, ...forGraph }),
    async function showGraph(req, res) {
      const { id, name, inputs, blocks } = await findGraph(req)

      res.json({ id, name, inputs, blocks })
    },
  )

  router.post(
    '/:id/execute',
    requirePermission('EXECUTE_GRAPH', forGraph),
    json(),
    async function executeGraph(req, res) {
      const steps = await execute(req)

      res.json({ outputs: { [req.params.id]: steps.at(-1)?.output } })
    },
  )

  // A long answer, which ends as soon as its key is revoked, suspended or expired.
  router.post(
    '/:id/run',
    requirePermission('EXECUTE_GRAPH', forGraph),
    json(),
    async function streamRun(req, res) {
      const { signal } = getApiKey(req)
      const paceMs = readPace(req.body)
      const steps = await execute(req)

      res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).flushHeaders()
      const send = (event: string, content: object) =>
        res.write(`event: ${event}\ndata: ${JSON.stringify(content)}\n\n`)
      try {
        for (const step of steps) {
          await sleep(paceMs, undefined, { signal })
          send('step', step)
        }
        send('outputs', { [req.params.id]: steps.at(-1)?.output })
      } catch {
        // Only the signal interrupts the pause. Its reason is the library's refusal, an Error.
        send('error', { detail: (signal.reason as Error).message })
      }
      res.end()
    },
  )

  return router

  async function findGraph(req: Request<{ id: string }>) {
    const { owner } = getApiKey(req)
    const graph = await Graph.findOne({ where: { id: req.params.id, ...ownedBy(owner) } })
    if (!graph) throw new Problem(404, 'You have no such graph')

    return graph
  }

  async function execute(req: Request<{ id: string }>) {
    const { userId, organizationId, blocks: ids } = await findGraph(req)
    const blocks = await Block.findAll({ where: { userId, organizationId, id: ids } })
    blocks.sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id))

    return runGraph(blocks, readInputs(req.body))
  }
}

/** Returns the pause before each step of a run, one second if the body has no `paceMs`. */
function readPace(body: { paceMs?: unknown } | undefined): number {
  const paceMs = body?.paceMs ?? 1000
  if (typeof paceMs !== 'number' || !(paceMs >= 0 && paceMs <= 60_000)) {
    throw new Problem(422, 'paceMs must be a number from 0 to 60000')
  }
  return paceMs
}
