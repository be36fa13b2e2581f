import { json, Router } from 'express'

import type { AppApiKeys } from './api-keys'
import type { Database } from './database'
import { readInputs } from './executions'
import { Problem } from './problems'
import { runBlock } from './run-block'

/** The blocks of whoever owns the key. Those of others do not exist here. */
export function blocksRouter({ Block }: Database, apiKeys: AppApiKeys): Router {
  const { requirePermission, getApiKey } = apiKeys
  const router = Router()

  router.get('/', requirePermission('READ_BLOCK'), async function listBlocks(req, res) {
    const blocks = await Block.findAll({
      where: { userId: getApiKey(req).userId },
      attributes: ['id', 'name', 'kind', 'settings'],
      order: ['id'],
    })

    res.json({ blocks })
  })

  router.post(
    '/:id/execute',
    requirePermission('EXECUTE_BLOCK'),
    json(),
    async function executeBlock(req, res) {
      const { userId } = getApiKey(req)
      const block = await Block.findOne({ where: { id: req.params.id, userId } })
      if (!block) throw new Problem(404, 'You have no such block')

      res.json({ output: runBlock(block, readInputs(req)) })
    },
  )

  return router
}
