import express from 'express'
import request from 'supertest'

import { createApiKeys } from '../../lib'
import { createTestApiKeys, permissions } from '../support/app'
import { mount, useConsole } from '../support/console'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { newUser } from '../support/keys'
import { createVisitor, fromOwnPage, rowsOf, textOf } from '../support/visitor'

const { apiKeys, as, createKey, http, rows } = useConsole({}, { admin: true, signIn: '/sign-in' })

const admin = as('admin-root')

const views = [
  '',
  '/new?ownerId=:user',
  '/:id',
  '/:id/edit',
  '/:id/rotate',
  '/:id/suspend',
  '/:id/transfer',
  '/:id/revoke',
  '/owner',
  '/owner?ownerId=:user',
  '/owner/suspend?ownerId=:user',
  '/owner/reactivate?ownerId=:user',
  '/owner/revoke-all?ownerId=:user',
  '/owner/erase?ownerId=:user',
  '/unused?days=1',
  '/usage',
  '/usage?by=hour&ownerId=:user',
  '/audit',
  '/audit?ownerId=:user',
  '/audit/verification',
  '/health',
  '/health?count=living',
]

const posts = [
  '/new',
  '/:id/edit',
  '/:id/rotate',
  '/:id/end-rotation',
  '/:id/suspend',
  '/:id/reactivate',
  '/:id/unrevoke',
  '/:id/transfer',
  '/:id/revoke',
  '/owner/suspend',
  '/owner/reactivate',
  '/owner/revoke-all',
  '/owner/erase',
  '/unused',
  '/audit/verification',
]

function at(view: string, { id, userId }: { id: string; userId: string }) {
  return mount + view.replace(':id', id).replace(':user', encodeURIComponent(userId))
}

/** Returns a form that every view would carry out. */
function formFor(userId: string) {
  const owner = `ownerType=user&ownerId=${encodeURIComponent(userId)}`
  return `name=Typed&permissions=READ_GRAPH&expiry=never&grace=0&days=1&reason=Because&${owner}`
}

/** Returns the keys, the suspensions and the number of entries of the trail. */
async function everything() {
  return {
    keys: await rows(`SELECT to_jsonb(key) - 'last_used_at' AS key FROM api_keys AS key`),
    suspended: await rows('SELECT * FROM api_key_suspended_owners'),
    entries: await rows('SELECT count(*) FROM api_key_events'),
  }
}

describe('a user who is no administrator', () => {
  it.each(views)('sees nothing: %s', async (view) => {
    const key = await createKey({ userId: newUser(), name: 'Hidden' })
    const page = await as(key.userId).open(at(view, key))

    expect(page.status).toBe(403)
    expect(page.text).toContain('Only an administrator may do this.')
    expect(page.html).not.toContain('Hidden')
    expect(page.root.querySelectorAll('nav, form, main a')).toEqual([])
    expect(page.headers['cache-control']).toBe('no-store')
  })

  it.each(posts)('changes nothing: %s', async (view) => {
    const key = await createKey({ userId: newUser() })
    const before = await everything()
    const answer = await http
      .set({ 'X-User': key.userId, ...fromOwnPage })
      .post(at(view, key))
      .type('form')
      .send(formFor(key.userId))

    expect(answer.status).toBe(403)
    expect(await everything()).toEqual(before)
  })

  it('learns from a session that has ended where to sign in', async () => {
    const page = await createVisitor(http, {}).open(`${mount}/audit`)

    expect(page.status).toBe(401)
    expect(page.root.querySelector('main a')?.getAttribute('href')).toBe('/sign-in')
  })
})

