import { mount, useConsole } from '../support/console'
import { newKey, newUser } from '../support/keys'
import { createVisitor, fieldsOf, formWith, rowsOf } from '../support/visitor'

const { apiKeys, as, createKey, http, rows } = useConsole()

/** Names that must be shown as they are. */
const hostile = [
  '<img src=x onerror=alert(1)>',
  '"><script>alert(1)</script>',
  '</title></style></textarea>&amp;',
  "' onclick='x",
  'مفتاح \u202eevil',
  'ﷺ'.repeat(100),
  '{{7*7}} ${7*7} %00',
]

describe('the list', () => {
  it('shows the keys of the user, newest first', async () => {
    const user = newUser()
    await createKey({ userId: newUser(), name: 'Foreign' })
    await createKey({ userId: user, name: 'First', permissions: ['READ_GRAPH', 'READ_BLOCK'] })
    const { apiKey, plainTextKey } = await createKey({ userId: user, name: 'Second' })
    await http.with(plainTextKey).get('/api-keys')

    const page = await as(user).open(mount)

    expect(page.status).toBe(200)
    const [second, first, ...others] = rowsOf(page)
    expect(others).toEqual([])
    expect(first).toMatchObject({
      Name: 'First',
      Permissions: 'READ_GRAPH, READ_BLOCK',
      Status: 'Active',
      'Last used': 'Never',
      Expires: 'Never',
    })
    expect(second).toMatchObject({ Name: 'Second' })
    expect(page.text).toContain(`${apiKey.prefix}…${apiKey.postfix}`)
  })

  it('says what to do if there is no key', async () => {
    const page = await as(newUser()).open(mount)

    expect(page.text).toContain('No API keys yet')
    const next = await as(newUser()).follow(page, 'Create key')
    expect(next.text).toContain('Create an API key')
  })

  it.each(hostile)('shows a name and a description as they are: %s', async (name) => {
    const user = newUser()
    const { id } = await createKey({
      userId: user,
      name,
      description: name.repeat(2).slice(0, 500),
    })
    const visitor = as(user)
    const list = await visitor.open(mount)
    const key = await visitor.open(`${mount}/${id}`)
    const edit = await visitor.open(`${mount}/${id}/edit`)
    const revoke = await visitor.open(`${mount}/${id}/revoke`)

    expect(rowsOf(list)[0]?.Name).toBe(name)
    expect(key.root.querySelector('h1 bdi')?.textContent).toBe(name)
    expect(edit.root.querySelector('#name')?.getAttribute('value')).toBe(name)
    expect(revoke.root.querySelector('h1 bdi')?.textContent).toBe(`Revoke ${name}?`)
    for (const { root } of [list, key, edit, revoke]) {
      expect(root.querySelectorAll('img, [onerror], [onclick], style')).toEqual([])
      expect(root.querySelectorAll('script')).toHaveLength(1)
    }
  })

  it.each(hostile)('shows what was typed into any field as it is: %s', async (text) => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'CI' })
    const visitor = as(user)
    const typed = {
      name: `${text}${'x'.repeat(101)}`,
      description: text,
      permissions: [text],
      expiry: 'date',
      expiresOn: text,
      addresses: text,
    }
    const form = await visitor.open(`${mount}/new`)
    const refused = await visitor.press(form, 'Create key', typed)
    const ended = await createVisitor(http, {}).press(form, 'Create key', typed)
    const revoke = await visitor.open(`${mount}/${id}/revoke`)
    const reason = `${text}${'x'.repeat(500)}`
    const unrevoked = await visitor.press(revoke, 'Revoke key', { reason })
    const revoked = await visitor.press(revoke, 'Revoke key', { reason: text })
    const found = await visitor.open(`${mount}?q=${encodeURIComponent(text)}`)

    const { name, description, addresses, expiresOn } = typed
    expect(fieldsOf(formWith(refused, 'Create key'))).toMatchObject({
      name: [name],
      description: [description],
      addresses: [addresses],
      expiresOn: [expiresOn],
    })
    expect(fieldsOf(formWith(ended, 'Send again'))).toMatchObject({
      name: [name],
      addresses: [text],
    })
    expect(ended.root.querySelector('dd')?.textContent).toBe(name)
    expect(fieldsOf(formWith(unrevoked, 'Revoke key'))).toEqual({ reason: [reason] })
    expect(revoked.root.querySelector('.reason')?.textContent).toBe(text)
    expect(fieldsOf(formWith(found, 'Search'))).toMatchObject({ q: [text] })
    for (const { root } of [refused, ended, unrevoked, revoked, found]) {
      expect(root.querySelectorAll('img, [onerror], [onclick], style')).toEqual([])
      expect(root.querySelectorAll('script')).toHaveLength(1)
    }
  })

  it.each([
    ['', ['Suspended one', 'Active one', 'Expired one']],
    ['active', ['Active one']],
    ['suspended', ['Suspended one']],
    ['expired', ['Expired one']],
    ['revoked', ['Revoked one']],
    ['unknown', ['Suspended one', 'Active one', 'Expired one']],
  ])('filters by status: %s', async (status, names) => {
    const user = newUser()
    await createKey({ userId: user, name: 'Expired one' })
    await rows(`UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE user_id = $1`, [user])
    await createKey({ userId: user, name: 'Revoked one', status: 'REVOKED' })
    await createKey({ userId: user, name: 'Active one' })
    await createKey({ userId: user, name: 'Suspended one', status: 'SUSPENDED' })

    const page = await as(user).open(`${mount}?status=${status}`)

    expect(rowsOf(page).map(({ Name }) => Name)).toEqual(names)
    expect(rowsOf(page).map(({ Status }) => `${Status} one`)).toEqual(names)
    expect(page.root.querySelectorAll('.tabs [aria-current=page]')).toHaveLength(1)
  })

  it('searches names, descriptions and starts of keys, within the status', async () => {
    const user = newUser()
    await createKey({ userId: user, name: 'Nightly import' })
    const { apiKey } = await createKey({ userId: user, name: 'CI', description: 'Runs nightly' })
    await createKey({ userId: user, name: 'Night watch', status: 'SUSPENDED' })
    const visitor = as(user)
    const list = await visitor.open(`${mount}?status=active`)
    const byWord = await visitor.press(list, 'Search', { q: 'night' })
    const byKey = await visitor.press(list, 'Search', { q: apiKey.prefix })
    const none = await visitor.press(list, 'Search', { q: 'zebra' })

    expect(rowsOf(byWord).map(({ Name }) => Name)).toEqual(['CI', 'Nightly import'])
    expect(rowsOf(byKey).map(({ Name }) => Name)).toEqual(['CI'])
    expect(none.text).toContain('No key matches')
    expect(rowsOf(await visitor.follow(none, 'Show all current keys'))).toHaveLength(3)
  })

  it('sorts by a column, and by it in reverse', async () => {
    const user = newUser()
    for (const name of ['b', 'a', 'c']) await createKey({ userId: user, name })
    const visitor = as(user)
    const byName = await visitor.follow(await visitor.open(mount), 'Name')
    const reverse = await visitor.follow(byName, 'Name')

    expect(rowsOf(byName).map(({ Name }) => Name)).toEqual(['a', 'b', 'c'])
    expect(rowsOf(reverse).map(({ Name }) => Name)).toEqual(['c', 'b', 'a'])
    expect(byName.root.querySelector('th[aria-sort]')?.getAttribute('aria-sort')).toBe('ascending')
  })

  it('has pages, in the order and with the search of the first', async () => {
    const user = newUser()
    const names = Array.from({ length: 45 }, (_, index) => `Key ${String(index).padStart(2, '0')}`)
    await apiKeys.createMany(names.map((name) => newKey({ userId: user, name })))
    const visitor = as(user)
    const first = await visitor.open(`${mount}?sort=name&q=key`)
    const second = await visitor.follow(first, 'Next page')
    const third = await visitor.follow(second, 'Next page')

    expect([first, second, third].flatMap((page) => rowsOf(page).map(({ Name }) => Name))).toEqual(
      names,
    )
    expect(third.text).not.toContain('Next page')
    expect(rowsOf(await visitor.follow(third, 'First page'))).toHaveLength(20)
  })

  it.each([
    ['cursor=nonsense', 'This page of the list is not there any more. Start again with the first.'],
    [`q=${'word+'.repeat(11)}`, 'Search must have at most 10 words.'],
    [`q=${'x'.repeat(1_025)}`, 'Search must have 1 to 1024 characters.'],
  ])('says what it cannot do: %s', async (query, fault) => {
    const user = newUser()
    await createKey({ userId: user })

    const page = await as(user).open(`${mount}?${query}`)

    expect(page.status).toBe(422)
    expect(page.root.querySelector('[role=alert]')?.textContent).toBe(fault)
    expect(page.text).not.toContain('No key matches')
    expect(rowsOf(await as(user).follow(page, 'Show all current keys'))).toHaveLength(1)
  })

  it('has the uses of 30 days as a small chart', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, name: 'Used' })
    await createKey({ userId: user, name: 'Unused' })
    await rows(
      `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       SELECT $1, 'user', $2, date_trunc('hour', now()) - step * interval '25 hours', 100, 10, 1
         FROM generate_series(0, 2) AS step`,
      [id, user],
    )

    // The key had another owner before.
    await rows(
      `INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       VALUES ($1, 'organization', 'acme', date_trunc('hour', now()) - interval '1 day', 50, 0, 0)`,
      [id],
    )

    const page = await as(user).open(mount)

    const charts = page.root.querySelectorAll('svg.spark')
    expect(charts.map((chart) => chart.getAttribute('aria-label'))).toEqual([
      '0 requests in 30 days',
      '300 requests in 30 days',
    ])
  })
})
