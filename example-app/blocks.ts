import { json, Router } from 'express'

import { forTrials, type AppApiKeys } from './api-keys'
import type { Database } from './database'
import { Problem } from './problems'
import { readInputs, runBlock } from './run-graph'

/** Serves the blocks of the key's owner. For this key, blocks of other users do not exist. */
export function blocksRouter({ Block }: Database, apiKeys: AppApiKeys): Router {
  const { requirePermission, getApiKey } = apiKeys
  const router = Router()

  router.get('/', requirePermission('READ_BLOCK', forTrials), async function listBlocks(req, res) {
    const { userId } = getApiKey(req)
    const attributes = ['id', 'name', 'kind', 'settings']

    res.json({ blocks: await Block.findAll({ where: { userId }, attributes, order: ['id'] }) })
  })

  router.post(
    '/:id/execute',
    requirePermission('EXECUTE_BLOCK'),
    json(),
    async function executeBlock(req, res) {
      const { userId } = getApiKey(req)
      const block = await Block.findOne({ where: { id: req.params.id, userId } })
      if (!block) throw new Problem(404, 'You have no such block')

      res.json({ output: runBlock(block, readInputs(req.body)) })
    },
  )

  return router
}