describe('a request of an administrator', () => {
  it.each(posts)('is refused if a page of another site sends it: %s', async (view) => {
    const key = await createKey({ userId: newUser() })
    const before = await everything()
    const foreign: Record<string, string>[] = [
      { 'Sec-Fetch-Site': 'cross-site' },
      { 'Sec-Fetch-Site': 'same-site' },
      { Origin: 'https://evil.example' },
      { Origin: 'null' },
      {},
    ]
    const answers = await Promise.all(
      foreign.map((headers) =>
        http
          .set({ 'X-User': 'admin-root', ...headers })
          .post(at(view, key))
          .type('form')
          .send(formFor(key.userId)),
      ),
    )

    expect(answers.map(({ status }) => status)).toEqual([403, 403, 403, 403, 403])
    expect(await everything()).toEqual(before)
  })

  it.each(views)('changes nothing by GET, and may load its own files only: %s', async (view) => {
    const key = await createKey({ userId: newUser() })
    await apiKeys.rotate(key.id)
    const before = await everything()
    const path = at(view, key)
    const page = await admin.open(`${path}${path.includes('?') ? '&' : '?'}${formFor(key.userId)}`)
    const plain = await admin.open(path)

    expect(await everything()).toEqual(before)
    expect(page.status).toBe(200)
    expect(plain.headers['content-security-policy']).toMatch(/^default-src 'none'; /)
    expect(plain.headers['cache-control']).toBe('no-store')
    expect(plain.root.querySelectorAll('h1')).toHaveLength(1)
    expect(plain.root.querySelectorAll('script').map(({ textContent }) => textContent)).toEqual([
      '',
    ])
    const inline = plain.root
      .querySelectorAll('*')
      .filter(({ attributes }) =>
        Object.keys(attributes).some((name) => /^(style|on\w+)$/.test(name)),
      )
    expect([...inline, ...plain.root.querySelectorAll('style')]).toEqual([])
    expect(plain.root.querySelectorAll('.sections [aria-current=page]')).toHaveLength(1)
  })

  it.each(views)('is answered in German: %s', async (view) => {
    const key = await createKey({ userId: newUser() })
    const page = await as('admin-root', { 'Accept-Language': 'de' }).open(at(view, key))

    expect(page.headers['content-language']).toBe('de')
    expect(page.root.querySelectorAll('.sections a').map(textOf)).toEqual([
      'Schlüssel',
      'Besitzer',
      'Benutzung',
      'Protokoll',
      'Unbenutzt',
      'Zustand',
    ])
    expect(page.text).not.toMatch(/\b(the|of|keys)\b/i)
  })

  it('is refused if it carries a key', async () => {
    const { plainTextKey } = await createKey()
    const visitor = createVisitor(http, { 'X-User': 'admin-root', ...bearer(plainTextKey) })

    expect((await visitor.open(mount)).status).toBe(403)
  })

  it('finds no key that does not exist, and is shown the way on', async () => {
    const page = await admin.open(`${mount}/00000000-0000-4000-8000-000000000000`)

    expect(page.status).toBe(404)
    expect(page.root.querySelectorAll('.sections a')).toHaveLength(6)
  })
})

describe('names, owners, makers, addresses and reasons', () => {
  it.each([
    '<img src=x onerror=alert(1)>',
    '"><script>alert(1)</script>',
    '</title></style></textarea>&amp;',
    "' onclick='x",
    'مفتاح \u202eevil',
    'ﷺ'.repeat(100),
    '{{7*7}} ${7*7} %00 ?a=1&b=2#c',
  ])('are shown as they are: %s', async (text) => {
    const actor = { type: 'admin', id: text } as const
    const wish = { userId: text, permissions: ['READ_GRAPH'] } as const
    const { apiKey } = await apiKeys.create({ ...wish, name: text }, { actor, reason: text })
    const other = await apiKeys.create({ ...wish, name: 'Other' })
    await apiKeys.suspendOwner({ type: 'user', id: text }, { actor, reason: text.repeat(2) })
    await apiKeys.update(apiKey.id, { description: text })
    const key = { id: apiKey.id, userId: text }
    const pages = await Promise.all(views.map((view) => admin.open(at(view, key))))
    await apiKeys.revoke(other.apiKey.id, { actor, reason: text })
    const list = pages[0]
    const trail = await admin.open(`${mount}/audit?ownerId=${encodeURIComponent(text)}`)
    const owner = await admin.open(`${mount}/owner?ownerId=${encodeURIComponent(text)}`)

    expect(pages.map(({ status }) => status)).toEqual(views.map(() => 200))
    expect(list && rowsOf(list)[1]).toMatchObject({ Name: text })
    expect(textOf(owner.root.querySelector('h1 bdi'))).toBe(text.replaceAll(/\s+/g, ' ').trim())
    expect(trail.root.querySelectorAll('.reason').map(({ textContent }) => textContent)).toContain(
      text,
    )
    for (const { root } of [...pages, trail, owner]) {
      expect(root.querySelectorAll('img, [onerror], [onclick], style')).toEqual([])
      expect(root.querySelectorAll('script')).toHaveLength(1)
    }
    await apiKeys.reactivateOwner({ type: 'user', id: text })
  })
})

describe('the option admin', () => {
  it('needs isAdmin', () => {
    const keys = createTestApiKeys(databaseAway, { isAdmin: undefined })

    expect(() => keys.console({ admin: true })).toThrow(
      'console: needs the options currentUser and isAdmin of createApiKeys',
    )
  })

  it('excludes organization, and is true or false', () => {
    const keys = createApiKeys({
      sequelize: databaseAway.connect(),
      keyPrefix: 'agpt',
      permissions,
      organizations: { table: 'organizations', type: 'integer' },
      currentUser: () => ({ id: 'root' }),
      isAdmin: () => true,
    })

    expect(() => keys.console({ admin: true, organization: () => 7 })).toThrow(
      'console: the option admin excludes the option organization, got true',
    )
    expect(() => keys.console({ admin: 'yes' as never })).toThrow(
      'console: the option admin must be true or false, got "yes"',
    )
  })

  it('takes only true of isAdmin for an administrator', async () => {
    const keys = createTestApiKeys(databaseAway, { isAdmin: () => 1 as never })
    const app = express().use('/keys', keys.console({ admin: true }))

    expect((await request(app).get('/keys/health').set('X-User', 'root')).status).toBe(403)
  })
})
