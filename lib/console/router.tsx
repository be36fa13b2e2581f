import { Router, type NextFunction, type Request, type Response } from 'express'
import type { VNode } from 'preact'
import { render } from 'preact-render-to-string'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import { createAdminCheck } from '../http/admin-check'
import { createAdmission, isSafe } from '../http/admission'
import { ensureError } from '../http/answer'
import type { Guard } from '../http/guards'
import { createMemberCheck, explainOwner, type Member } from '../http/member'
import { insecureHandler, isUndecodable, takeKeyId, type RouterParts } from '../http/router'
import type { Owner } from '../keys/owner'
import type { OwnerNames } from '../keys/owner-names'
import type { Settings } from '../read-options'
import type { Verification } from '../verification/verification'
import { createAssets } from './assets'
import { sentenceOf } from './faults'
import { readForm, type Form } from './form'
import type { Look } from './options'
import { pageOf, withName, type Page } from './page'
import { Banner, Layout, type Section } from './pages/layout'
import { Refused } from './pages/refused'

/** The parts of the library that the pages use. */
export interface ConsoleParts extends RouterParts {
  settings: Settings
  verification: Pick<Verification, 'rateLimiter' | 'health'>
  namesOfOwners: OwnerNames | undefined
}

/** A request that is admitted to its view. */
export interface Call {
  req: Request
  userId: string | number
  /** Whose keys the user manages, and with which access. An administrator manages the keys of all owners. */
  member: Omit<Member, 'owner'> & { owner: Owner | undefined }
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
  /** The section of the pages of administrators to which it belongs; without it, the list of keys. */
  section?: Section
  /** Writes the rest of the page while work goes on. The page is sent as it is until then. */
  rest?(output: Output): Promise<void>
}

/** A page that is being sent. */
export interface Output {
  write(part: VNode): void
  /** True unless the user has left the page. */
  isOpen(): boolean
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

  const { admin, organization } = look
  const admit = createAdmission(parts, admin ? createAdminCheck('console', parts) : currentUser)
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
      try {
        refuseUnknownSender(req)
        const keyId = takeKeyId(req)
        const { user, userId } = await admit(req)
        const member = enter ? await enter(req, user, isChange) : accessOf(admin, userId)
        const page = withName(pageOf(req, look, assets), member.name)
        const [, search = ''] = req.originalUrl.split('?')
        const query = new URLSearchParams(search)
        const form: Form = isSafe(req) ? new Map() : await readForm(req, res)
        const view = await answer({ req, userId, member, keyId, page, query, form })
        const answered = admin && 'content' in view ? { section: 'keys' as const, ...view } : view
        await send(res, page, answered, parts.namesOfOwners)
      } catch (error) {
        await answerFailure(explain(error), req, res, next)
      }
    }
  }

  /** An administrator types the id of an owner, and so is told of its fault. */
  function explain(error: unknown): unknown {
    return admin ? error : explainOwner(error)
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
            const error = explain(thrown)
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

/** Returns the access of users to their own keys, or of an administrator to all keys. */
function accessOf(isAdmin: boolean, id: string | number): Call['member'] {
  const owner = isAdmin ? undefined : ({ type: 'user', id } as const)
  return { owner, name: undefined, isReadOnly: false, mayGive: undefined }
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
    hasList: code !== 'organization_not_found' && code !== 'not_an_admin',
  }
  const content = <Refused {...props} />
  const hasEntered = page.look.admin && status !== 401 && status !== 403
  await send(res, page, { title, status, content, ...(hasEntered && { section: 'keys' }) })
}

async function send(res: Response, page: Page, answer: Answer, ownerNames?: OwnerNames) {
  res.setHeader('Cache-Control', 'no-store')
  if ('location' in answer) {
    res.status(303).setHeader('Location', answer.location).end()
    return
  }

  const { title, content, status = 200, isWide, section, rest } = answer
  const draw = () =>
    render(
      <Layout page={page} title={title} isWide={isWide} section={section}>
        {content}
      </Layout>,
    )
  let html = draw()
  if (ownerNames && page.owners.size > 0) {
    // Only now, it is known which owners are on the page.
    page.ownerNames = await ownerNames(page.owners.values())
    html = draw()
  }
  for (const [name, value] of Object.entries(headersFor(page))) res.setHeader(name, value)
  res.status(status)
  if (rest) return sendBitByBit(res, page, html, rest)

  const body = Buffer.from(`<!doctype html>\n${html}\n`)
  res.setHeader('Content-Length', body.length)
  res.end(body)
}

/** Sends a page up to the end of its content, then what `rest` writes, then its end. A failure is shown, because the status is sent. */
async function sendBitByBit(
  res: Response,
  page: Page,
  html: string,
  rest: NonNullable<View['rest']>,
) {
  // Neither a compressor of the app nor a proxy may wait for the end.
  res.setHeader('Cache-Control', 'no-store, no-transform')
  res.setHeader('X-Accel-Buffering', 'no')
  const end = html.lastIndexOf('</main>')
  const output: Output = {
    write: (part) => void res.write(`${render(part)}\n`),
    isOpen: () => !res.destroyed,
  }
  res.write(`<!doctype html>\n${html.slice(0, end)}`)
  try {
    await rest(output)
  } catch (error) {
    if (!output.isOpen()) return
    const isRefusal = error instanceof ApiKeysError
    const sentence = isRefusal ? sentenceOf(error, page.texts) : page.texts.refused.title
    output.write(<Banner kind="bad">{sentence}</Banner>)
    if (!isRefusal) throw error
  } finally {
    res.end(`${html.slice(end)}\n`)
  }
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
