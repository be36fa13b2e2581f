import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

import express, { type Request, type RequestHandler, type Response } from 'express'
import passport from 'passport'
import { Strategy as BearerStrategy } from 'passport-http-bearer'
import { DataTypes, Sequelize, type Model } from 'sequelize'

import type * as BetterAuth from './better-auth'
import { openOurs } from './ours'
import { answerQuestions } from './processes'
import { findInMap, readMap, refuseLikeOurs } from './stand-ins'
import type { VariantName } from './variants'

/*
 * One server, with one kind of guard before the same route. It reports its port and its CPU time.
 */

export type ServerQuestion = 'port' | 'cpu'

const { DATABASE_URL: url = '', SECRET: secret = '', TOKENS: tokens = '' } = process.env

/** All of the forgeries come from one address. */
const lenient = { maxFailedAttemptsPerMinute: Infinity }

/** Never reached. */
const limits = {
  burst: { limit: 1_000_000_000, windowSeconds: 60 },
  monthly: { limit: 1_000_000_000, windowSeconds: 30 * 86_400 },
}

/** The middleware in front of the route. */
const guards: Record<VariantName, () => RequestHandler | undefined> = {
  bare: () => undefined,
  control: () => undefined,
  bareRefusal: () => refuseLikeOurs,
  map: lookUpInMap,
  passportMap: () => authenticateWith('bearer', new BearerStrategy(findInMap(tokens))),
  sequelize: authenticateWithSequelize,
  betterAuth: authenticateWithBetterAuth,
  guard: () => openOurs({ url, ...lenient }).requirePermission('READ_GRAPH'),
  guardKeyed: () =>
    openOurs({ url, ...lenient, secrets: [secret] }).requirePermission('READ_GRAPH'),
  guardStrict: () => openOurs({ url, secrets: [secret] }).requirePermission('READ_GRAPH'),
  guardPolicies: () => openOurs({ url, limits }).requirePermission('READ_GRAPH'),
  passport: () => authenticateWith('api-key', openOurs({ url, ...lenient }).strategy),
}

async function startServer() {
  const app = express()
  // The one argument is a name of a variant: the bench starts nothing else.
  const guard = guards[process.argv[2] as VariantName]()
  app.get('/graphs/:id', ...(guard ? [guard] : []), function showGraph(req, res) {
    res.json({ id: req.params.id, name: 'Weekly report' })
  })

  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // The connections wait while the other variants have their turn.
  server.keepAliveTimeout = 0
  // The address of a TCP server is never the string of a pipe.
  const { port } = server.address() as AddressInfo

  answerQuestions((question: ServerQuestion): number => {
    if (question === 'port') return port
    const { user, system } = process.cpuUsage()
    return user + system
  })
}

void startServer()

function lookUpInMap(): RequestHandler {
  const map = readMap(tokens)

  return function authenticate(req, res, next) {
    const key = map.get(bearerToken(req) ?? '')
    if (!key) return unauthorized(res)
    if (!key.permissions.includes('READ_GRAPH')) return forbidden(res)

    req.user = key
    next()
  }
}

function authenticateWith(name: string, strategy: passport.Strategy): RequestHandler {
  passport.use(name, strategy)
  // The type fits any middleware.
  return passport.authenticate(name, { session: false }) as RequestHandler
}

interface KeyRow {
  id: string
  userId: string
  hash: string
  permissions: string[]
  status: string
  expiresAt: Date | null
  lastUsedAt: Date | null
}

function authenticateWithSequelize(): RequestHandler {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 10 } })
  const Key = sequelize.define<Model<KeyRow> & KeyRow>(
    'Key',
    {
      id: { type: DataTypes.UUID, primaryKey: true },
      userId: { type: DataTypes.TEXT },
      hash: { type: DataTypes.TEXT },
      permissions: { type: DataTypes.ARRAY(DataTypes.TEXT) },
      status: { type: DataTypes.TEXT },
      expiresAt: { type: DataTypes.DATE },
      lastUsedAt: { type: DataTypes.DATE },
    },
    { tableName: 'keys', underscored: true, timestamps: false },
  )

  return async function authenticate(req, res, next) {
    const token = bearerToken(req) ?? ''
    const hash = createHash('sha256').update(token).digest('hex')
    const key = await Key.findOne({ where: { hash } })
    if (key?.status !== 'ACTIVE' || (key.expiresAt && key.expiresAt <= new Date()))
      return unauthorized(res)
    if (!key.permissions.includes('READ_GRAPH')) return forbidden(res)

    await key.update({ lastUsedAt: new Date() })
    req.user = { id: key.userId }
    next()
  }
}

function authenticateWithBetterAuth(): RequestHandler {
  // Loaded only here, so that its dependencies do not weigh on the other variants.
  const { openBetterAuth } = require('./better-auth') as typeof BetterAuth
  const auth = openBetterAuth(url)

  return async function authenticate(req, res, next) {
    const { valid, key } = await auth.api.verifyApiKey({
      body: { key: bearerToken(req) ?? '', permissions: { graphs: ['read'] } },
    })
    if (!valid || !key) return unauthorized(res)

    req.user = { id: key.referenceId }
    next()
  }
}

function bearerToken({ headers: { authorization } }: Request): string | undefined {
  return authorization?.startsWith('Bearer ') ? authorization.slice('Bearer '.length) : undefined
}

function unauthorized(res: Response) {
  res.status(401).json({ error: 'unauthorized' })
}

function forbidden(res: Response) {
  res.status(403).json({ error: 'forbidden' })
}
