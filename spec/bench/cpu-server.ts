import { once } from 'node:events'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'

import express, { type RequestHandler } from 'express'
import type * as Library from 'express-api-keys'
import { Passport } from 'passport'
import { Strategy as BearerStrategy } from 'passport-http-bearer'
import { Sequelize } from 'sequelize'

import type { BuildName, CpuVariantName } from './cpu-variants'
import { inventTokens, keyPrefix, writeTokens } from './keys'
import { answerQuestions } from './processes'
import { findInMap, refuseLikeOurs } from './stand-ins'

/*
 * One process with an app for each variant of each build of the library, and one route in each app. A build may add to the requests
 * of its app. And in one app, each route would cost more than the route before it, because Express tries them in turn.
 */

export type CpuServerQuestion =
  | { kind: 'open'; build: BuildName }
  | { kind: 'verify'; build: BuildName; calls: number }
  | { kind: 'cpu' }

/** The ports of the apps, by the names of their variants. */
export type Ports = Readonly<Record<string, number>>

/** The answer to `open`: the ports. The answer to `verify`, and to `cpu`: microseconds of CPU time. */
export type CpuServerAnswer = Ports | number

const { DATABASE_URL: url = '', SECRET: secret = '', FOLDER: folder = '' } = process.env
const { AGAINST: against = '' } = process.env

const keyCount = 100

/** Never reached. */
const limits = {
  burst: { limit: 1_000_000_000, windowSeconds: 60 },
  monthly: { limit: 1_000_000_000, windowSeconds: 30 * 86_400 },
}

const opened = new Map<BuildName, { apiKeys: Library.AnyApiKeys; keys: string[] }>()

answerQuestions(async (question: CpuServerQuestion): Promise<CpuServerAnswer> => {
  switch (question.kind) {
    case 'open':
      return openApps(question.build)
    case 'verify':
      return verifyInTurn(question)
    case 'cpu':
      // Each turn begins, and is measured, with no garbage of the turn before.
      globalThis.gc?.({ type: 'minor' })
      return usedMicroseconds()
  }
})

