import { createTestApiKeys, createTestApp } from '../support/app'
import { mount, useConsole } from '../support/console'
import { createHttp } from '../support/http'
import { newUser } from '../support/keys'
import { redisAway } from '../support/redis'
import {
  createVisitor,
  factsOf,
  faultOf,
  fieldsOf,
  formWith,
  textOf,
  type OpenPage,
} from '../support/visitor'

const granted = new Map<string, string[]>()
const all = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK']

const { apiKeys, as, createKey, database, http, rows } = useConsole({
  limits: { burst: { limit: 100, windowSeconds: 60 } },
  grantable: ({ id }) => (granted.get(id) ?? all) as 'READ_GRAPH'[],
})

/** Returns the numbers of the table of usage. */
function table({ root }: OpenPage): string[][] {
  return root
    .querySelectorAll('details tbody tr')
    .map((row) => row.querySelectorAll('td').map((cell) => textOf(cell)))
}

/** Returns the entries of the trail: what was done, and by whom. */
function trailOf({ root }: OpenPage): [string, string][] {
  return root
    .querySelectorAll('section[aria-labelledby=trail] tbody tr')
    .map((row) => [textOf(row.querySelector('th')), textOf(row.querySelector('td'))])
}

describe('the page of a key', () => {
  it('has all about it', async () => {
    const user = newUser()
    const { id, plainTextKey, apiKey } = await createKey({
      userId: user,
      name: 'CI',
      description: 'Runs\nnightly',
      permissions: ['READ_GRAPH', 'READ_BLOCK'],
      expiresAt: '2099-12-31T12:00:00Z',
      allowedIps: ['127.0.0.1', '::1', '203.0.113.0/24'],
      limits: { burst: { limit: 2000, windowSeconds: 3600 } },
    })
    await apiKeys.verify(plainTextKey, { ip: '127.0.0.1' })

    const page = await as(user).open(`${mount}/${id}`)

    expect(page.status).toBe(200)
    expect(factsOf(page)).toMatchObject({
      'Last used': expect.stringMatching(/^now from 127\.0\.0\.1 \d+ \w+ 20\d\d, \d\d:\d\d UTC$/),
      Expires: '31 Dec 2099, 12:00 UTC',
      Permissions: 'READ_GRAPHREAD_BLOCK',
      'Allowed addresses': '127.0.0.1::1203.0.113.0/24',
      Limits: expect.stringMatching(/^2,000 requests in 1 hour 2,000 left/),
      Accepted: '1',
      Denied: '0',
      'Over the limit': '0',
    })
    expect(page.text).toContain(`${apiKey.prefix}…${apiKey.postfix}`)
    expect(page.root.querySelector('.description')?.textContent).toBe('Runs\nnightly')
  })

  it('says how much of its limits is left, and when all of it is there again', async () => {
    const { id, userId, plainTextKey } = await createKey({
      userId: newUser(),
      limits: { daily: { limit: 5, windowSeconds: 86_400 } },
    })
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)
    const visitor = as(userId)
    const unused = await visitor.open(`${mount}/${id}`)
    await apiKeys.consume(verdict.apiKey, 3)
    const used = await visitor.open(`${mount}/${id}`)
    await apiKeys.consume(verdict.apiKey, 2)
    const exhausted = await visitor.open(`${mount}/${id}`)
    await apiKeys.suspend(id)
    const suspended = await visitor.open(`${mount}/${id}`)

    expect(factsOf(unused).Limits).toBe(
      '100 requests in 1 minute 100 left5 requests in 1 day 5 left' +
        'Each server of the app counts for itself. These are the counts of one of them.',
    )
    expect(factsOf(used).Limits).toMatch(
      /minute 97 left, all of them again in (5\d|60) seconds.*day 2 left, all of them again in (23 hours|tomorrow)/,
    )
    expect(factsOf(exhausted).Limits).toContain('day 0 left')
    expect(exhausted.root.querySelectorAll('.none-left')).toHaveLength(1)
    expect(factsOf(suspended).Limits).toBe('100 requests in 1 minute 5 requests in 1 day')
  })

  it('says that it cannot read what is left if Redis is away, and shows the rest', async () => {
    const limits = { burst: { limit: 100, windowSeconds: 60 } }
    const away = createTestApiKeys(database, { limits, redis: redisAway })
    const app = createTestApp(away, (app) => app.use(mount, away.console()))
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = createVisitor(
      createHttp(() => app),
      { 'X-User': userId },
    )
    const page = await visitor.open(`${mount}/${id}`)

    expect(page.status).toBe(200)
    expect(factsOf(page).Limits).toBe(
      '100 requests in 1 minute How much is left cannot be read at the moment.',
    )
  })

  it('has the usage as a chart, and as a table for readers who cannot see it', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    await rows(
      `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       VALUES ($1, 'user', $2, date_trunc('hour', now()) - interval '2 hours', 1111, 11, 100),
              ($1, 'user', $2, date_trunc('hour', now()) - interval '20 days', 5001, 0, 0)`,
      [id, userId],
    )
    const visitor = as(userId)
    const days = await visitor.open(`${mount}/${id}`)
    const hours = await visitor.follow(days, '24 hours')

    expect(factsOf(days)).toMatchObject({ Accepted: '6,001', Denied: '11' })
    expect(factsOf(hours)).toMatchObject({ Accepted: '1,000', 'Over the limit': '100' })
    expect(hours.root.querySelectorAll('.chart .bar')).toHaveLength(24)
    expect(days.root.querySelectorAll('.chart .bar')).toHaveLength(30)
    expect(days.root.querySelectorAll('.axis-y span').map(textOf)).toEqual(['6,000', '3,000', '0'])
    expect(table(hours)).toEqual([['1,000', '11', '100']])
    expect(table(days)).toHaveLength(2)
  })

  it('has the trail as its owner may see it, a page at a time', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    for (let round = 0; round < 11; round++) {
      await apiKeys.suspend(id, { userId })
      await apiKeys.reactivate(id, {
        actor: { type: 'admin', id: 'root' },
        address: '198.51.100.9',
        reason: '<b>Mistake</b>',
      })
    }

    const newest = await visitor.open(`${mount}/${id}`)
    const older = await visitor.follow(newest, 'Older entries')

    expect(trailOf(newest)).toHaveLength(20)
    expect(trailOf(newest).slice(0, 2)).toEqual([
      ['Reactivated <b>Mistake</b>', 'An administrator'],
      ['Suspended', 'You'],
    ])
    expect(newest.html).not.toContain('198.51.100.9')
    expect(trailOf(older).at(-1)).toEqual(['Created', 'The app'])
    expect(trailOf(await visitor.follow(older, 'Newest entries'))).toEqual(trailOf(newest))
  })

  it('suspends and reactivates the key', async () => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const suspended = await visitor.press(await visitor.open(`${mount}/${id}`), 'Suspend')
    const whileSuspended = await apiKeys.verify(plainTextKey)
    const active = await visitor.press(suspended, 'Reactivate')

    expect(suspended.text).toContain('The key is suspended.')
    expect(whileSuspended.valid).toBe(false)
    expect(active.text).toContain('The key is active again.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
  })

  it.each(['suspended', 'revoked', 'rotation-ended', 'nonsense', 'constructor'])(
    'claims nothing that is not true because a link says so: %s',
    async (notice) => {
      const { id, userId } = await createKey({ userId: newUser() })
      await apiKeys.rotate(id)

      const page = await as(userId).open(`${mount}/${id}?notice=${notice}`)

      expect(page.root.querySelector('.banner')).toBeNull()
    },
  )

  it('says why an action is refused, and shows the key as it is', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const page = await visitor.open(`${mount}/${id}`)
    await apiKeys.revoke(id)
    const refused = await visitor.press(page, 'Suspend')

    expect(refused.status).toBe(409)
    expect(refused.root.querySelector('[role=alert]')?.textContent).toMatch(/is revoked/)
    expect(refused.text).toContain('It never works again.')
    expect(() => formWith(refused, 'Suspend')).toThrow('There is no button')
  })

  it.each(['/nonsense', `/${newUser()}`, '/018f0000-0000-7000-8000-000000000000', '/%E0%A4%A'])(
    'does not exist for %s',
    async (view) => {
      const page = await as(newUser()).open(`${mount}${view}`)

      expect(page.status).toBe(404)
      expect(page.text).toContain('There is no such API key.')
    },
  )

  it.each(['', '/edit', '/rotate', '/end-rotation', '/revoke'])(
    'does not exist for other users: %s',
    async (view) => {
      const { id } = await createKey({ userId: newUser(), name: 'Secret project' })

      const page = await as(newUser()).open(`${mount}/${id}${view}`)

      expect(page.status).toBe(404)
      expect(page.html).not.toContain('Secret project')
    },
  )
})

