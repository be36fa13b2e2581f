import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import { describeInBrowser, useBrowser } from '../support/browser'
import { mount } from '../support/console'
import { newUser } from '../support/keys'

const { apiKeys, createKey, openWindow } = useBrowser()

let server: Server
let html = ''

beforeAll(async () => {
  server = createServer((_req, res) => {
    res.setHeader('Content-Type', 'text/html').end(html)
  }).listen(0)
  await once(server, 'listening')
})

afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

/** Opens the page of another site. `localhost` is another site than `127.0.0.1`, at which the pages are. */
function urlOf(name: 'localhost' | '127.0.0.1') {
  return `http://${name}:${(server.address() as AddressInfo).port}/`
}

// The browser sends the user of a window to all sites, as it would send a cookie without SameSite.
describeInBrowser.each([
  ['another site', 'localhost'],
  ['another port of the same host', '127.0.0.1'],
] as const)('a page of %s', (_, name) => {
  it.each([
    ['by a button, without scripts', false],
    ['by a script', true],
  ])('sends no form %s', async (_, javaScriptEnabled) => {
    const user = newUser()
    const { id } = await createKey({ userId: user })
    const { page } = await openWindow(user, { javaScriptEnabled })
    const origin = new URL(page.url()).origin
    const statuses: number[] = []
    for (const [path, fields] of [
      ['new', { name: 'Foreign', permissions: 'READ_GRAPH', expiry: 'never' }],
      [`${id}/suspend`, {}],
      [`${id}/rotate`, { grace: '0' }],
      [`${id}/revoke`, {}],
    ] as const) {
      const inputs = Object.entries(fields).map(
        ([name, value]) => `<input type="hidden" name="${name}" value="${value}">`,
      )
      html = `<form method="post" action="${origin}${mount}/${path}">${inputs.join('')}<button>Win</button></form>
        <script>document.forms[0].submit()</script>`
      const answered = page.waitForResponse((answer) => answer.request().method() === 'POST')
      await page.goto(urlOf(name), { waitUntil: 'commit' })
      if (!javaScriptEnabled) await page.getByRole('button', { name: 'Win' }).click()
      statuses.push((await answered).status())
      await page.getByText('A request from another site may not change anything here.').waitFor()
    }

    expect(statuses).toEqual([403, 403, 403, 403])
    expect((await apiKeys.list({ userId: user })).apiKeys).toMatchObject([
      { id, status: 'ACTIVE', previousSecret: null },
    ])
  })

  it('neither reads a page nor shows it in a frame', async () => {
    const { page } = await openWindow(newUser())
    const url = `${new URL(page.url()).origin}${mount}`
    html = `<iframe src="${url}"></iframe>`
    await page.goto(urlOf(name))
    const isRead = await page.evaluate(
      (url) =>
        fetch(url).then(
          (answer) => answer.text(),
          () => null,
        ),
      url,
    )
    const [, frame] = page.frames()

    expect(isRead).toBeNull()
    expect(await frame?.content()).not.toContain('API keys')
  })
})
