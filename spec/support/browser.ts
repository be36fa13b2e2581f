import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'

import { mount, useConsole } from './console'
import { createDatabase, type Database } from './database'
import { startExampleApp } from './example-app'

/** The places where systems install Chromium or Chrome. */
const executablePath = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
].find((path) => existsSync(path))

/** Describes what holds in a real browser. Without Chromium, the specs are skipped and counted. */
export const describeInBrowser = executablePath === undefined ? describe.skip : describe

type ConsoleArguments = Parameters<typeof useConsole>

/** Starts the browser. */
export function launchBrowser(): Promise<Browser> {
  return chromium.launch({ ...(executablePath && { executablePath }), args: ['--no-sandbox'] })
}

/** Gives a spec file the pages on a port, and windows of a browser. */
export function useBrowser(...given: ConsoleArguments) {
  const world = useConsole(...given)
  let browser: Browser
  let server: Server
  let port = 0

  async function start() {
    server = world.app.listen(port)
    await new Promise((resolve) => server.once('listening', resolve))
    // A server that is started again has the same address.
    port = (server.address() as AddressInfo).port
  }

  async function stop() {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }

  beforeAll(async () => {
    if (executablePath === undefined) return
    await start()
    browser = await launchBrowser()
  })
  afterAll(async () => {
    if (executablePath === undefined) return
    await browser.close()
    await stop()
  })

  return {
    ...world,
    start,
    stop,

    /** Opens a window in which a user is signed in. `errors` has what the browser complains of. */
    async openWindow(user: string, options: BrowserContextOptions = {}) {
      const context = await browser.newContext({
        baseURL: `http://127.0.0.1:${port}`,
        extraHTTPHeaders: { 'X-User': user },
        locale: 'en-GB',
        timezoneId: 'UTC',
        ...options,
      })
      const page = await context.newPage()
      const errors = errorsOf(page)
      await page.goto(mount)
      return { context, page, errors }
    },
  }
}

/** Gives a spec file the example app, as it is built, and windows of a browser on its overview. */
export function useExampleApp() {
  let database: Database
  let app: ChildProcess
  let url: string
  let browser: Browser

  beforeAll(async () => {
    if (executablePath === undefined) return
    database = await createDatabase('empty')
    ;({ app, url } = await startExampleApp(database))
    browser = await launchBrowser()
  })
  afterAll(async () => {
    if (executablePath === undefined) return
    await browser.close()
    const ended = once(app, 'exit')
    app.kill('SIGTERM')
    await ended
    await database.drop()
  })

  return {
    async openApp(options: BrowserContextOptions = {}) {
      const context = await browser.newContext({ baseURL: url, locale: 'en-GB', ...options })
      const page = await context.newPage()
      const errors = errorsOf(page)
      await page.goto('/')
      return { context, page, errors }
    },

    /** Fills the form on the page with which people sign in, and sends it. */
    async signIn(page: Page, username: string) {
      await page.getByLabel('Name').fill(username)
      await page.getByLabel('Password').fill(username)
      await page.getByRole('button', { name: 'Sign in' }).click()
      await page.waitForURL(/\/settings\/api-keys/)
    },
  }
}

/** Gathers what the browser complains of. */
function errorsOf(page: Page): string[] {
  const errors: string[] = []
  page.on('pageerror', ({ message }) => errors.push(message))
  page.on('dialog', (dialog) => {
    errors.push(dialog.message())
    void dialog.dismiss()
  })
  page.on('console', (message) => {
    // A refusal is an answer, not a mistake.
    const isRefusal = message.text().startsWith('Failed to load resource')
    if (message.type() === 'error' && !isRefusal) errors.push(message.text())
  })
  return errors
}

const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

interface Violation {
  id: string
  nodes: { html: string }[]
}

/**
 * How pages are looked at. A window of 1280 pixels has 640 at a zoom of 200 %, and 320 at 400 % (WCAG 2.2, success criterion 1.4.10). In
 * the dark, only colours differ.
 */
const looks = [
  { width: 640, colorScheme: 'light', rules: [] },
  { width: 320, colorScheme: 'light', rules: null },
  { width: 1280, colorScheme: 'dark', rules: ['color-contrast', 'link-in-text-block'] },
  { width: 1280, colorScheme: 'light', rules: null },
] as const

/** Returns the faults that axe finds on a page, and a fault if the page has to be scrolled sideways: for each of the looks. */
export async function faultsOf(page: Page): Promise<string[]> {
  await page.evaluate(axe)
  const { pathname, search } = new URL(page.url())
  const faults: string[] = []
  for (const { width, colorScheme, rules } of looks) {
    await page.setViewportSize({ width, height: 800 })
    await page.emulateMedia({ colorScheme })
    const found = await page.evaluate(faultsOfAxe, rules)
    faults.push(...found.map((fault) => `${pathname}${search}, ${width}, ${colorScheme}: ${fault}`))
  }
  return faults
}

/** Runs in the page. It is given the names of rules, or null for all rules. */
async function faultsOfAxe(rules: readonly string[] | null): Promise<string[]> {
  const { axe } = globalThis as unknown as {
    axe: { run(options: object): Promise<{ violations: Violation[] }> }
  }
  const { scrollWidth, clientWidth } = document.documentElement
  const { violations } =
    rules?.length === 0 ? { violations: [] } : await axe.run(rules ? { runOnly: rules } : {})
  return [
    ...violations.map(({ id, nodes }) => `${id} ${nodes[0]?.html}`),
    ...(scrollWidth > clientWidth ? ['is too wide'] : []),
  ]
}

/** Sends a form by its button, and waits for the answer. The script asks first if the server is there. */
export async function send(page: Page, name: string) {
  const button = page.getByRole('button', { name })
  // The page with the button may still be loading.
  await button.waitFor()
  await page.waitForLoadState()
  const answered = page.waitForEvent('load')
  await button.click()
  await answered
}

/** Fills the form for a new key, and sends it. */
export async function createInBrowser(page: Page, name: string) {
  await page.getByRole('link', { name: 'Create key' }).click()
  await page.getByLabel('Name').fill(name)
  await page.getByLabel('READ_GRAPH').check()
  await send(page, 'Create key')
}

/** Returns the secret that a page shows. */
export async function secretIn(page: Page): Promise<string> {
  return (await page.locator('#secret').textContent()) ?? ''
}
