import { Router, type Request, type Response } from 'express'

import { InvalidApiKeyError, InvalidInputError } from '../errors'
import type { Answers } from '../http/answer'
import type { Authenticator } from '../http/authentication'
import type { Authentication } from '../http/caller'
import type { Guard } from '../http/guards'
import { readJsonBody } from '../http/json-body'
import { clientAddressOf } from '../http/request'
import {
  awaitedHandler,
  insecureHandler,
  otherMethodsHandler,
  refusalHandler,
} from '../http/router'
import type { Settings } from '../read-options'
import type { Verification } from '../verification/verification'
import * as conditions from '../verification/decide'
import { createCallLimit, createFailureLimit } from './call-limit'
import { createGithubHandler } from './github'
import { createGitlabHandlers } from './gitlab'
import { readLeakOptions } from './options'
import { scannedForms } from './scanned-forms'
import { createReporter, type ReportOf, type ReporterParts } from './reporter'

interface LeakParts extends ReporterParts {
  authenticator: Authenticator
  answers: Answers
  settings: Pick<Settings, 'environments' | 'imports' | 'redis'>
  verification: Pick<Verification, 'examine' | 'locate'>
}

type CountCall = ReturnType<typeof createCallLimit>

type Handler = (req: Request, res: Response) => Promise<void>

/** How many credentials a public report may have, and how many calls an address may make in an hour. */
const mostCredentials = 1_000
const mostReports = 60
const mostGitlabCalls = 600
/** How many reports without the signature of GitHub. */
const mostUnsigned = 60

/** Makes the router that takes reports of exposed keys, and tells a scanner if a key still works. */
export function createLeakRouter(parts: LeakParts, given: unknown): Guard {
  const { authenticator, answers, settings } = parts
  const usualTypes = scannedForms(settings).forms.map(({ id }) => `gitleaks_rule_id_${id}`)
  const options = readLeakOptions(given, usualTypes)
  const { github, gitlab, takesReports, outcome } = options
  const take = createReporter(parts, outcome)
  const reportOf: ReportOf = (req) => (reports, reason, sender) =>
    take(reports, { reason, ...addressOf(req) }, sender)

  const [prefix] = settings.environments.keyPrefixes
  const limitOf = (name: string, most: number) => ({
    name: `${prefix} ${name}`,
    most,
    redis: settings.redis,
  })

  const routes: Record<string, { get?: Handler; post?: Handler }> = {
    '/status': { get: createStatusHandler(parts) },
  }
  if (github) {
    const failures = createFailureLimit(limitOf('github', mostUnsigned))
    routes['/github'] = { post: createGithubHandler({ github, failures, reportOf }) }
  }
  if (gitlab) {
    const countCall = createCallLimit(limitOf('gitlab', mostGitlabCalls))
    const { listTypes, revokeTokens } = createGitlabHandlers({
      gitlab,
      reportOf,
      countCall: (req) => countCall(clientAddressOf(req)),
    })
    routes['/revocable_token_types'] = { get: listTypes }
    routes['/revoke_tokens'] = { post: revokeTokens }
  }
  if (takesReports)
    routes['/reports'] = {
      post: createReportsHandler(reportOf, createCallLimit(limitOf('reports', mostReports))),
    }

  const router = Router()
  for (const [path, handlers] of Object.entries(routes)) {
    const route = router.route(path).all(insecureHandler(authenticator))
    if (handlers.get) route.get(awaitedHandler(handlers.get))
    if (handlers.post) route.post(awaitedHandler(handlers.post))
    route.all(otherMethodsHandler(Object.keys(handlers)))
  }
  router.use(refusalHandler(answers))
  // The app uses a router as a middleware, whose type needs no types of Express.
  return router as unknown as Guard
}

/** Returns the address of the client, for the audit trail. */
function addressOf(req: Request): { address?: string } {
  const address = clientAddressOf(req)
  return address === null ? {} : { address }
}

/**
 * Makes the handler that tells a scanner if a key still works: 204 or 401, and nothing else. It counts no use, and takes the key from
 * every address, because a scanner is not where the key is used.
 */
function createStatusHandler({ authenticator, answers, verification }: LeakParts): Handler {
  return async function sendStatus(req, res) {
    authenticator.mask(req)
    const caller = authenticator.recall(req)
    const credential = caller?.masked
    // A guard before the router has judged the key by now.
    const judged = await caller?.authentication
    if (judged && isOfWorkingKey(judged)) return void res.status(204).end()
    if (caller && credential?.kind === 'key') {
      const text = credential.text.slice(credential.start)
      const { key, wall } = await verification.locate(text, caller, 'cache')
      const fault =
        !key ||
        conditions.faultOfStatus(key) ||
        conditions.faultOfExpiry(key, wall) ||
        conditions.faultOfSecret(key, wall) ||
        conditions.faultOfEnvironment(key)
      if (fault === null) return void res.status(204).end()
    }
    const { status, headers } = answers.withChallenge(new InvalidApiKeyError('unknown'))
    res.status(status).set(headers).end()
  }
}

/** True for a key that works, perhaps from other addresses than that of the request. */
function isOfWorkingKey(judged: Authentication): boolean {
  return judged.kind === 'accepted' || judged.error.code === 'address_not_allowed'
}

/** Makes the handler of public reports, after the credential revocation API of GitHub. Its answer says nothing about the credentials. */
function createReportsHandler(reportOf: ReportOf, countCall: CountCall): Handler {
  return async function takeReports(req, res) {
    const sender = { ip: clientAddressOf(req) }
    await countCall(sender.ip)
    const { credentials } = Object(await readJsonBody(req, res, 'manyKeys')) as {
      credentials?: unknown
    }
    const isFine =
      Array.isArray(credentials) &&
      credentials.length >= 1 &&
      credentials.length <= mostCredentials &&
      credentials.every((each): each is string => typeof each === 'string')
    if (!isFine) {
      const message = `must be a list of 1 to ${mostCredentials.toLocaleString('en')} texts`
      throw new InvalidInputError([{ pointer: '#/credentials', message }])
    }
    const reports = credentials.map((token: string) => ({ token, source: 'report', url: null }))
    await reportOf(req)(reports, 'reported to the endpoint for exposed keys', sender)
    res.status(202).json({})
  }
}
