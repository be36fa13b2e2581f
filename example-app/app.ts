import express, { type Express, type RequestHandler } from 'express'
import type { Store } from 'express-session'

import type { AppApiKeys } from './api-keys'
import { blocksRouter } from './blocks'
import type { Database } from './database'
import { graphsRouter } from './graphs'
import { createMembership, mayIntrospect } from './organizations'
import { pagesRouter } from './pages'
import { answerProblem, refuseUnknownPath } from './problems'
import { createPassport, createSessions, signInRouter } from './sign-in'

export interface AppOptions {
  database: Database
  apiKeys: AppApiKeys
  sessions: { store: Store; secret: string }
  metrics: RequestHandler
}

/** Puts the app together. Requests pass the lines in this order. */
export function createApp({ database, apiKeys, sessions, metrics }: AppOptions): Express {
  const app = express()
  app.disable('x-powered-by')

  const passport = createPassport(database)
  app.use(createSessions(passport, sessions))
  app.use(signInRouter(passport))
  app.use(pagesRouter(database))
  app.get('/', function describeRoutes(_req, res) {
    res.type('text/plain').send(overview)
  })

  // Signed-in users manage their own keys. Administrators manage all keys.
  app.use('/api-keys', apiKeys.router({ openApi: { signIn: session } }))
  app.use('/admin/api-keys', apiKeys.adminRouter())
  // Members of an organization manage its keys, or see them.
  const organization = createMembership(database)
  app.use('/organizations/:organizationId/api-keys', apiKeys.router({ organization }))
  // The same as pages.
  app.use('/settings/api-keys', apiKeys.console(pagesOfKeys))
  app.use(
    '/organizations/:organizationId/settings/api-keys',
    apiKeys.console({ ...pagesOfKeys, organization }),
  )
  app.use('/admin/settings/api-keys', apiKeys.console({ ...pagesOfKeys, admin: true }))

  // Programs send a key. It must hold the permission that the route demands.
  app.use('/graphs', graphsRouter(database, apiKeys))
  app.use('/blocks', blocksRouter(database, apiKeys))

  // Other servers ask what a key of their own owner may do, and who knows a key may end it, by the endpoints of OAuth.
  app.use(
    '/oauth',
    apiKeys.tokenRouter({ introspect: { permission: 'READ_GRAPH', mayIntrospect } }),
  )

  // The same with Passport, for apps that use it. Accepts any usable key.
  passport.use(apiKeys.strategy)
  app.get(
    '/me',
    passport.authenticate('api-key', { session: false, failWithError: true }),
    function showKey(req, res) {
      const { owner, name, environment, permissions, expiresAt } = apiKeys.getApiKey(req)
      res.json({ owner, apiKey: { name, environment, permissions, expiresAt } })
    },
  )

  // For the monitoring of this process.
  app.get('/health', async function showHealth(_req, res) {
    res.json(await apiKeys.health())
  })
  // An app of yours lets nobody but Prometheus in here. `grafana-dashboard.json` shows these metrics.
  app.get('/metrics', metrics)

  app.use(refuseUnknownPath)
  app.use(answerProblem)
  return app
}

/** How users sign in, for the OpenAPI document of their keys. */
const session = { type: 'apiKey', in: 'cookie', name: 'session' }

const pagesOfKeys = {
  title: 'Agent platform',
  signIn: '/sign-in',
  example: '/me',
  back: { href: '/', text: 'Overview' },
  permissionGroups: {
    Graphs: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    Blocks: ['READ_BLOCK', 'EXECUTE_BLOCK'],
  },
} as const

const overview = `A small agent platform that shows express-api-keys at work.

People sign in (alice, bob or admin; each password is the name) and manage API keys:
  GET    /sign-in                 pages for people, in a browser; they lead to all others
  POST   /sign-in                 { "username": "alice", "password": "alice" }
  POST   /sign-out
  POST   /api-keys                { "name": "My key", "permissions": ["READ_GRAPH"] }; with "environment": "test"
                                  a key for trials, which begins with agpt_test_
  GET    /api-keys                also /api-keys/:id; PATCH, DELETE and more; /api-keys/openapi.json has all
  GET    /admin/api-keys          the keys of all users and organizations, for admin; pages: /admin/settings/api-keys
  GET    /organizations/acme/api-keys
                                  the keys of Acme, like /api-keys; alice manages them, bob sees them

Programs send a key, Authorization: Bearer agpt_..., that holds the permission, and reach what its owner has: a user, or Acme.
Keys for trials may read, and nothing else:
  GET    /graphs                  READ_GRAPH
  GET    /graphs/:id              READ_GRAPH
  POST   /graphs/:id/execute      EXECUTE_GRAPH   { "inputs": { "name": "Ada" } }
  POST   /graphs/:id/run          EXECUTE_GRAPH   the same step by step, as server-sent events:
                                                  { "inputs": { "name": "Ada" }, "paceMs": 5000 }
  GET    /blocks                  READ_BLOCK
  POST   /blocks/:id/execute      EXECUTE_BLOCK   { "inputs": { "text": "hello" } }
  GET    /me                      any

Other servers send a key as well, or as the secret of a client, and ask about keys of the same owner:
  POST   /oauth/introspect        READ_GRAPH      token=agpt_...
  POST   /oauth/revoke            none            token=agpt_..., the key that ends

The monitoring of the app asks:
  GET    /health                  the state of this process's verification
  GET    /metrics                 the metrics of this process, for Prometheus

To get a key: sign in, keep the session's cookie, and POST /api-keys. The answer holds the key, once.
`
