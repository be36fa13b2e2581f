import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'

import express, { type RequestHandler } from 'express'
import type * as Library from 'express-api-keys'
import { Passport, type Strategy } from 'passport'
import { Strategy as BearerStrategy } from 'passport-http-bearer'

import { fillTables, openInstance, openOthers, tokensOf } from './cpu-instances'
import { cpuVariants, type CpuVariantName, type InstanceName } from './cpu-variants'
import { answerQuestions } from './processes'
import { findInMap, refuseLikeOurs } from './stand-ins'

/*
 * A process with one app, one route and one variant of the guard, as a user has it. Other apps and other builds in the process would
 * change what is measured: V8 keeps what it has seen of the shapes of requests, and of the functions of a guard, by their source.
 */

export type CpuServerQuestion =
  { kind: 'fill' } | { kind: 'listen' } | { kind: 'verify'; calls: number } | { kind: 'cpu' }

/** The answer to `fill`: the instances of the build. To `listen`: the port. To `verify`, and to `cpu`: microseconds of CPU time. */
export type CpuServerAnswer = readonly InstanceName[] | number

const variant = process.argv[2] as CpuVariantName
const { instance, tokens } = cpuVariants[variant]
let opened: Library.AnyApiKeys | undefined

answerQuestions(async (question: CpuServerQuestion): Promise<CpuServerAnswer> => {
  switch (question.kind) {
    case 'fill':
      return fillTables()
    case 'listen':
      return listen(guardOf(variant))
    case 'verify':
      return verifyInTurn(question.calls)
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

/** The instance of this process. It opens no connection before the first request. */
function apiKeys(): Library.AnyApiKeys {
  opened ??= openInstance(instance ?? 'plain')
  return opened
}

function guardOf(name: CpuVariantName): RequestHandler | undefined {
  switch (name) {
    case 'bare':
    case 'control':
    case 'verify':
      return undefined
    case 'bareRefusal':
      return refuseLikeOurs
    case 'passportMap':
      return throughPassport(new BearerStrategy(findInMap(tokensOf(tokens))), 'bearer')
    case 'passport':
      return throughPassport(apiKeys().strategy, 'api-key')
    case 'guardResources':
      return openOthers().requirePermission('READ_GRAPH', {
        resource: (req) => ({ graph: req.params.id }),
      })
    default:
      return apiKeys().requirePermission('READ_GRAPH')
  }
}

function throughPassport(strategy: Strategy, name: string): RequestHandler {
  const passport = new Passport()
  passport.use(name, strategy)
  // Typed as any middleware.
  return passport.authenticate(name, { session: false }) as RequestHandler
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

async function verifyInTurn(calls: number): Promise<number> {
  const keys = readFileSync(tokensOf(tokens), 'latin1').split('\n')
  const before = usedMicroseconds()
  for (let call = 0; call < calls; call++) {
    const verdict = await apiKeys().verify(keys[call % keys.length] ?? '')
    if (!verdict.valid) throw new Error('a good key was refused')
  }
  return usedMicroseconds() - before
}
