import { setTimeout as sleep } from 'node:timers/promises'

import { json, type Request, Router } from 'express'

import type { AppApiKeys } from './api-keys'
import type { Database } from './database'
import { openEventStream } from './event-stream'
import { readInputs, readPace } from './executions'
import { Problem } from './problems'
import { runGraph, stepThroughGraph } from './run-graph'

/** The graphs of whoever owns the key. Those of others do not exist here. */
export function graphsRouter({ Graph, Block }: Database, apiKeys: AppApiKeys): Router {
  const { requirePermission, getApiKey } = apiKeys
  const router = Router()

  router.get('/', requirePermission('READ_GRAPH'), async function listGraphs(req, res) {
    const graphs = await Graph.findAll({
      where: { userId: getApiKey(req).userId },
      attributes: ['id', 'name', 'inputs'],
      order: ['id'],
    })

    res.json({ graphs })
  })

  router.get('/:id', requirePermission('READ_GRAPH'), async function showGraph(req, res) {
    const { id, name, inputs, nodes, outputs } = await findGraph(req)

    res.json({ id, name, inputs, nodes, outputs })
  })

  router.post(
    '/:id/execute',
    requirePermission('EXECUTE_GRAPH'),
    json(),
    async function executeGraph(req, res) {
      const { graph, blocks } = await loadGraph(req)

      res.json({ outputs: runGraph(graph, blocks, readInputs(req)) })
    },
  )

  // A run that takes its time, as those of agents do. It ends when its key does.
  router.post(
    '/:id/run',
    requirePermission('EXECUTE_GRAPH'),
    json(),
    async function streamRun(req, res) {
      const [inputs, paceMs] = [readInputs(req), readPace(req)]
      const { graph, blocks } = await loadGraph(req)
      const steps = stepThroughGraph(graph, blocks, inputs)
      let step = steps.next()
      const { signal } = getApiKey(req)
      const gone = new AbortController()
      res.once('close', () => gone.abort())

      const send = openEventStream(res)
      try {
        for (; step.done !== true; step = steps.next()) {
          await sleep(paceMs, undefined, { signal: AbortSignal.any([signal, gone.signal]) })
          send('step', { ...step.value })
        }
        send('outputs', step.value)
      } catch (error) {
        send('error', { detail: describe(signal.aborted ? signal.reason : error) })
      }
      res.end()
    },
  )

  return router

  async function loadGraph(req: Request<{ id: string }>) {
    const graph = await findGraph(req)
    const blocks = await Block.findAll({
      where: { userId: graph.userId, id: graph.nodes.map(({ blockId }) => blockId) },
    })
    return { graph, blocks: new Map(blocks.map((block) => [block.id, block])) }
  }

  async function findGraph(req: Request<{ id: string }>) {
    const { userId } = getApiKey(req)
    const graph = await Graph.findOne({ where: { id: req.params.id, userId } })
    if (!graph) throw new Problem(404, 'You have no such graph')
    return graph
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : 'Something went wrong'
}