function usedMicroseconds(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

/** Makes tables and keys by means of the build itself, because builds may differ in their tables. */
async function openApps(build: BuildName): Promise<Ports> {
  // A build of another checkout has the same functions, or the bench fails here.
  const library = require(build === 'this' ? 'express-api-keys' : against) as typeof Library

  async function open(name: string, options: { secrets?: string[]; limits?: Library.Limits }) {
    const apiKeys = library.createApiKeys({
      sequelize: new Sequelize(url, { logging: false, pool: { max: 5 } }),
      keyPrefix,
      permissions: ['READ_GRAPH'],
      schema: `${build}_${name}`,
      maxFailedAttemptsPerMinute: Infinity,
      // There are several instances in this process. Their polls are to disturb the turns as little as possible.
      maxStalenessMs: 30_000,
      ...options,
    })
    await apiKeys.migrate()
    const bounds = {
      expiresAt: new Date(Date.now() + 86_400_000),
      allowedIps: ['203.0.113.0/24', '127.0.0.0/8'],
      metadata: { plan: 'gold' },
    }
    const keys: string[] = []
    for (let made = 0; made < keyCount; made++) {
      const { plainTextKey } = await apiKeys.create({
        userId: `user-${made}`,
        name: 'Deployment',
        permissions: ['READ_GRAPH'],
        ...(options.limits && bounds),
      })
      keys.push(plainTextKey)
    }
    await writeTokens(join(folder, `${build}-${name}`), keys)
    return { apiKeys, keys }
  }

  /** An instance of an app with every kind of owner, permission and binding, and three lists of keys. */
  async function openOthers() {
    const sequelize = new Sequelize(url, { logging: false, pool: { max: 5 } })
    await sequelize.query(
      `CREATE TABLE IF NOT EXISTS organizations (id integer PRIMARY KEY);
       INSERT INTO organizations SELECT generate_series(0, ${keyCount - 1}) ON CONFLICT DO NOTHING`,
    )
    const apiKeys = library.createApiKeys({
      sequelize,
      keyPrefix,
      permissions: {
        READ_GRAPH: 'Read graphs',
        EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_GRAPH'] },
      },
      organizations: { table: 'organizations', type: 'integer' },
      resources: { graph: true },
      schema: `${build}_others`,
      maxFailedAttemptsPerMinute: Infinity,
      maxStalenessMs: 30_000,
    })
    await apiKeys.migrate()
    const graph = Array.from({ length: 100 }, (_, index) => String(index + 1))
    const wishes = {
      organization: (id: number) => ({
        owner: { type: 'organization', id } as const,
        permissions: ['READ_GRAPH'] as const,
      }),
      implied: (id: number) => ({
        owner: { type: 'user', id: `user-${id}` } as const,
        permissions: ['EXECUTE_GRAPH'] as const,
      }),
      resources: (id: number) => ({
        owner: { type: 'user', id: `user-${id}` } as const,
        permissions: ['READ_GRAPH'] as const,
        resources: { graph },
      }),
    }
    for (const [name, wish] of Object.entries(wishes)) {
      const keys: string[] = []
      for (let made = 0; made < keyCount; made++) {
        const { plainTextKey } = await apiKeys.create({ name: 'Deployment', ...wish(made) })
        keys.push(plainTextKey)
      }
      await writeTokens(join(folder, `${build}-${name}`), keys)
    }
    return apiKeys
  }

  const plain = await open('plain', {})
  const keyed = await open('keyed', { secrets: [secret] })
  const bound = await open('bound', { limits })
  // A build from before there were organizations has the keys of users in their place.
  const others = await openOthers().catch(async (error: unknown) => {
    if (build === 'this') throw error
    for (const name of ['organization', 'implied', 'resources'])
      await writeTokens(join(folder, `${build}-${name}`), plain.keys)
    return undefined
  })
  await writeTokens(join(folder, `${build}-garbage`), inventTokens(keyCount))
  await writeTokens(join(folder, `${build}-none`), [''])
  opened.set(build, plain)

  const passport = new Passport()
  passport.use(plain.apiKeys.strategy)
  passport.use('bearer', new BearerStrategy(findInMap(join(folder, `${build}-plain`))))
  const guard = plain.apiKeys.requirePermission('READ_GRAPH')
  const guards: Record<Exclude<CpuVariantName, 'verify'>, RequestHandler | undefined> = {
    bare: undefined,
    control: undefined,
    guard,
    guardKeyed: keyed.apiKeys.requirePermission('READ_GRAPH'),
    guardPolicies: bound.apiKeys.requirePermission('READ_GRAPH'),
    guardOrganization: others?.requirePermission('READ_GRAPH') ?? guard,
    guardImplied: others?.requirePermission('READ_GRAPH') ?? guard,
    guardResources:
      others?.requirePermission('READ_GRAPH', {
        resource: (req) => ({ graph: req.params.id }),
      }) ?? guard,
    // Typed as any middleware.
    passport: passport.authenticate('api-key', { session: false }) as RequestHandler,
    passportMap: passport.authenticate('bearer', { session: false }) as RequestHandler,
    garbage: keyed.apiKeys.requirePermission('READ_GRAPH'),
    bareRefusal: refuseLikeOurs,
  }
  const ports: Record<string, number> = {}
  for (const [name, middleware] of Object.entries(guards)) ports[name] = await listen(middleware)
  return ports
}

async function listen(guard: RequestHandler | undefined): Promise<number> {
  const app = express()
  app.get('/graphs/:id', ...(guard ? [guard] : []), function showGraph(req, res) {
    res.json({ id: req.params.id, name: 'Weekly report' })
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // The connections wait while the other variants have their turn.
  server.keepAliveTimeout = 0
  // The address of a TCP server is never the string of a pipe.
  return (server.address() as AddressInfo).port
}

async function verifyInTurn({ build, calls }: { build: BuildName; calls: number }) {
  const { apiKeys, keys } = opened.get(build) ?? {}
  const before = usedMicroseconds()
  for (let call = 0; call < calls; call++) {
    const verdict = await apiKeys?.verify(keys?.[call % keyCount] ?? '')
    if (verdict?.valid !== true) throw new Error('a good key was refused')
  }
  return usedMicroseconds() - before
}
