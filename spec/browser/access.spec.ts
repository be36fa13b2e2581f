import { createInBrowser, describeInBrowser, faultsOf, send, useBrowser } from '../support/browser'
import { mount } from '../support/console'
import { newUser } from '../support/keys'

const { apiKeys, createKey, openWindow, rows } = useBrowser(
  { limits: { burst: { limit: 100, windowSeconds: 60 } } },
  {
    title: 'Acme',
    signIn: '/sign-in',
    back: { href: '/', text: 'Back to Acme' },
    permissionGroups: { Graphs: ['READ_GRAPH', 'EXECUTE_GRAPH'] },
  },
)

/** Gives a user keys of all kinds, and returns the views of one. */
async function prepare() {
  const user = newUser()
  await createKey({ userId: user, name: 'Revoked', status: 'REVOKED' })
  await createKey({ userId: user, name: 'Suspended', status: 'SUSPENDED' })
  await createKey({ userId: user, name: 'x'.repeat(100), description: 'y'.repeat(500) })
  await createKey({ userId: user, name: 'مفتاح الإنتاج' })
  const { id } = await createKey({
    userId: user,
    name: 'Used',
    description: 'Imports orders',
    allowedIps: ['203.0.113.0/24', '2001:db8:1111:2222:3333:4444:5555:6666'],
  })
  await rows(
    `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
     SELECT $1, 'user', $2, date_trunc('hour', now()) - step * interval '7 hours', 1000, 100, 50
       FROM generate_series(0, 60) AS step`,
    [id, user],
  )
  await apiKeys.rotate(id)
  const views = [
    '',
    '?status=revoked',
    '?q=zebra',
    '?cursor=nonsense',
    '/new',
    `/${id}`,
    `/${id}?by=hour`,
    `/${id}/edit`,
    `/${id}/rotate`,
    `/${id}/end-rotation`,
    `/${id}/revoke`,
    '/nonsense',
  ]
  return { user, views: views.map((view) => `${mount}${view}`) }
}

type Window = Awaited<ReturnType<typeof openWindow>>

/** Shows each view, those that no address leads to included. */
async function visitAll(
  { page, context }: Window,
  views: string[],
  visit: (view: string) => Promise<void>,
) {
  for (const view of views) {
    await page.goto(view)
    await visit(view)
  }
  await page.goto(`${mount}/new`)
  await send(page, 'Create key')
  await visit('faults')
  await page.goto(mount)
  await createInBrowser(page, 'Shown')
  await visit('reveal')
  await page.reload()
  await visit('already created')
  await context.setExtraHTTPHeaders({})
  await page.goto(mount)
  await visit('session ended')
}

describeInBrowser('for each width and theme', () => {
  it('axe finds no fault on any view, and none has to be scrolled sideways', async () => {
    const { user, views } = await prepare()
    const window = await openWindow(user)
    const found: string[] = []

    await visitAll(window, views, async (view) => {
      const faults = await faultsOf(window.page)
      found.push(...faults.map((fault) => `${view}: ${fault}`))
    })

    expect(found).toEqual([])
    expect(window.errors).toEqual([])
  })
})
