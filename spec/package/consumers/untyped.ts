/*
 * The promises of the types in an app without types of Express, for example with another server. A line below
 * `@ts-expect-error` must be an error.
 */
import { createServer } from 'node:http'

import { createApiKeys, type AppRequest } from 'express-api-keys'
import { Sequelize } from 'sequelize'

const apiKeys = createApiKeys({
  sequelize: new Sequelize('postgres://localhost/app'),
  keyPrefix: 'acme',
  permissions: ['READ_GRAPH'],
  currentUser: (req) => req.user,
  isAdmin: (user) => user.id === 'root',
  loadOwner: ({ id: userId }, req) => (req.get('Accept') === '*/*' ? { id: userId } : null),
  onRefusal(error, _req, res) {
    res.status(error.status).set(error.headers).json({ code: error.code })
  },
})
createApiKeys({
  sequelize: new Sequelize('postgres://localhost/app'),
  keyPrefix: 'acme',
  permissions: ['READ_GRAPH'],
  currentUser: (req: AppRequest) => (req.headers['x-user'] ? { id: 'alice', admin: true } : null),
  // @ts-expect-error the user has no such property
  isAdmin: (user) => user.isAdministrator,
})

const guard = apiKeys.requirePermission('READ_GRAPH')
const router = apiKeys.router()

createServer((req, res) => {
  guard(req, res, () => res.end(apiKeys.getApiKey(req).userId.toUpperCase()))
  router(req, res, (error) => res.end(String(error)))
  // @ts-expect-error a guard takes a request
  guard({}, res, () => {})
})
