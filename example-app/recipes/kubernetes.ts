import { Router } from 'express'

import type { Keys } from './api-keys'

/**
 * Serves the probes of Kubernetes. A process lives while it answers. It is ready while it can verify keys, which needs the database. Do not
 * use readiness as liveness: a restart does not bring a database back.
 */
export function probes(apiKeys: Keys): Router {
  const router = Router()

  router.get('/livez', (_req, res) => {
    res.sendStatus(200)
  })

  router.get('/readyz', async (_req, res) => {
    const { ok, reason } = await apiKeys.health({ probe: true })
    res.status(ok ? 200 : 503).json({ ok, reason })
  })

  return router
}
