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
       <form method="post" action="/sign-out"><button class="quiet">Sign out</button></form>`
    : '<p><a class="button" href="/sign-in">Sign in</a></p>'
  const links = `<ul>
      <li><a href="/settings/api-keys">Your API keys</a>: create keys, see how they are used, revoke them</li>
      <li><a href="/try">Try a key</a>: send it to a guarded route, and see the answer</li>
    </ul>`
  sendPage(res, 'Overview', links + who)
}

function signInForm(hasFailed: boolean): string {
  return `
    ${hasFailed ? '<p class="alert" role="alert">The name or the password is wrong.</p>' : ''}
    <p class="muted">Sign in as alice, bob or admin. Each password is the name.</p>
    <form class="card" method="post" action="sign-in">
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
    <p class="muted">Sends a request as a program would, and shows the answer.</p>
    <form class="card" method="post" action="try" autocomplete="off">
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
  return `<h2>The answer</h2><pre tabindex="0">${escape(`${head}\n\n${indented(text)}`)}</pre>`
}

/** Writes JSON in lines, which people can read. All answers of the routes are JSON. */
function indented(text: string): string {
  return JSON.stringify(JSON.parse(text), null, 2)
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
    <title>${escape(title)} · Agent platform</title>
    <meta name="color-scheme" content="light dark">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/pages.css">
  </head>
  <body>
    <header><a href="/">Agent platform</a></header>
    <main><h1>${escape(title)}</h1>${content}</main>
  </body>
</html>
`)
}

const style = `
:root {
  --ground: #f6f7f9; --surface: #fff; --text: #1b1e25; --muted: #596070; --line: #e1e4ea; --edge: #868d9b;
  --link: #4b45c6; --bad: #b3261e; --bad-ground: #fdeceb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #131519; --surface: #1b1e23; --text: #eceef2; --muted: #a2a9b7; --line: #2e323a; --edge: #737b8a;
    --link: #a5a2e3; --bad: #ff9d95; --bad-ground: #3a1917;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--text); font: 0.9375rem/1.5 system-ui, sans-serif }
header { padding: 1rem max(1rem, (100% - 34rem) / 2); border-bottom: 1px solid var(--line); background: var(--surface) }
header a { color: var(--text); font-weight: 600; text-decoration: none }
main { max-width: 36rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; letter-spacing: -0.015em }
h2 { margin: 2rem 0 0.5rem; font-size: 1rem }
a { color: var(--link) }
p { margin: 0.5rem 0 1.25rem }
ul { margin: 1.5rem 0; padding: 0; list-style: none; display: grid; gap: 0.75rem }
li { padding: 1rem 1.25rem; border: 1px solid var(--line); border-radius: 12px; background: var(--surface) }
.muted { color: var(--muted) }
.alert { padding: 0.75rem 1rem; border-radius: 8px; background: var(--bad-ground); color: var(--bad) }
.card { display: grid; gap: 1.25rem; padding: 1.25rem; border: 1px solid var(--line); border-radius: 12px; background: var(--surface) }
label { font-weight: 600 }
input, select, button, .button { min-height: 2.375rem; padding: 0.4375rem 0.75rem; border: 1px solid var(--edge); border-radius: 8px; font: inherit }
input, select { display: block; width: 100%; margin-top: 0.375rem; background: var(--surface); color: var(--text); font-weight: 400 }
button, .button { display: inline-block; justify-self: start; padding: 0.4375rem 1rem; border-color: #4b45c6; background: #4b45c6; color: #fff; font-weight: 600; text-decoration: none; cursor: pointer }
.quiet { border-color: var(--edge); background: var(--surface); color: var(--text) }
pre { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 12px; background: var(--surface); font-size: 0.8125rem; white-space: pre-wrap; overflow-wrap: anywhere }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
`

function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
