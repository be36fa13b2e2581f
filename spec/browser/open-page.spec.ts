import { describeInBrowser, send, useBrowser } from '../support/browser'
import { mount } from '../support/console'
import { newUser } from '../support/keys'
import { until } from '../support/until'

const { apiKeys, createKey, openWindow, rows, start, stop } = useBrowser()

async function keysOf(userId: string) {
  return (await apiKeys.list({ userId })).apiKeys
}

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

  it('shows that its key is revoked in another tab, and offers nothing for it any more', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'Shared' })
    const { context, page, errors } = await openWindow(user)
    await page.goto(`${mount}/${id}`)
    await page.clock.install()
    await page.reload()
    const other = await context.newPage()
    await other.goto(`${mount}/${id}/revoke`)
    await other.getByLabel('Reason').fill('Leaked')
    await send(other, 'Revoke key')
    await page.clock.fastForward(31_000)
    await page.getByText('This key is revoked. It never works again.').waitFor()
    await page.getByText('Leaked').waitFor()

    expect(await page.locator('h1').textContent()).toBe('Shared Revoked')
    expect(await page.locator('.toolbar').count()).toBe(0)
    expect(errors).toEqual([])
  })

  it('sends the forms of a part that has come anew once, too', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'Shared' })
    const { page } = await openWindow(user)
    await page.goto(`${mount}/${id}`)
    await page.clock.install()
    await page.reload()
    await apiKeys.suspend(id)
    await page.clock.fastForward(31_000)
    await page.getByRole('button', { name: 'Reactivate' }).waitFor()
    await page.getByRole('button', { name: 'Exact times' }).click()
    const exact = await page.locator('.trail .when').first().textContent()
    await page.getByRole('button', { name: 'Reactivate' }).dblclick()
    await page.getByText('The key is active again.').waitFor()
    const { events } = await apiKeys.events({ apiKeyId: id })

    expect(exact).toMatch(/20\d\d, \d\d:\d\d/)
    expect(events.map(({ action }) => action)).toEqual(['reactivated', 'suspended', 'created'])
  })

  it('says that the session has ended', async () => {
    const user = newUser()
    await createKey({ userId: user })
    const { context, page } = await openWindow(user)
    await page.clock.install()
    await page.reload()
    await context.setExtraHTTPHeaders({})
    await page.clock.fastForward(31_000)

    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor()
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

  it('keeps what was typed while the server is away, and sends it when it is back', async () => {
    const user = newUser()
    const { page, errors } = await openWindow(user)
    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Name').fill('Typed before')
    await page.getByLabel('READ_GRAPH').check()
    await stop()
    await page.getByRole('button', { name: 'Create key' }).click()
    await page.getByText('The server cannot be reached.').waitFor()
    const whileAway = await page.getByLabel('Name').inputValue()
    await start()
    await send(page, 'Create key')
    await page.locator('#secret').waitFor()

    expect(whileAway).toBe('Typed before')
    expect(await keysOf(user)).toMatchObject([{ name: 'Typed before' }])
    expect(errors).toEqual([])
  })

  it('says so if the server is away when a button is pressed that needs no form', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user })
    const { page } = await openWindow(user)
    await page.goto(`${mount}/${id}`)
    await stop()
    await page.getByRole('button', { name: 'Suspend' }).click()
    await page.getByRole('alert').waitFor()
    await start()
    await send(page, 'Suspend')

    await page.getByText('The key is suspended.').waitFor()
    expect((await apiKeys.get(id)).status).toBe('SUSPENDED')
  })

  it('moves to the first field that is refused', async () => {
    const { page } = await openWindow(newUser())
    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Name').fill('CI')
    await page.getByLabel('READ_GRAPH').check()
    await page.getByText('Restrict addresses').click()
    await page.locator('textarea.code').fill('nowhere')
    await send(page, 'Create key')
    await page.getByRole('alert').waitFor()

    expect(await page.evaluate(() => document.activeElement?.id)).toBe('allowedIps')
  })

  it('keeps what was typed if the session has ended meanwhile', async () => {
    const user = newUser()
    const { context, page } = await openWindow(user)
    await page.getByRole('link', { name: 'Create key' }).click()
    await page.getByLabel('Name').fill('Typed before')
    await page.getByLabel('READ_GRAPH').check()
    await context.setExtraHTTPHeaders({})
    await send(page, 'Create key')
    await page.getByText('What you typed is kept here.').waitFor()
    await context.setExtraHTTPHeaders({ 'X-User': user })
    await send(page, 'Send again')
    await page.locator('#secret').waitFor()

    expect(await keysOf(user)).toMatchObject([{ name: 'Typed before' }])
  })

  it('shows exact times in place of distances, if the reader wants them', async () => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user, name: 'CI' })
    await apiKeys.verify(plainTextKey)
    const { page } = await openWindow(user)
    const cell = page.getByRole('cell', { name: 'now' })
    await cell.waitFor()
    await page.getByRole('button', { name: 'Exact times' }).click()
    const isPressed = await page.getByRole('button', { name: 'Exact times', pressed: true }).count()
    const exact = await page.locator('td.lastUsed').textContent()
    await page.getByRole('button', { name: 'Exact times' }).click()
    await cell.waitFor()
    await page.goto(`${mount}/${id}`)
    await page.getByRole('button', { name: 'Exact times' }).click()

    expect(isPressed).toBe(1)
    expect(exact).toMatch(/^\d{1,2} \w+ 20\d\d, \d\d:\d\d$/)
    expect(await page.locator('.trail .when').textContent()).toMatch(/20\d\d, \d\d:\d\d$/)
  })

  it('shows the numbers of a bar of the chart, and hours in the zone of the reader', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'CI' })
    await rows(
      `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       SELECT $1, 'user', $2, date_trunc('hour', now()), 1111, 11, 100`,
      [id, user],
    )
    const { page, errors } = await openWindow(user, { timezoneId: 'Asia/Kolkata' })
    const numbers: (string | null)[] = []
    for (const view of ['', '?by=hour']) {
      await page.goto(`${mount}/${id}${view}`)
      await page.locator('.chart .bar').last().hover()
      numbers.push(await page.locator('.numbers-of-bar').textContent())
    }
    await page.getByText('Show as a table').click()

    const counts = 'Requests: 1,000 accepted, 11 denied, 100 over the limit'
    expect(numbers[0]).toMatch(new RegExp(`^\\d+ \\w+ 20\\d\\d: ${counts}$`))
    // Hours of UTC begin at half past there.
    expect(numbers[1]).toMatch(new RegExp(`^\\d+ \\w+ 20\\d\\d, \\d\\d:30: ${counts}$`))
    expect(await page.locator('.numbers tbody th').textContent()).toMatch(/, \d\d:30$/)
    expect(errors).toEqual([])
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
