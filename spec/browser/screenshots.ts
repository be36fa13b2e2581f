import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import type { Browser, Page } from 'playwright-core'

import { describeInBrowser, launchBrowser, send } from '../support/browser'
import { createDatabase, type Database } from '../support/database'
import { startExampleApp } from '../support/example-app'

/** Makes pictures of all views in both themes and two widths, to be looked at: `npm run screenshots`. */
const folder = join(__dirname, '..', '..', 'screenshots')
const mount = '/settings/api-keys'

let database: Database
let app: ChildProcess
let url: string
let browser: Browser

beforeAll(async () => {
  mkdirSync(folder, { recursive: true })
  database = await createDatabase('empty')
  ;({ app, url } = await startExampleApp(database))
  browser = await launchBrowser()
})

afterAll(async () => {
  await browser.close()
  const ended = once(app, 'exit')
  app.kill('SIGTERM')
  await ended
  await database.drop()
})

/** Signs a user in as a browser does. */
async function signIn(page: Page, username: string) {
  await page.goto('/sign-in')
  await page.getByLabel('Name').fill(username)
  await page.getByLabel('Password').fill(username)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

interface Made {
  apiKey: { id: string }
  plainTextKey: string
}

async function post(page: Page, path: string, data: object = {}): Promise<Made> {
  const answer = await page.request.post(path, { data, headers: { Origin: url } })
  if (!answer.ok()) throw new Error(`POST ${path} is answered with ${await answer.text()}`)
  return answer.json()
}

/** Gives the owner whose keys are managed at a path keys of all kinds. Returns one with much to see. */
async function fill(page: Page, path: string): Promise<Made> {
  const create = (key: object) => post(page, path, { permissions: ['READ_GRAPH'], ...key })
  const gone = await create({ name: 'Laptop of Carol' })
  await page.request.delete(`${path}/${gone.apiKey.id}`, { headers: { Origin: url } })
  const old = await create({ name: 'Migration of 2025', expiresAt: inDays(30) })
  await create({
    name: 'Lange Bezeichnung mit einem Donaudampfschifffahrtsgesellschaftskapitänspatent darin',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'],
  })
  const partner = await create({ name: 'Partner sandbox', environment: 'test' })
  const paused = await create({ name: 'Old importer', expiresAt: inDays(9) })
  await post(page, `${path}/${paused.apiKey.id}/suspend`, { reason: 'Replaced by Nightly import' })
  await create({ name: 'Staging tests', environment: 'test', permissions: ['EVERYTHING'] })
  const ci = await create({ name: 'CI', permissions: ['READ_GRAPH', 'READ_BLOCK'] })
  const nightly = await create({
    name: 'Nightly import',
    description: 'Imports the orders of the day before.\nAsk Bob if it is late.',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    expiresAt: inDays(80),
    allowedIps: ['203.0.113.0/24', '127.0.0.1', '::1'],
  })
  const { plainTextKey } = await post(page, `${path}/${nightly.apiKey.id}/rotate`)
  for (let request = 0; request < 17; request++) {
    await fetch(`${url}/me`, { headers: { Authorization: `Bearer ${plainTextKey}` } })
  }

  await use(nightly, { hours: 700, requests: 90, agoSeconds: 120 })
  await use(ci, { hours: 400, requests: 12, agoSeconds: 3 * 86_400 })
  await use(partner, { hours: 90, requests: 4, agoSeconds: 30 * 3_600 })
  await database
    .connect()
    .query(`UPDATE api_keys SET expires_at = now() - interval '1 day' WHERE id = :id`, {
      replacements: { id: old.apiKey.id },
    })
  return nightly
}

function inDays(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString()
}

interface Use {
  hours: number
  requests: number
  agoSeconds: number
}

/** Writes the use of a key over some hours, in waves. */
async function use({ apiKey }: Made, { hours, requests, agoSeconds }: Use) {
  const replacements = { id: apiKey.id, hours, requests, agoSeconds }
  await database.connect().query(
    `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
     SELECT id, CASE WHEN user_id IS NULL THEN 'organization' ELSE 'user' END, coalesce(user_id::text, organization_id::text), date_trunc('hour', now()) - step * interval '1 hour',
            (:requests * (1.2 + sin(step / 30.0)))::int, (step % 7) * :requests / 40, (step % 90) / 85 * :requests
       FROM api_keys, generate_series(0, :hours) AS step WHERE id = :id`,
    { replacements },
  )
  await database.connect().query(
    `UPDATE api_keys SET last_used_at = now() - :agoSeconds * interval '1 s', last_used_from = '203.0.113.7'
      WHERE id = :id`,
    { replacements },
  )
}

const windows = (['light', 'dark'] as const).flatMap((theme) =>
  [1280, 320].map((width) => ({ theme, width })),
)

describeInBrowser.each(windows)('in $theme at $width pixels', ({ theme, width }) => {
  async function openWindow() {
    const page = await browser.newPage({
      baseURL: url,
      colorScheme: theme,
      viewport: { width, height: width === 320 ? 640 : 800 },
      locale: 'en-GB',
      timezoneId: 'UTC',
    })
    return {
      page,
      async keep(view: string) {
        await page.screenshot({
          path: join(folder, `${view}-${theme}-${width}.png`),
          fullPage: true,
        })
      },
    }
  }

  it('pictures of the pages of the example app are made', async () => {
    const { page, keep } = await openWindow()
    await page.goto('/')
    await keep('app-overview')
    await page.goto('/sign-in')
    await keep('app-sign-in')
    await page.getByLabel('Name').fill('alice')
    await page.getByLabel('Password').fill('wrong')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await keep('app-sign-in-failed')
    await signIn(page, 'bob')
    const { plainTextKey } = await post(page, '/api-keys', {
      name: 'Tried',
      permissions: ['READ_GRAPH'],
    })
    await page.goto('/')
    await keep('app-overview-signed-in')
    for (const [name, route] of [
      ['good', 'GET /graphs'],
      ['refused', 'POST /blocks/greet/execute'],
    ] as const) {
      await page.goto('/try')
      await keep('app-try')
      await page.getByLabel('Route').selectOption(route)
      await page.getByLabel('API key').fill(plainTextKey)
      await page.getByRole('button', { name: 'Send' }).click()
      await page.getByRole('heading', { name: 'The answer' }).waitFor()
      await keep(`app-try-${name}`)
    }
  })

  it('pictures of the pages of an organization are made', async () => {
    const { page, keep } = await openWindow()
    const path = '/organizations/acme'
    await signIn(page, 'alice')
    const { apiKeys } = await (await page.request.get(`${path}/api-keys`)).json()
    for (const { id } of apiKeys) {
      await page.request.delete(`${path}/api-keys/${id}`, { headers: { Origin: url } })
    }
    const pages = `${path}/settings/api-keys`
    await page.goto(pages)
    await keep('organization-empty')
    const { apiKey } = await fill(page, `${path}/api-keys`)
    await page.goto(pages)
    await keep('organization-list')
    await page.goto(`${pages}/${apiKey.id}`)
    await keep('organization-key')
    await page.goto('/')
    await keep('app-overview-manager')
    await signIn(page, 'bob')
    await page.goto(pages)
    await keep('organization-list-read-only')
    await page.goto(`${pages}/${apiKey.id}`)
    await keep('organization-key-read-only')
    await page.goto(`${pages}/new`)
    await keep('organization-read-only')
    await signIn(page, 'admin')
    await page.goto(pages)
    await keep('organization-not-found')
  })

  it('pictures of all views of an administrator are made', async () => {
    const { page, keep } = await openWindow()
    await signIn(page, 'alice')
    const { apiKey } = await fill(page, '/api-keys')
    await signIn(page, 'admin')
    const pages = '/admin/settings/api-keys'
    await page.goto(`${pages}/${apiKey.id}`)
    const address = await page.locator('#key .owner-link').getAttribute('href')
    const owner = new URL(address ?? '', page.url()).search
    const views = {
      list: '',
      'list-nothing': '?q=zebra',
      'list-refused': `?createdBy=${'x'.repeat(300)}`,
      create: `/new${owner}`,
      key: `/${apiKey.id}`,
      suspend: `/${apiKey.id}/suspend`,
      transfer: `/${apiKey.id}/transfer`,
      owners: '/owner',
      owner: `/owner${owner}`,
      'owner-suspend': `/owner/suspend${owner}`,
      'owner-revoke-all': `/owner/revoke-all${owner}`,
      'owner-erase': `/owner/erase${owner}`,
      unused: '/unused?days=1',
      usage: '/usage',
      trail: '/audit',
      verification: '/audit/verification',
      health: '/health?count=living',
    }
    for (const [name, view] of Object.entries(views)) {
      await page.goto(pages + view)
      await keep(`admin-${name}`)
    }
    await page.goto(`${pages}${owner}&permission=READ_GRAPH`)
    await page.locator('.more-filters summary').click()
    await keep('admin-list-filters')
    await page.goto(`${pages}/audit?action=rotated`)
    await page.locator('.events summary').first().click()
    await keep('admin-trail-changes')
    await page.goto(`${pages}/audit/verification`)
    await send(page, 'Verify now')
    await keep('admin-verified')
    await page.goto(`${pages}/owner/suspend${owner}`)
    await page.getByLabel('Reason').fill('On leave until March')
    await send(page, 'Suspend owner')
    await keep('admin-owner-suspended')
    await page.goto(`${pages}/owner/reactivate${owner}`)
    await keep('admin-owner-reactivate')
    await send(page, 'Reactivate owner')
    await signIn(page, 'bob')
    await page.goto(pages)
    await keep('admin-forbidden')
  })

  it('pictures of all views of a user are made', async () => {
    const { page, keep } = await openWindow()
    await signIn(page, 'admin')
    await page.goto(mount)
    await keep('list-empty')

    await signIn(page, 'alice')
    const { apiKeys } = await (await page.request.get('/api-keys')).json()
    for (const { id } of apiKeys) {
      await page.request.delete(`/api-keys/${id}`, { headers: { Origin: url } })
    }
    const { apiKey } = await fill(page, '/api-keys')
    const views = {
      list: '',
      'list-test': '?environment=test',
      'list-revoked': '?status=revoked',
      'list-nothing': '?q=zebra',
      'list-refused': '?cursor=nonsense',
      create: '/new',
      key: `/${apiKey.id}`,
      'key-hours': `/${apiKey.id}?by=hour`,
      edit: `/${apiKey.id}/edit`,
      rotate: `/${apiKey.id}/rotate`,
      'end-rotation': `/${apiKey.id}/end-rotation`,
      revoke: `/${apiKey.id}/revoke`,
      'not-found': '/00000000-0000-4000-8000-000000000000',
    }
    for (const [name, view] of Object.entries(views)) {
      await page.goto(mount + view)
      await keep(name)
    }
    await page.goto(mount)
    await page.getByRole('link', { name: 'Old importer' }).click()
    await keep('key-suspended')
    await page.goto(`${mount}?status=revoked`)
    await page.locator('.keys tbody th a').first().click()
    await keep('key-revoked')
    await page.goto(`${mount}/${apiKey.id}`)
    await page.locator('.chart .bar').nth(20).hover()
    await page.locator('summary').first().click()
    await page.getByRole('button', { name: 'Exact times' }).click()
    await keep('key-table')

    await page.goto(`${mount}/new`)
    await page.locator('summary').click()
    await keep('create-restrictions')
    await page.getByLabel('Allowed addresses').fill('203.0.113.7\nnowhere')
    await page.getByLabel('graph', { exact: true }).fill('umbrella')
    await send(page, 'Create key')
    await keep('create-faults')
    await page.getByLabel('Name').fill('Deployment')
    await page.getByLabel('READ_GRAPH').check()
    await page.getByLabel('Allowed addresses').fill('')
    await page.getByLabel('graph', { exact: true }).fill('greeting')
    await send(page, 'Create key')
    await keep('reveal')
    await page.reload()
    await keep('reveal-again')

    await page.goto(`${mount}/new`)
    await page.getByLabel('Name').fill('Written before')
    await page.getByLabel('READ_GRAPH').check()
    await page.context().clearCookies()
    await send(page, 'Create key')
    await keep('session-ended-kept')
    await page.goto(mount)
    await keep('session-ended')
  })
})
