import { createInBrowser, describeInBrowser, secretIn, send, useBrowser } from '../support/browser'
import { newUser } from '../support/keys'
import { until } from '../support/until'

const { apiKeys, createKey, openWindow } = useBrowser()

const secret = /agpt_[0-9A-Za-z]{51}/

async function keysOf(userId: string) {
  return (await apiKeys.list({ userId })).apiKeys
}

describeInBrowser.each([
  ['with scripts', true],
  ['without scripts', false],
])('a user %s', (_, javaScriptEnabled) => {
  it('creates a key, uses it, sees its last use, and revokes it', async () => {
    const user = newUser()
    const { page, errors } = await openWindow(user, { javaScriptEnabled })

    await createInBrowser(page, 'First key')
    const key = await secretIn(page)
    const isGood = (await apiKeys.verify(key, { ip: '203.0.113.7' })).valid
    await page.getByRole('link', { name: 'I have saved the key' }).click()
    const lastUse = await page.locator('#key dd').first().textContent()
    await page.getByRole('link', { name: 'Revoke' }).click()
    await send(page, 'Revoke key')

    expect(isGood).toBe(true)
    expect(lastUse).toMatch(/^now from 203\.0\.113\.7/)
    expect(await page.getByRole('status').textContent()).toBe('The key is revoked.')
    expect((await apiKeys.verify(key)).valid).toBe(false)
    expect(errors).toEqual([])
  })

  it('edits, suspends, reactivates and renews a key, and ends its old secret', async () => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user, name: 'Before' })
    await apiKeys.verify(plainTextKey)
    const { page, errors } = await openWindow(user, { javaScriptEnabled })

    await page.getByRole('link', { name: 'Before' }).click()
    await page.getByRole('link', { name: 'Edit' }).click()
    await page.getByLabel('Name').fill('After')
    await page.getByLabel('EXECUTE_GRAPH').check()
    await page.getByLabel('Expiry').selectOption('30')
    await send(page, 'Save changes')
    await send(page, 'Suspend')
    const suspended = await apiKeys.get(id)
    await send(page, 'Reactivate')
    await page.getByRole('link', { name: 'New secret' }).click()
    await page.getByLabel('The old secret works on for').selectOption('3600')
    await send(page, 'Make new secret')
    const fresh = await secretIn(page)
    const whileBoth = await apiKeys.verify(plainTextKey)
    await page.getByRole('link', { name: 'I have saved the key' }).click()
    await page.getByRole('link', { name: 'End the old secret now' }).click()
    await send(page, 'End the old secret')

    expect(suspended.status).toBe('SUSPENDED')
    expect(await apiKeys.get(id)).toMatchObject({
      name: 'After',
      status: 'ACTIVE',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      previousSecret: null,
    })
    expect(whileBoth.valid).toBe(true)
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
    expect((await apiKeys.verify(fresh)).valid).toBe(true)
    expect(errors).toEqual([])
  })

  it('sees a secret once, whatever the buttons of the browser do', async () => {
    const user = newUser()
    const { page } = await openWindow(user, { javaScriptEnabled })
    await createInBrowser(page, 'Once')
    const key = await secretIn(page)

    const shown: string[] = []
    for (const move of ['reload', 'goBack', 'goForward'] as const) {
      // The browser answers with a page of its own if a form would have to be sent again.
      await page[move]().catch(() => null)
      await until(async () => {
        const html = await page.content().catch(() => null)
        if (html !== null) shown.push(html)
        return html !== null
      })
    }

    expect(key).toMatch(secret)
    expect(shown.filter((html) => html.includes(key))).toEqual([])
    expect(await keysOf(user)).toHaveLength(1)
    expect(page.url()).not.toMatch(secret)
  })

  it('sees names as they are, and no script in them runs', async () => {
    const user = newUser()
    const name = '<img src=x onerror=alert(1)>"><script>alert(2)</script>'
    await createKey({ userId: user, name, description: name })
    const { page, errors } = await openWindow(user, { javaScriptEnabled })

    await page.getByRole('link', { name }).click()

    expect(await page.locator('h1 bdi').textContent()).toBe(name)
    expect(errors).toEqual([])
  })
})

describeInBrowser('the new key', () => {
  it('is copied by a button', async () => {
    const { context, page } = await openWindow(newUser())
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    await createInBrowser(page, 'Copied')
    const [button, second] = await page.getByRole('button', { name: 'Copy' }).all()
    await button?.click()
    await page.getByRole('button', { name: 'Copied' }).waitFor()
    const copied = await page.evaluate(() => navigator.clipboard.readText())
    await second?.click()
    await page.waitForFunction(async () =>
      (await navigator.clipboard.readText()).startsWith('curl'),
    )

    expect(copied).toBe(await secretIn(page))
  })

  it('is selected if the browser does not allow copying, and the page says so', async () => {
    const { page } = await openWindow(newUser())
    await createInBrowser(page, 'Not copied')
    await page.evaluate(() => {
      navigator.clipboard.writeText = () => Promise.reject(new Error('denied'))
    })
    await page.getByRole('button', { name: 'Copy' }).first().click()
    await page.getByText('The browser did not allow it.').waitFor()

    expect(await page.evaluate(() => String(getSelection()))).toBe(await secretIn(page))
  })

  it('is in no storage, no field and no history of the browser', async () => {
    const { context, page } = await openWindow(newUser())
    await createInBrowser(page, 'Nowhere')
    const key = await secretIn(page)
    const kept = await page.evaluate(async () => ({
      storages: [localStorage.length, sessionStorage.length, document.cookie],
      state: JSON.stringify(history.state),
      caches: await caches.keys(),
      fields: [...document.querySelectorAll('input, textarea')].length,
      url: location.href,
    }))

    expect(kept).toEqual({
      storages: [0, 0, ''],
      state: 'null',
      caches: [],
      fields: 0,
      url: expect.not.stringContaining(key),
    })
    expect(JSON.stringify(await context.storageState())).not.toContain(key)
  })

  it('is made once by a double click', async () => {
    const user = newUser()
    const { page } = await openWindow(user)
    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Name').fill('Twice')
    await page.getByLabel('READ_GRAPH').check()
    await page.getByRole('button', { name: 'Create key' }).dblclick()
    await page.locator('#secret').waitFor()

    expect(await secretIn(page)).toMatch(secret)
    expect(await keysOf(user)).toHaveLength(1)
  })
})
