import type { Request, Response } from 'express'

import type { Place } from './places'

/** Sends a page of this app: its title, and its content as HTML. */
export type SendPage = ReturnType<typeof createSendPage>

interface PageContent {
  title: string
  content: string
}

/** Makes the function that sends a page, with links to the places of the user. */
export function createSendPage(findPlaces: (user: Express.User | undefined) => Promise<Place[]>) {
  return async function sendPage(req: Request, res: Response, page: PageContent): Promise<void> {
    const places = await findPlaces(req.user)
    res.set('Cache-Control', 'no-store')
    res.set('Content-Security-Policy', policy)
    res.type('html').send(pageOf(page, { path: req.path, user: req.user, places }))
  }
}

/** A page loads its own style and script, and sends its forms to this app. */
const policy = [
  "default-src 'none'",
  "style-src 'self'",
  "script-src 'self'",
  "connect-src 'self'",
  'img-src data:',
  "form-action 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
].join('; ')

interface Frame {
  path: string
  user: Express.User | undefined
  places: readonly Place[]
}

function pageOf({ title, content }: PageContent, { path, user, places }: Frame): string {
  const links = places.map(({ href, name }) => {
    const here = href === path ? ' aria-current="page"' : ''
    return `<a href="${href}"${here}>${escape(name)}</a>`
  })
  const signOut = `<form method="post" action="/sign-out">
        <span>${escape(user?.username ?? '')}</span> <button class="quiet">Sign out</button></form>`
  const who = path === '/sign-in' ? '' : '<a href="/sign-in">Sign in</a>'
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>${escape(title)} · Agent platform</title>
    <meta name="color-scheme" content="light dark">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/public/pages.css">
    <script src="/public/pages.js" defer></script>
  </head>
  <body>
    <header>
      <div>
        <a class="brand" href="/">Agent platform</a>
        <nav aria-label="Pages">${links.join('')}</nav>
        ${user ? signOut : who}
      </div>
    </header>
    <main><h1>${escape(title)}</h1>${content}</main>
  </body>
</html>
`
}

/** Returns a text as HTML. */
export function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
