import express from 'express'
import serverless from 'serverless-http'

import type { Keys } from './api-keys'

/**
 * Makes a handler for AWS Lambda. The platform freezes a process after each answer, so uses are written before it. Make the instance with
 * `listen: false`, because a frozen process does not hear of changes: it asks for them when it wakes.
 */
export function createHandler(apiKeys: Keys) {
  const app = express()
  app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
    res.json({ ranFor: apiKeys.getApiKey(req).userId })
  })
  const respond = serverless(app)

  return async function handler(event: object, context: object): Promise<object> {
    const answer = await respond(event, context)
    await apiKeys.flush()
    return answer
  }
}
