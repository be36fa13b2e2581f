import express, { type Express } from 'express'
import { createProxyMiddleware } from 'http-proxy-middleware'

import type { Keys } from './api-keys'

/** The headers by which servers behind the gateway know the caller. Clients may not set them. */
const identity = new Set(['x-caller-id', 'x-api-key-id', 'x-permissions'])

/**
 * Makes a gateway. Servers behind it get the identity of the caller in headers, in place of the key, and must be reachable through the gateway
 * alone.
 */
export function createGateway(apiKeys: Keys, target: string): Express {
  const app = express()

  app.use(apiKeys.authenticate(), (req, _res, next) => {
    const { id, userId, permissions } = apiKeys.getApiKey(req)
    for (const name of Object.keys(req.headers)) {
      // Servers of WSGI and PHP do not tell `x_caller_id` from `x-caller-id`.
      if (identity.has(name.replaceAll('_', '-'))) delete req.headers[name]
    }
    delete req.headers.authorization
    req.headers['x-caller-id'] = userId
    req.headers['x-api-key-id'] = id
    req.headers['x-permissions'] = [...permissions].join(' ')
    next()
  })
  app.use(createProxyMiddleware({ target }))

  return app
}
