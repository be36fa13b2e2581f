import { Router, type NextFunction, type Request, type Response } from 'express'
import type { VNode } from 'preact'
import { render } from 'preact-render-to-string'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import { createAdmission, isSafe } from '../http/admission'
import { ensureError } from '../http/answer'
import type { Guard } from '../http/guards'
import { createMemberCheck, explainOwner, type Member } from '../http/member'
import { insecureHandler, isUndecodable, takeKeyId, type RouterParts } from '../http/router'
import type { Settings } from '../read-options'
import type { Verification } from '../verification/verification'
import { createAssets } from './assets'
import { sentenceOf } from './faults'
import { readForm, type Form } from './form'
import type { Look } from './options'
import { pageOf, type Page } from './page'
import { Layout } from './pages/layout'
import { Refused } from './pages/refused'

/** The parts of the library that the pages use. */
export interface ConsoleParts extends RouterParts {
  settings: Settings
  verification: Pick<Verification, 'rateLimiter'>
}

/** A request that is admitted to its view. */
export interface Call {
  req: Request
  userId: string | number
  /** Whose keys the user manages, and with which access. */
  member: Member
  /** The id of the key in the path; empty if there is none. */
  keyId: string
  page: Page
  query: URLSearchParams
  /** Empty unless the request sends a form. */
  form: Form
}

/** The contents of a page. */
export interface View {
  title: string
  content: VNode
  status?: number
  isWide?: boolean
}

/** A page, or the address of the view that follows a change. */
export type Answer = View | { location: string }

/** The handlers of a path: `show` shows its view, also with the refusal of its form; `act` carries out its form. */
export interface Route {
  show(call: Call, refused?: ApiKeysError): Promise<Answer>
  act?(call: Call): Promise<Answer>
}

/** Makes a router of pages: it admits requests, reads their forms, calls the handlers and sends the pages that they return. */
export function createPages(
  parts: ConsoleParts,
  look: Look,
  routes: Readonly<Record<string, Route>>,
): Guard {
  const { currentUser } = parts.settings
  if (!currentUser) throw new TypeError('console: needs the option currentUser of createApiKeys')

  const admit = createAdmission(parts, currentUser)
  const { organization } = look
  const enter = organization && createMemberCheck('console', organization, parts)
  const assets = createAssets(look)
  const refuseInsecure = insecureHandler(parts.authenticator)
  const router = Router({ mergeParams: true })

  router.get('/assets/:file', function apiKeysAsset(req, res, next) {
    if (!assets.serve(req.params.file, req, res)) next()
  })

  /** Makes the handler of a method. It shows refusals as pages, and passes on what is not ours. */
  function handlerOf(isChange: boolean, answer: (call: Call) => Promise<Answer>) {
    return async function apiKeysPage(req: Request, res: Response, next: NextFunction) {
      const page = pageOf(req, look, assets)
      try {
        refuseUnknownSender(req)
        const keyId = takeKeyId(req)
        const { user, userId } = await admit(req)
        const member = enter ? await enter(req, user, isChange) : asUser(userId)
        const [, search = ''] = req.originalUrl.split('?')
        const query = new URLSearchParams(search)
        const form: Form = isSafe(req) ? new Map() : await readForm(req, res)
        send(res, page, await answer({ req, userId, member, keyId, page, query, form }))
      } catch (error) {
        await answerFailure(explainOwner(error), req, res, next)
      }
    }
  }

  for (const [path, { show, act }] of Object.entries(routes)) {
    const route = router.route(path)
    route.all(refuseInsecure)
    // A form of a member who may only read would be refused, and so is not shown.
    route.get(handlerOf(act !== undefined, (call) => show(call)))
    if (act) {
      route.post(
        handlerOf(true, async (call) => {
          try {
            return await act(call)
          } catch (thrown) {
            const error = explainOwner(thrown)
            if (!(error instanceof ApiKeysError) || error.status === 404) throw error
            const answer = await show(call, error)
            return 'content' in answer ? { ...answer, status: error.status } : answer
          }
        }),
      )
    }
    route.all(function apiKeysOtherMethods(_req, _res, next) {
      next(new MethodNotAllowedError(act ? ['GET', 'HEAD', 'POST'] : ['GET', 'HEAD']))
    })
  }

  async function answerFailure(failure: unknown, req: Request, res: Response, next: NextFunction) {
    await refuse(failure, { req, res, page: pageOf(req, look, assets), next }).catch(next)
  }

  router.use(function apiKeysPageErrors(
    error: unknown,
    req: Request,
    res: Response,
    next: NextFunction,
  ) {
    const failure = isUndecodable(error) ? new ApiKeysError('api_key_not_found') : error
    void answerFailure(failure, req, res, next)
  })
  // The app uses a router as a middleware, whose type needs no types of Express.
  return router as unknown as Guard
}

/** Returns the access of users to their own keys. */
function asUser(id: string | number): Member {
  return { owner: { type: 'user', id }, isReadOnly: false, mayGive: undefined }
}

/**
 * Refuses a form if the browser does not say from which site it comes. A page of any site can send a form, unlike JSON, and the oldest
 * browsers sent no origin with it.
 */
function refuseUnknownSender(req: Request) {
  if (isSafe(req)) return
  const { origin, 'sec-fetch-site': site } = req.headers
  if (origin === undefined && site === undefined) throw new ApiKeysError('cross_site_request')
}

interface Refusing {
  req: Request
  res: Response
  page: Page
  next: NextFunction
}

/** Answers with the page of a refusal. Passes all other failures on to the app. */
async function refuse(failure: unknown, { req, res, page, next }: Refusing) {
  if (!(failure instanceof ApiKeysError) || res.headersSent) return next(ensureError(failure))

  const { refused } = page.texts
  const { code, status, headers } = failure
  const isEnded = code === 'not_signed_in'
  const canKeep = !isSafe(req) && (isEnded || status === 503)
  const form = canKeep ? await readForm(req, res) : undefined
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)

  const title = isEnded ? refused.session : status === 503 ? refused.unavailable : refused.title
  let sentence = isEnded ? refused.sessionLead : sentenceOf(failure, page.texts)
  if (form) sentence = isEnded ? refused.sessionKept : refused.unavailableKept
  const props = {
    page,
    title,
    sentence,
    form,
    isEnded,
    canRetry: isEnded || status === 503,
    hasList: code !== 'organization_not_found',
  }
  send(res, page, { title, status, content: <Refused {...props} /> })
}

function send(res: Response, page: Page, answer: Answer) {
  res.setHeader('Cache-Control', 'no-store')
  if ('location' in answer) {
    res.status(303).setHeader('Location', answer.location).end()
    return
  }

  const { title, content, status = 200, isWide } = answer
  const html = render(
    <Layout page={page} title={title} isWide={isWide}>
      {content}
    </Layout>,
  )
  const body = Buffer.from(`<!doctype html>\n${html}\n`)
  for (const [name, value] of Object.entries(headersFor(page))) res.setHeader(name, value)
  res.setHeader('Content-Length', body.length)
  res.status(status).end(body)
}

/** Returns the header fields of a page: it may load its own files only, and no page may frame it. */
function headersFor({ look, language }: Page) {
  const { logo } = look
  const logoOrigin = logo !== undefined && URL.canParse(logo) ? new URL(logo).origin : 'null'
  const images = ["'self'", 'data:', ...(logoOrigin === 'null' ? [] : [logoOrigin])]
  const policy = [
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "connect-src 'self'",
    `img-src ${images.join(' ')}`,
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ]
  return {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Language': language,
    'Content-Security-Policy': policy.join('; '),
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
  }
}
