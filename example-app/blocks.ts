import { json, Router } from 'express'

import { forTrials, type AppApiKeys } from './api-keys'
import type { Database } from './database'
import { ownedBy } from './organizations'
import { Problem } from './problems'
import { readInputs, runBlock } from './run-graph'

/** Serves the blocks of the key's owner, a user or an organization. For this key, blocks of other owners do not exist. */
export function blocksRouter({ Block }: Database, apiKeys: AppApiKeys): Router {
  const { requirePermission, getApiKey } = apiKeys
  const router = Router()

  router.get('/', requirePermission('READ_BLOCK', forTrials), async function listBlocks(req, res) {
    const where = ownedBy(getApiKey(req).owner)
    const attributes = ['id', 'name', 'kind', 'settings']

    res.json({ blocks: await Block.findAll({ where, attributes, order: ['id'] }) })
  })

  router.post(
    '/:id/execute',
    requirePermission('EXECUTE_BLOCK'),
    json(),
    async function executeBlock(req, res) {
      const { owner } = getApiKey(req)
      const block = await Block.findOne({ where: { id: req.params.id, ...ownedBy(owner) } })
      if (!block) throw new Problem(404, 'You have no such block')

      res.json({ output: runBlock(block, readInputs(req.body)) })
    },
  )

  return router
}
