import type { AddressInfo } from 'node:net'

import { Router, urlencoded, type Request } from 'express'

import { escape, type SendPage } from './frame'

/** The routes that the page offers. */
const routes = [
  'GET /graphs',
  'GET /graphs/greeting',
  'POST /graphs/greeting/execute',
  'GET /blocks',
  'POST /blocks/greet/execute',
  'GET /me',
]

/** The sentence of the page about an answer, by its status. */
const meanings: Readonly<Record<number, string>> = {
  400: 'The request has no key, or one that cannot be read.',
  401: 'The key is missing, unknown, revoked, suspended or expired. The answer does not say which.',
  403: 'The key is good, and may not do this.',
  404: 'The key may do this. Its owner has no such thing.',
  422: 'The key may do this. The input is wrong.',
  429: 'The key was used too often.',
  503: 'The key cannot be checked at the moment.',
}

/**
 * Serves the page on which people try a key. The key comes in the body of a form, and no answer has it, so that it is in no address, no
 * history and no log. The script of the page sends the form, so that the browser does not keep it for Reload either.
 */
export function tryKeyRouter(sendPage: SendPage): Router {
  const router = Router()

  router.get('/try', async function showForm(req, res) {
    await sendPage(req, res, { title: 'Try a key', content: formOf(routes[0]) })
  })

  router.post('/try', urlencoded({ extended: false }), async function tryKey(req, res) {
    const { key, route } = (req.body ?? {}) as Record<string, unknown>
    const known = routes.find((each) => each === route)
    if (known === undefined) return res.redirect(303, 'try')

    const content = formOf(
      known,
      await answerTo(req, known, typeof key === 'string' ? key.trim() : ''),
    )
    await sendPage(req, res, { title: 'Try a key', content })
  })

  return router
}

function formOf(chosen: string | undefined, answer = ''): string {
  const options = routes.map(
    (route) => `<option${route === chosen ? ' selected' : ''}>${escape(route)}</option>`,
  )
  return `
    <p class="lead">Sends a request as a program would, and shows the answer.</p>
    <form class="card" method="post" action="try" autocomplete="off" data-try>
      <label>API key
        <input name="key" type="password" autocomplete="off" spellcheck="false" autofocus></label>
      <label>Route <select name="route">${options.join('')}</select></label>
      <button>Send</button>
    </form>
    <section id="answer" aria-live="polite" data-away="The app does not answer.">${answer}</section>`
}

/** Calls a route of this app with a key, or without if it is empty. Returns the answer as HTML. */
async function answerTo(req: Request, route: string, key: string): Promise<string> {
  if (!/^[!-~]*$/.test(key)) {
    return alertOf('A key has letters, digits and underscores. This text has other characters.')
  }

  const [method = '', path = ''] = route.split(' ')
  // The address of a TCP server is never the name of a pipe.
  const { port } = req.socket.address() as AddressInfo
  const response = await fetch(`http://localhost:${port}${path}`, {
    method,
    headers: {
      ...(key !== '' && { Authorization: `Bearer ${key}` }),
      'Content-Type': 'application/json',
    },
    ...(method === 'POST' && {
      body: JSON.stringify({ inputs: { name: 'Ada', text: 'hello' } }),
    }),
  })
  return answerOf(route, response, await response.text())
}

/** The header fields that say something about the key. */
const shown = /^(content-type|www-authenticate|ratelimit.*|retry-after)$/

function answerOf(route: string, { status, statusText, headers }: Response, body: string): string {
  const fields = [...headers]
    .filter(([name]) => shown.test(name))
    .map(([name, value]) => `<div><dt>${escape(name)}</dt><dd>${escape(value)}</dd></div>`)
  const meaning = status < 300 ? 'The key is good, and may do this.' : meanings[status]
  return `
    <h2>The answer to ${escape(route)}</h2>
    <p class="status ${status < 300 ? 'good' : 'bad'}"><b>${status} ${escape(statusText)}</b></p>
    ${meaning === undefined ? '' : `<p>${escape(meaning)}</p>`}
    <h3>Headers</h3>
    <dl class="fields">${fields.join('')}</dl>
    <h3>Body</h3>
    <pre tabindex="0" aria-label="Body">${escape(indented(body))}</pre>`
}

function alertOf(text: string): string {
  return `<p class="alert" role="alert">${escape(text)}</p>`
}

/** Writes JSON in lines, which people can read. */
function indented(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}