describe('the form for changes', () => {
  it('changes what the user changed, and nothing else', async () => {
    const { id, userId, apiKey } = await createKey({
      userId: newUser(),
      description: 'Before\nthe change',
      expiresAt: '2099-01-01T00:00:00Z',
      allowedIps: ['203.0.113.7'],
      metadata: { plan: 'free' },
    })
    const visitor = as(userId)
    const form = await visitor.follow(await visitor.open(`${mount}/${id}`), 'Edit')
    const saved = await visitor.press(form, 'Save changes', { name: 'After' })

    expect(saved.text).toContain('Your changes are saved.')
    const { updatedAt: _, ...others } = apiKey
    expect(await apiKeys.get(id)).toMatchObject({ ...others, name: 'After' })
  })

  it('changes all fields at once', async () => {
    const { id, userId } = await createKey({ userId: newUser(), description: 'Old' })
    const visitor = as(userId)
    const form = await visitor.open(`${mount}/${id}/edit`)
    await visitor.press(form, 'Save changes', {
      name: 'New',
      description: '',
      permissions: ['READ_BLOCK', 'EXECUTE_BLOCK'],
      expiry: 'date',
      expiresOn: '2099-12-31',
      addresses: '198.51.100.0/24',
    })

    expect(await apiKeys.get(id)).toMatchObject({
      name: 'New',
      description: null,
      permissions: ['READ_BLOCK', 'EXECUTE_BLOCK'],
      expiresAt: new Date('2099-12-31T23:59:59Z'),
      allowedIps: ['198.51.100.0/24'],
    })
  })

  it('changes nothing if a field is refused', async () => {
    const user = newUser()
    granted.set(user, ['READ_GRAPH', 'READ_BLOCK'])
    const { id, apiKey } = await createKey({ userId: user })
    const visitor = as(user)
    const form = await visitor.open(`${mount}/${id}/edit`)
    const ungranted = await visitor.press(form, 'Save changes', {
      name: 'Another',
      permissions: ['EXECUTE_GRAPH'],
    })
    const nameless = await visitor.press(form, 'Save changes', {
      name: '',
      permissions: ['READ_BLOCK'],
    })

    expect(faultOf(ungranted, 'Permissions')).toMatch(/do not hold/)
    expect(fieldsOf(formWith(ungranted, 'Save changes'))).toMatchObject({ name: ['Another'] })
    expect(faultOf(nameless, 'Name')).toMatch(/1 to 100/)
    expect(await apiKeys.get(id)).toEqual(apiKey)
  })

  it('keeps a permission that the user no longer holds, unless the user takes it away', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    granted.set(user, ['READ_GRAPH'])
    const visitor = as(user)
    const form = await visitor.open(`${mount}/${id}/edit`)
    await visitor.press(form, 'Save changes', { name: 'Renamed' })
    const renamed = await apiKeys.get(id)
    await visitor.press(form, 'Save changes', { permissions: ['READ_GRAPH'] })

    expect(form.text).toContain('EXECUTE_GRAPH (no longer available to you)')
    expect(renamed).toMatchObject({ name: 'Renamed', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    expect(await apiKeys.get(id)).toMatchObject({ permissions: ['READ_GRAPH'] })
  })

  it('is refused for a revoked key, and keeps what was typed', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const form = await visitor.open(`${mount}/${id}/edit`)
    await apiKeys.revoke(id)
    const refused = await visitor.press(form, 'Save changes', { name: 'Typed' })

    expect(refused.status).toBe(409)
    expect(fieldsOf(formWith(refused, 'Save changes'))).toMatchObject({ name: ['Typed'] })
  })
})

