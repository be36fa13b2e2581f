import { createInBrowser, describeInBrowser, secretIn, useBrowser } from '../support/browser'
import { mount } from '../support/console'
import { newUser } from '../support/keys'
import { until } from '../support/until'

const { apiKeys, createKey, openWindow, start, stop } = useBrowser()

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
    await page.getByRole('button', { name: 'Revoke key' }).click()

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
    await page.getByRole('button', { name: 'Save changes' }).click()
    await page.getByRole('button', { name: 'Suspend' }).click()
    const suspended = await apiKeys.get(id)
    await page.getByRole('button', { name: 'Reactivate' }).click()
    await page.getByRole('link', { name: 'New secret' }).click()
    await page.getByLabel('The old secret works on for').selectOption('3600')
    await page.getByRole('button', { name: 'Make new secret' }).click()
    const fresh = await secretIn(page)
    const whileBoth = await apiKeys.verify(plainTextKey)
    await page.getByRole('link', { name: 'I have saved the key' }).click()
    await page.getByRole('link', { name: 'End the old secret now' }).click()
    await page.getByRole('button', { name: 'End the old secret' }).click()

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

describeInBrowser('a page that stays open', () => {
  it('shows what another window does', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'Shared' })
    const { page } = await openWindow(user)
    await page.clock.install()
    await page.reload()
    await apiKeys.suspend(id)
    await page.clock.fastForward(31_000)
    await page.getByRole('cell', { name: 'Suspended' }).waitFor()

    expect(await page.locator('table.keys tbody tr').count()).toBe(1)
  })

  it('says that the session has ended', async () => {
    const user = newUser()
    await createKey({ userId: user })
    const { context, page } = await openWindow(user)
    await page.clock.install()
    await page.reload()
    await context.setExtraHTTPHeaders({})
    await page.clock.fastForward(31_000)

    await page.getByRole('heading', { name: 'Your session has ended' }).waitFor()
    expect(await page.locator('table').count()).toBe(0)
  })

  it('stays as it is while the server is away, and goes on when it is back', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'Lasting' })
    const { page, errors } = await openWindow(user)
    await page.clock.install()
    await page.reload()
    const failed = page.waitForEvent('requestfailed')
    await stop()
    await page.clock.fastForward(31_000)
    await failed
    const whileAway = await page.getByRole('link', { name: 'Lasting' }).count()
    await start()
    await apiKeys.suspend(id)
    await page.clock.fastForward(31_000)
    await page.getByRole('cell', { name: 'Suspended' }).waitFor()

    expect(whileAway).toBe(1)
    expect(errors).toEqual([])
  })

  it('keeps what was typed if the session has ended meanwhile', async () => {
    const user = newUser()
    const { context, page } = await openWindow(user)
    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Name').fill('Typed before')
    await page.getByLabel('READ_GRAPH').check()
    await context.setExtraHTTPHeaders({})
    await page.getByRole('button', { name: 'Create key' }).click()
    await page.getByText('What you typed is kept here.').waitFor()
    await context.setExtraHTTPHeaders({ 'X-User': user })
    await page.getByRole('button', { name: 'Send again' }).click()
    await page.locator('#secret').waitFor()

    expect(await keysOf(user)).toMatchObject([{ name: 'Typed before' }])
  })

  it('shows times in the zone of the reader', async () => {
    const user = newUser()
    await createKey({ userId: user, name: 'CI', expiresAt: '2099-12-31T20:00:00Z' })
    const { page } = await openWindow(user, { timezoneId: 'Asia/Tokyo' })
    const inList = await page.getByRole('cell', { name: '1 Jan 2100' }).count()
    await page.getByRole('link', { name: 'CI' }).click()

    expect(inList).toBe(1)
    expect(await page.locator('#key').textContent()).toContain('1 Jan 2100, 05:00')
    await until(async () => (await page.title()) === 'CI')
    expect(page.url()).toContain(mount)
  })
})

describeInBrowser('by keyboard alone', () => {
  it('a key is created and revoked', async () => {
    const user = newUser()
    const { page } = await openWindow(user)
    /** Presses Tab until an element with a name has the focus. */
    async function tabTo(name: string) {
      for (let presses = 0; presses < 40; presses++) {
        await page.keyboard.press('Tab')
        const focused = await page.evaluate(
          () => (document.activeElement as { innerText?: string } | null)?.innerText ?? '',
        )
        if (focused.trim() === name) return
      }
      throw new Error(`Tab never comes to ${name}`)
    }

    await tabTo('Create key')
    await page.keyboard.press('Enter')
    await page.waitForURL(/\/new$/)
    await page.keyboard.type('Typed')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Space')
    await tabTo('Create key')
    await page.keyboard.press('Enter')
    await page.locator('#secret').waitFor()
    await tabTo('I have saved the key')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Typed' }).waitFor()
    await tabTo('Revoke')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Revoke Typed?' }).waitFor()
    await tabTo('Revoke key')
    await page.keyboard.press('Enter')
    await page.getByText('The key is revoked.').waitFor()

    expect(await keysOf(user)).toMatchObject([{ name: 'Typed', status: 'REVOKED' }])
  })
})
