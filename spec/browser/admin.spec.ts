import { describeInBrowser, faultsOf, secretIn, send, useBrowser } from '../support/browser'
import { mount } from '../support/console'
import { newUser } from '../support/keys'

const { apiKeys, createKey, openWindow, rows } = useBrowser({}, { admin: true, title: 'Acme' })

const admin = 'admin-root'

/** Gives an owner keys of all kinds, and returns the views of administrators. */
async function prepare() {
  const owner = newUser()
  await createKey({ userId: owner, name: 'Suspended', status: 'SUSPENDED' })
  await createKey({ userId: owner, name: 'x'.repeat(100), description: 'y'.repeat(500) })
  const { id } = await createKey({ userId: owner, name: 'مفتاح الإنتاج' })
  await apiKeys.update(id, { description: 'z'.repeat(500) })
  await apiKeys.suspend(id, { reason: 'w'.repeat(500) })
  await rows(
    `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
     SELECT $1, 'user', $2, date_trunc('hour', now()) - step * interval '7 hours', 1000, 100, 50
       FROM generate_series(0, 60) AS step`,
    [id, owner],
  )
  await rows(`UPDATE api_keys SET created_at = now() - interval '1 year' WHERE id = $1`, [id])
  await apiKeys.suspendOwner({ type: 'user', id: newUser() }, { reason: 'On leave' })
  const views = [
    '',
    `?ownerId=${owner}&permission=READ_GRAPH&q=x`,
    '?q=zebra',
    `?createdBy=${'x'.repeat(300)}`,
    '/new',
    `/${id}`,
    `/${id}/edit`,
    `/${id}/suspend`,
    `/${id}/transfer`,
    `/${id}/revoke`,
    '/owner',
    `/owner?ownerId=${owner}`,
    `/owner/suspend?ownerId=${owner}`,
    `/owner/reactivate?ownerId=${owner}`,
    `/owner/revoke-all?ownerId=${owner}`,
    `/owner/erase?ownerId=${owner}`,
    '/unused',
    '/unused?days=soon',
    '/usage',
    '/usage?by=hour',
    '/audit',
    '/audit?apiKeyId=7',
    '/audit/verification',
    '/health',
    '/health?count=living',
  ]
  return views.map((view) => `${mount}${view}`)
}

describeInBrowser('for each width and theme', () => {
  it('axe finds no fault on any view of administrators, and none has to be scrolled sideways', async () => {
    const views = await prepare()
    const { page, errors } = await openWindow(admin)
    const found: string[] = []
    for (const view of views) {
      await page.goto(view)
      for (const summary of await page.locator('main summary').all()) await summary.click()
      found.push(...(await faultsOf(page)))
    }
    await page.goto(`${mount}/new`)
    await send(page, 'Create key')
    found.push(...(await faultsOf(page)))
    await page.goto(`${mount}/audit/verification`)
    await send(page, 'Verify now')
    found.push(...(await faultsOf(page)))

    expect(found).toEqual([])
    expect(errors).toEqual([])
  })
})

describeInBrowser.each([
  ['with scripts', true],
  ['without scripts', false],
])('an administrator %s', (_, javaScriptEnabled) => {
  it('creates a key for a user, suspends it, hands it on, and revokes all keys of the new owner', async () => {
    const [owner, next] = [newUser(), newUser()]
    const { page, errors } = await openWindow(admin, { javaScriptEnabled })

    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Owner', { exact: true }).fill(owner)
    await page.getByLabel('Name').fill('On behalf')
    await page.getByLabel('READ_GRAPH').check()
    await send(page, 'Create key')
    const key = await secretIn(page)
    const isGood = (await apiKeys.verify(key)).valid
    await page.getByRole('link', { name: 'I have saved the key' }).click()
    await page.getByRole('link', { name: 'Suspend' }).click()
    await page.getByLabel('Reason').fill('Leaked')
    await send(page, 'Suspend key')
    const whileSuspended = (await apiKeys.verify(key)).valid
    await send(page, 'Reactivate')
    await page.getByRole('link', { name: 'Hand on' }).click()
    await page.getByLabel('New owner').fill(next)
    await send(page, 'Hand on key')
    await page.getByRole('link', { name: next }).first().click()
    await page.getByRole('link', { name: 'Revoke all keys' }).click()
    const named = await page.getByRole('link', { name: 'On behalf' }).count()
    await send(page, 'Revoke 1 key')

    expect([isGood, whileSuspended, named]).toEqual([true, false, 1])
    expect(await page.getByRole('heading', { level: 1 }).textContent()).toBe('1 key revoked')
    expect((await apiKeys.verify(key)).valid).toBe(false)
    expect(errors).toEqual([])
  })

  it('suspends and reactivates an owner, and revokes keys that are not in use', async () => {
    const owner = newUser()
    const { id } = await createKey({ userId: owner, name: 'Idle' })
    await rows(`UPDATE api_keys SET created_at = now() - interval '1 year' WHERE id = $1`, [id])
    const { page, errors } = await openWindow(admin, { javaScriptEnabled })

    await page.getByRole('link', { name: 'Owners' }).click()
    await page.getByLabel('Owner', { exact: true }).fill(owner)
    await page.getByRole('button', { name: 'Show owner' }).click()
    await page.getByRole('link', { name: 'Suspend owner' }).click()
    await send(page, 'Suspend owner')
    const suspended = await apiKeys.get(id)
    await page.getByRole('link', { name: 'Reactivate owner' }).click()
    await send(page, 'Reactivate owner')
    await page.getByRole('link', { name: 'Unused keys' }).click()
    await page.getByLabel('Owner').fill(owner)
    await page.getByRole('button', { name: 'Show keys' }).click()
    await page.getByLabel('Reason').fill('Not in use')
    await send(page, 'Revoke 1 key')

    expect(suspended.ownerSuspended).toBe(true)
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED', ownerSuspended: false })
    expect(errors).toEqual([])
  })

  it('filters the audit trail, and verifies it', async () => {
    const { id } = await createKey({ userId: newUser(), name: 'In the trail' })
    const { page, errors } = await openWindow(admin, { javaScriptEnabled })

    await page.getByRole('link', { name: 'Audit trail' }).click()
    await page.getByLabel('Id of a key').fill(id)
    await page.getByRole('button', { name: 'Filter' }).click()
    const entries = await page.locator('.events tbody tr').count()
    await page.getByRole('link', { name: 'Verify the trail' }).click()
    await send(page, 'Verify now')
    await page.getByText('The audit trail is intact').waitFor()

    expect(entries).toBe(1)
    expect(await page.locator('.running').isVisible()).toBe(false)
    expect(await page.locator('.progress:visible').count()).toBe(0)
    expect(errors).toEqual([])
  })
})