describe('the form for a new secret', () => {
  it('gives the key a new secret, and lets the old one work on', async () => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    await apiKeys.verify(plainTextKey)
    const visitor = as(userId)
    const form = await visitor.follow(await visitor.open(`${mount}/${id}`), 'New secret')
    const shown = await visitor.press(form, 'Make new secret', { grace: '3600' })

    expect(shown.status).toBe(200)
    const fresh = shown.root.querySelector('#secret')?.textContent ?? ''
    expect((await apiKeys.verify(fresh)).valid).toBe(true)
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
    const { previousSecret } = await apiKeys.get(id)
    const graceMs = Number(previousSecret?.worksUntil) - Date.now()
    expect(graceMs).toBeGreaterThan(3_500_000)
    expect(graceMs).toBeLessThanOrEqual(3_600_000)
  })

  it('neither shows the secret again nor makes another if the browser sends it again', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const form = await visitor.open(`${mount}/${id}/rotate`)
    const shown = await visitor.press(form, 'Make new secret')
    const { postfix } = await apiKeys.get(id)
    const again = await visitor.press(form, 'Make new secret')

    expect(again.status).toBe(409)
    expect(again.html).not.toContain(shown.root.querySelector('#secret')?.textContent)
    expect(await apiKeys.get(id)).toMatchObject({ postfix })
  })

  it.each(['', '-1', '1e9', 'soon'])(
    'refuses a grace that it does not offer: %j',
    async (grace) => {
      const { id, userId, apiKey } = await createKey({ userId: newUser() })
      const visitor = as(userId)
      const form = await visitor.open(`${mount}/${id}/rotate`)
      const refused = await visitor.press(form, 'Make new secret', { grace })

      expect(refused.status).toBe(422)
      expect(faultOf(refused, 'The old secret works on for')).toMatch(/must be a whole number/)
      expect(await apiKeys.get(id)).toMatchObject({ postfix: apiKey.postfix })
    },
  )

  it('lets the user end the old secret at once', async () => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    await http.with(plainTextKey).get('/api-keys')
    await apiKeys.verify(plainTextKey)
    await apiKeys.rotate(id)
    const visitor = as(userId)
    const page = await visitor.open(`${mount}/${id}`)
    const asked = await visitor.follow(page, 'End the old secret now')
    const ended = await visitor.press(asked, 'End the old secret')

    expect(page.text).toContain('The old secret still works')
    expect(ended.text).toContain('The old secret no longer works.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
  })

  it.each([
    [false, 'It was never used.'],
    [true, 'Its last use: now.'],
  ])('says when the old secret was last used: %s', async (isUsed, sentence) => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    if (isUsed) await apiKeys.verify(plainTextKey)
    await apiKeys.rotate(id)

    expect((await as(userId).open(`${mount}/${id}`)).text).toContain(sentence)
  })

  it('is refused for a suspended key', async () => {
    const { id, userId } = await createKey({ userId: newUser(), status: 'SUSPENDED' })
    const visitor = as(userId)
    const refused = await visitor.press(
      await visitor.open(`${mount}/${id}/rotate`),
      'Make new secret',
    )

    expect(refused.status).toBe(409)
    expect(refused.root.querySelector('[role=alert]')?.textContent).toMatch(/Reactivate it first/)
  })
})

