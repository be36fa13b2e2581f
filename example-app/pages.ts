import type { AddressInfo } from 'node:net'

import { Router, urlencoded, type Request, type Response } from 'express'

/** The routes that the page for trying a key offers. */
const routes = [
  'GET /graphs',
  'GET /graphs/greeting',
  'POST /graphs/greeting/execute',
  'GET /blocks',
  'POST /blocks/greet/execute',
  'GET /me',
]

/** Serves the pages of this app: where people sign in, and where they try a key. */
export function pagesRouter(): Router {
  const router = Router()

  router.get('/pages.css', function sendStyle(_req, res) {
    res.type('css').send(style)
  })

  router.get('/sign-in', function showSignIn(req, res) {
    sendPage(res, 'Sign in', signInForm(req.query.failed !== undefined))
  })

  router.get('/try', function showTry(_req, res) {
    sendPage(res, 'Try a key', tryForm(routes[0]))
  })

  router.post('/try', urlencoded({ extended: false }), async function tryKey(req, res) {
    const { key = '', route = '' } = (req.body ?? {}) as Record<string, string | undefined>
    const known = routes.find((each) => each === route)
    if (known === undefined) return res.redirect(303, 'try')

    sendPage(res, 'Try a key', tryForm(known) + answerOf(await call(req, known, key)))
  })

  return router
}

/** The page that leads to all others. */
export function sendOverview(
  res: Response,
  user: { username: string; admin: boolean } | undefined,
) {
  const who = user
    ? `<p>You are signed in as <b>${escape(user.username)}</b>.</p>
       <form method="post" action="/sign-out"><button>Sign out</button></form>`
    : '<p><a href="/sign-in">Sign in</a></p>'
  const links = `<ul>
      <li><a href="/settings/api-keys">Your API keys</a></li>
      <li><a href="/try">Try a key</a> against the guarded routes</li>
    </ul>`
  sendPage(res, 'Agent platform', who + links)
}

function signInForm(hasFailed: boolean): string {
  return `
    ${hasFailed ? '<p class="fault" role="alert">The name or the password is wrong.</p>' : ''}
    <p>Sign in as alice, bob or admin. Each password is the name.</p>
    <form method="post" action="sign-in">
      <label>Name <input name="username" autocomplete="username" autofocus required></label>
      <label>Password
        <input name="password" type="password" autocomplete="current-password" required></label>
      <button>Sign in</button>
    </form>`
}

function tryForm(chosen: string | undefined): string {
  const options = routes.map(
    (route) => `<option${route === chosen ? ' selected' : ''}>${escape(route)}</option>`,
  )
  return `
    <form method="post" action="try" autocomplete="off">
      <label>Route <select name="route">${options.join('')}</select></label>
      <label>API key <input name="key" type="password" autocomplete="off" spellcheck="false"></label>
      <button>Send</button>
    </form>`
}

/** Calls a route of this app as a program would, with a key or without. */
async function call(req: Request, route: string, key: string) {
  const [method = '', path = ''] = route.split(' ')
  // The address of a TCP server is never the name of a pipe.
  const { port } = req.socket.address() as AddressInfo
  const response = await fetch(`http://localhost:${port}${path}`, {
    method,
    headers: {
      ...(key.trim() !== '' && { Authorization: `Bearer ${key.trim().replaceAll(/\s/g, '')}` }),
      'Content-Type': 'application/json',
    },
    ...(method === 'POST' && {
      body: JSON.stringify({ inputs: { name: 'Ada', text: 'hello' } }),
    }),
  })
  return { response, text: await response.text() }
}

function answerOf({ response, text }: Awaited<ReturnType<typeof call>>): string {
  const shown = /^(content-type|www-authenticate|ratelimit.*|retry-after)$/
  const headers = [...response.headers]
    .filter(([name]) => shown.test(name))
    .map(([name, value]) => `${name}: ${value}`)
  const head = [`HTTP/1.1 ${response.status} ${response.statusText}`, ...headers].join('\n')
  return `<h2>The answer</h2><pre>${escape(`${head}\n\n${text}`)}</pre>`
}

function sendPage(res: Response, title: string, content: string) {
  res.set('Cache-Control', 'no-store')
  res.set(
    'Content-Security-Policy',
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
  )
  res.type('html').send(`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>${escape(title)}</title>
    <meta name="color-scheme" content="light dark">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/pages.css">
  </head>
  <body><p><a href="/">Agent platform</a></p><main><h1>${escape(title)}</h1>${content}</main></body>
</html>
`)
}

const style = `
* { box-sizing: border-box }
body { max-width: 40rem; margin: 0 auto; padding: 1.5rem 1rem; font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; letter-spacing: -0.015em }
h2 { font-size: 1.125rem }
form { display: grid; gap: 1rem; justify-items: start }
label { display: grid; gap: 0.25rem; width: 100%; font-weight: 600 }
input, select { width: 100% }
input, select, button { padding: 0.5rem 0.75rem; border: 1px solid GrayText; border-radius: 8px; font: inherit }
button { background: #4b45c6; border-color: #4b45c6; color: #fff; font-weight: 600; cursor: pointer }
a { color: light-dark(#4b45c6, #a9a5f2) }
.fault { padding: 0.75rem 1rem; border-radius: 8px; background: light-dark(#fdeaea, #45191a); color: light-dark(#9f1f1f, #ffb4ae) }
pre { padding: 1rem; border: 1px solid GrayText; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere }
`

function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
