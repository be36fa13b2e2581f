import express, {
  type Express,
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'

import { createApiKeys, type ApiKeysOptions, type UserOwner, type VerifiedApiKey } from '../../lib'
import type { Database } from './database'

declare global {
  namespace Express {
    interface Request {
      apiKey?: VerifiedApiKey<TestApp> | undefined
    }
  }
}

export const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'] as const

export type Permission = (typeof permissions)[number]

/** What the options below make of an app. */
export interface TestApp {
  permission: Permission
  owner: UserOwner<string>
  environment: never
  resource: never
}

export interface User {
  id: string
  admin: boolean
}

export type Options = Partial<
  ApiKeysOptions<Permission, User, 'text', false, false, never, never, Request, Response> & {
    keyPrefix: string
  }
>

/** The API keys of an app whose users sign in by naming themselves in the header `X-User`. */
export function createTestApiKeys(
  database: Pick<Database, 'connect'> & Partial<Pick<Database, 'closeFirst'>>,
  options: Options = {},
) {
  const apiKeys = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions,
    currentUser: signedInUser,
    isAdmin: (user) => user.admin,
    ...options,
  })
  database.closeFirst?.(apiKeys)
  return apiKeys
}

export type TestApiKeys = ReturnType<typeof createTestApiKeys>

/** Returns the number of verifications so far that needed the cache or the database. */
export async function countVerifications(apiKeys: TestApiKeys): Promise<number> {
  const { hits, misses } = (await apiKeys.health()).cache
  return hits + misses
}

/** Returns the user who names themselves in the header `X-User`. */
export function signedInUser(req: Request): User | undefined {
  const id = req.get('X-User')
  return id ? { id, admin: id.startsWith('admin') } : undefined
}

/** Makes an app with both routers, and the routes of `addRoutes` behind them. */
export function createTestApp(
  apiKeys: Record<'router' | 'adminRouter', () => RequestHandler>,
  addRoutes?: (app: Express) => void,
): Express {
  const app = express()
  app.use('/api-keys', apiKeys.router())
  app.use('/admin/api-keys', apiKeys.adminRouter())
  addRoutes?.(app)
  app.use((_req: Request, res: Response) => {
    res.status(404).json({ app: 'not found' })
  })
  app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(500).json({ app: error.message })
  })
  return app
}

/** Makes an app whose handler shows its request behind these middlewares, and whose error handler shows its error. */
export function createEchoApp(...middlewares: RequestHandler[]): Express {
  const app = express()
  app.use(...middlewares)
  app.use((req, res) => {
    res.json({ apiKey: req.apiKey ?? null, user: req.user ?? null })
  })
  app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(500).json({ app: error.message })
  })
  return app
}
