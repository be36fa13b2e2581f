import { join } from 'node:path'

import { Router, static as serveFiles } from 'express'

import type { Database } from './database'
import { createSendPage, escape } from './frame'
import { createPlaces, type Place } from './places'
import { tryKeyRouter } from './try-key'

/** The style and the script of the pages. The folder stands beside that of the built files. */
const filesFolder = join(__dirname, '..', 'public')

/** Serves the pages of this app: the way to all pages, where people sign in, and where they try a key. */
export function pagesRouter(database: Database): Router {
  const findPlaces = createPlaces(database)
  const sendPage = createSendPage(findPlaces)
  const router = Router()

  router.use('/public', serveFiles(filesFolder, { index: false }))

  router.get('/', async function showOverview(req, res, next) {
    // Programs get the routes as text.
    if (req.accepts(['text', 'html']) !== 'html') return next()

    const places = await findPlaces(req.user)
    await sendPage(req, res, { title: 'Overview', content: overview(req.user, places) })
  })

  router.get('/sign-in', async function showSignIn(req, res) {
    const content = signInForm(req.query.failed !== undefined)
    await sendPage(req, res, { title: 'Sign in', content })
  })

  router.use(tryKeyRouter(sendPage))
  return router
}

function overview(user: Express.User | undefined, places: readonly Place[]): string {
  const cards = places.map(
    ({ href, title, about }) =>
      `<li><a href="${href}"><b>${escape(title)}</b> <span>${escape(about)}</span></a></li>`,
  )
  const lead = user
    ? `<p class="lead">You are signed in as <b>${escape(user.username)}</b>.</p>`
    : `<p class="lead">A small agent platform that shows express-api-keys at work.</p>
       <p><a class="button" href="/sign-in">Sign in</a></p>`
  return `${lead}<ul class="places">${cards.join('')}</ul>`
}

function signInForm(hasFailed: boolean): string {
  return `
    ${hasFailed ? '<p class="alert" role="alert">The name or the password is wrong.</p>' : ''}
    <form class="card" method="post" action="sign-in">
      <label>Name <input name="username" autocomplete="username" autocapitalize="none" autofocus required></label>
      <label>Password
        <input name="password" type="password" autocomplete="current-password" required></label>
      <button>Sign in</button>
    </form>
    <h2>Users of this example</h2>
    <p class="muted">Each password is the name.</p>
    <dl class="users">
      <div><dt>alice</dt><dd>has keys of her own, and manages those of Acme</dd></div>
      <div><dt>bob</dt><dd>has keys of his own, and sees those of Acme</dd></div>
      <div><dt>admin</dt><dd>administers the keys of all users and organizations</dd></div>
    </dl>`
}
