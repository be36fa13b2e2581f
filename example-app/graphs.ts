import { json, type Request, Router } from 'express'

import type { AppApiKeys } from './api-keys'
import type { Database } from './database'
import { readInputs } from './executions'
import { Problem } from './problems'
import { runGraph } from './run-graph'

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
      const graph = await findGraph(req)
      const blocks = await Block.findAll({
        where: { userId: graph.userId, id: graph.nodes.map(({ blockId }) => blockId) },
      })

      const blocksById = new Map(blocks.map((block) => [block.id, block]))
      res.json({ outputs: runGraph(graph, blocksById, readInputs(req)) })
    },
  )

  return router

  async function findGraph(req: Request<{ id: string }>) {
    const { userId } = getApiKey(req)
    const graph = await Graph.findOne({ where: { id: req.params.id, userId } })
    if (!graph) throw new Problem(404, 'You have no such graph')
    return graph
  }
}
