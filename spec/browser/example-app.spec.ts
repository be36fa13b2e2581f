import { randomUUID } from 'node:crypto'

import type { Locator } from 'playwright-core'

import { faultsOf, describeInBrowser, secretIn, send, useExampleApp } from '../support/browser'

const { openApp, signIn } = useExampleApp()

const acme = '/organizations/acme/settings/api-keys'

describeInBrowser('in the example app', () => {
  it('a user comes from the overview to every page, and back', async () => {
    const { page } = await openApp()
    await page.getByRole('link', { name: 'Sign in' }).first().click()
    await signIn(page, 'alice')
    const after = new URL(page.url()).pathname
    await page.getByRole('link', { name: 'Overview' }).click()
    await page.getByRole('link', { name: 'API keys of Acme' }).click()
    const lead = await page.locator('.lead').textContent()
    await page.getByRole('link', { name: 'Overview' }).click()
    await page.getByRole('navigation').getByRole('link', { name: 'Your keys' }).click()
    await page.getByRole('link', { name: 'Overview' }).click()
    await page.getByRole('navigation').getByRole('link', { name: 'Try a key' }).click()
    await page.getByRole('button', { name: 'Sign out' }).click()

    expect(after).toBe('/settings/api-keys')
    expect(lead).toContain('your organization')
    expect(await page.getByRole('navigation').getByRole('link').allTextContents()).toEqual([
      'Try a key',
    ])
  })

  it('a newcomer creates a key, copies it, uses it, sees its last use and revokes it in 12 clicks', async () => {
    const { page, context } = await openApp({ viewport: { width: 1280, height: 800 } })
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    let clicks = 0
    async function click(role: 'link' | 'button' | 'checkbox', name: string) {
      const target = page.getByRole(role, { name }).first()
      await page.waitForLoadState()
      // All that is needed is in the window, so that nothing has to be searched for.
      expect(await placeInWindow(target)).toBe('whole')
      clicks++
      await target.click()
    }

    await click('link', 'Sign in')
    await signIn(page, 'alice')
    await click('link', 'Create key')
    await page.waitForURL(/\/new$/)
    await page.keyboard.type('My script')
    await click('checkbox', 'Read graphs READ_GRAPH')
    await page.keyboard.press('Enter')
    await page.locator('#secret').waitFor()
    await click('button', 'Copy')
    await page.getByRole('button', { name: 'Copied' }).waitFor()
    await click('link', 'I have saved the key')
    await page.locator('#key').waitFor()
    await click('link', 'Overview')
    await page.getByRole('heading', { name: 'Overview' }).waitFor()
    await click('link', 'Try a key')
    await page.waitForURL(/\/try$/)
    await page.keyboard.press('Control+V')
    await page.keyboard.press('Enter')
    await page.getByText('200 OK').waitFor()
    await click('link', 'Your keys')
    await page.getByRole('cell', { name: 'now' }).waitFor()
    await click('link', 'My script')
    await page.getByRole('heading', { name: 'My script' }).waitFor()
    const lastUse = await page.locator('#key dd').first().textContent()
    await click('link', 'Revoke')
    await page.getByRole('heading', { name: 'Revoke My script?' }).waitFor()
    await click('button', 'Revoke key')
    await page.getByText('The key is revoked.').waitFor()

    expect(lastUse).toMatch(/^now from /)
    expect(clicks + 1).toBe(12)
  })

  it.each([
    ['with scripts', true],
    ['without scripts', false],
  ])('a member tries a key of an organization on one page: %s', async (_, javaScriptEnabled) => {
    const { page, errors } = await openApp({ javaScriptEnabled })
    await page.goto('/sign-in')
    await signIn(page, 'alice')
    const key = await createAt(page, acme)
    await page.goto('/try')
    const answers: string[] = []
    for (const route of ['GET /graphs', 'POST /blocks/greet/execute']) {
      await page.getByLabel('Route').selectOption(route)
      const field = page.getByLabel('API key')
      if ((await field.inputValue()) === '') await field.fill(key)
      await page.getByRole('button', { name: 'Send' }).click()
      await page.getByRole('heading', { name: `The answer to ${route}` }).waitFor()
      answers.push((await page.locator('#answer').textContent()) ?? '')
    }

    expect(answers[0]).toMatch(/200 OK[^]*ratelimit-policy[^]*A welcome to Acme/)
    expect(answers[1]).toMatch(/403 Forbidden[^]*www-authenticate[^]*EXECUTE_BLOCK/)
    expect(errors).toEqual([])
  })

  it('a key that is tried is in no address, no storage and no history of the browser', async () => {
    const { page, context } = await openApp()
    await page.goto('/sign-in')
    await signIn(page, 'bob')
    const key = await createAt(page, '/settings/api-keys')
    const bodies: string[] = []
    page.on('response', (response) => {
      void response.text().then(
        (text) => bodies.push(text),
        () => null,
      )
    })
    await page.goto('/try')
    const entries = await page.evaluate(() => history.length)
    await page.getByLabel('API key').fill(key)
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByText('200 OK').waitFor()
    const url = page.url()
    const entriesAfter = await page.evaluate(() => history.length)
    await page.goto('/')
    await page.goBack()
    await page.getByRole('heading', { name: 'Try a key' }).waitFor()
    const afterBack = await page.getByLabel('API key').inputValue()
    await page.reload()

    expect(url).not.toContain('agpt_')
    expect(entriesAfter).toBe(entries)
    expect([afterBack, await page.getByLabel('API key').inputValue()]).toEqual(['', ''])
    // Reload would send a form again that the browser has kept.
    expect(await page.locator('#answer').textContent()).toBe('')
    expect(JSON.stringify(await context.storageState())).not.toContain(key)
    expect(bodies.filter((text) => text.includes(key))).toEqual([])
  })

  it('the page says so if the app is away, and keeps the key for another attempt', async () => {
    const { page, context } = await openApp()
    await page.goto('/try')
    await page.getByLabel('API key').fill('agpt_tried')
    await context.setOffline(true)
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByText('The app does not answer.').waitFor()
    await context.setOffline(false)
    await page.getByRole('button', { name: 'Send' }).click()

    await page.getByText('401 Unauthorized').waitFor()
    expect(await page.getByLabel('API key').inputValue()).toBe('agpt_tried')
  })
})

describeInBrowser('the pages of the example app', () => {
  it('have no fault', async () => {
    const { page, errors } = await openApp()
    const faults = await faultsOf(page)
    await page.goto('/sign-in?failed')
    faults.push(...(await faultsOf(page)))
    await signIn(page, 'alice')
    await page.goto('/')
    faults.push(...(await faultsOf(page)))
    await page.goto('/try')
    await page.getByLabel('API key').fill(randomUUID())
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByText('401 Unauthorized').waitFor()
    faults.push(...(await faultsOf(page)))

    expect(faults).toEqual([])
    expect(errors).toEqual([])
  })
})

/** Creates a key at a path, and returns it. */
async function createAt(page: Awaited<ReturnType<typeof openApp>>['page'], path: string) {
  await page.goto(`${path}/new`)
  await page.getByLabel('Name', { exact: true }).fill('Tried')
  await page.getByLabel('READ_GRAPH').check()
  await send(page, 'Create key')
  return secretIn(page)
}

/** Where an element is, once it is there: `'whole'` if all of it is in the window, or else its distances from the window's top in pixels. */
function placeInWindow(target: Locator) {
  return target.evaluate((element) => {
    const { top, bottom } = element.getBoundingClientRect()
    return top >= 0 && bottom <= innerHeight ? 'whole' : { top, bottom }
  })
}