describe('the question before a key is revoked', () => {
  it('names the key, and when and from where it was last used', async () => {
    const { id, userId, apiKey, plainTextKey } = await createKey({ userId: newUser(), name: 'CI' })
    const visitor = as(userId)
    const unused = await visitor.open(`${mount}/${id}/revoke`)
    await apiKeys.verify(plainTextKey, { ip: '203.0.113.7' })
    const used = await visitor.open(`${mount}/${id}/revoke`)

    expect(unused.text).toContain('The key was never used.')
    expect(used.text).toContain('Revoke CI?')
    expect(used.text).toContain(`${apiKey.prefix}…${apiKey.postfix}`)
    expect(used.text).toMatch(
      /Its last use: now from 203\.0\.113\.7 \(\d+ \w+ \d+, \d\d:\d\d UTC\)/,
    )
  })

  it('revokes the key for ever, with the reason in the trail', async () => {
    const { id, userId, plainTextKey } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const asked = await visitor.follow(await visitor.open(`${mount}/${id}`), 'Revoke')
    const revoked = await visitor.press(asked, 'Revoke key', { reason: 'Leaked' })

    expect(revoked.text).toContain('The key is revoked.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
    expect(trailOf(revoked)[0]).toEqual(['Revoked Leaked', expect.stringContaining('You')])
    expect(revoked.root.querySelector('.toolbar')).toBeNull()
  })

  it('refuses a reason that is too long, and keeps it', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const visitor = as(userId)
    const asked = await visitor.open(`${mount}/${id}/revoke`)
    const refused = await visitor.press(asked, 'Revoke key', { reason: 'r'.repeat(501) })

    expect(faultOf(refused, 'Reason')).toBe('Reason must have 1 to 500 characters.')
    expect(fieldsOf(formWith(refused, 'Revoke key'))).toMatchObject({ reason: ['r'.repeat(501)] })
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })
})
