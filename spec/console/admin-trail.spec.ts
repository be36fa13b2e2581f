import { once } from 'node:events'
import { request, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { AuditVerification } from '../../lib'
import { en } from '../../lib/console/texts/en'
import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { until } from '../support/until'
import { faultOf, fieldsOf, formWith, fromOwnPage, textOf, type OpenPage } from '../support/visitor'

const { apiKeys, app, as, createKey, holdLock, rows, statements } = useConsole({}, { admin: true })

const admin = as('admin-root')

/** Returns what entries say: what was done, about what, and by whom. */
function entriesIn({ root }: OpenPage): string[][] {
  return root
    .querySelectorAll('.events tbody tr')
    .map((row) =>
      ['summary', '.about', '.who'].map((part) => textOf(row.querySelector(part) ?? null)),
    )
}

describe('the audit trail', () => {
  it('names keys, owners and actors, and shows what has changed', async () => {
    const owner = newUser()
    const { id } = await createKey({ userId: owner, name: 'Before' })
    await apiKeys.update(id, { name: 'After' }, { actor: { type: 'admin', id: 'admin-other' } })
    const page = await admin.open(`${mount}/audit?ownerId=${owner}`)
    const [changed] = page.root.querySelectorAll('.events tbody tr')

    expect(entriesIn(page)).toEqual([
      ['Changed', `After ${owner}`, 'An administrator admin-other'],
      ['Created', `After ${owner}`, 'The app'],
    ])
    expect(changed?.querySelectorAll('del').map(textOf)).toEqual(['Before'])
    expect(changed?.querySelectorAll('ins').map(textOf)).toEqual(['After'])
    expect(page.html).not.toMatch(/[0-9a-f]{64}/)
  })

  it('shows no value before if there was none, and none after if it is gone', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    await apiKeys.update(id, { description: 'Nightly' })
    await apiKeys.update(id, { description: null })
    const page = await admin.open(`${mount}/audit?ownerId=${userId}&action=updated`)
    const values = page.root
      .querySelectorAll('.events dd')
      .map((value) => ['del', 'ins'].map((part) => value.querySelector(part)?.text))

    expect(values).toEqual([
      ['Nightly', undefined],
      [undefined, 'Nightly'],
    ])
  })

  it('filters by action, owner and key, alone and together', async () => {
    const [owner, other] = [newUser(), newUser()]
    const { id } = await createKey({ userId: owner, status: 'SUSPENDED' })
    await createKey({ userId: owner })
    await createKey({ userId: other, status: 'SUSPENDED' })
    const start = await admin.open(`${mount}/audit`)
    const count = async (fields: Record<string, string>) =>
      entriesIn(await admin.press(start, 'Filter', fields)).length

    expect(await count({ ownerId: owner })).toBe(3)
    expect(await count({ ownerId: owner, action: 'created' })).toBe(2)
    expect(await count({ apiKeyId: id })).toBe(2)
    expect(await count({ apiKeyId: id, ownerId: other })).toBe(0)
  })

  it('goes on in pages with its filters', async () => {
    const owner = newUser()
    const wish = { userId: owner, permissions: ['READ_GRAPH'] } as const
    await apiKeys.createMany(Array.from({ length: 25 }, () => ({ ...wish, name: 'Many' })))
    const first = await admin.open(`${mount}/audit?ownerId=${owner}&action=created`)
    const second = await admin.follow(first, 'Older entries')

    expect([entriesIn(first).length, entriesIn(second).length]).toEqual([20, 5])
    expect(entriesIn(await admin.follow(second, 'Newest entries'))).toHaveLength(20)
  })

  it.each([
    ['apiKeyId=7', 'Id of a key', 'Id of a key must be a UUID.'],
    [`ownerId=${'x'.repeat(256)}`, 'Owner', 'Owner must have 1 to 255 characters.'],
    ['action=burned', 'Action', /^Action must be one of/],
  ])('says what it cannot filter: %s', async (query, label, fault) => {
    const page = await admin.open(`${mount}/audit?${query}`)

    expect(page.status).toBe(422)
    expect(faultOf(page, label)).toMatch(fault)
  })

  it('says that a page of it is gone', async () => {
    const page = await admin.open(`${mount}/audit?cursor=nonsense`)

    expect(page.status).toBe(422)
    expect(textOf(page.root.querySelector('[role=alert]'))).toBe(
      'This page of the list is not there any more. Start again with the first.',
    )
  })
})

/** True for the statement that ends a transaction. */
const isEnd = (sql: string) => /^(COMMIT|ROLLBACK);?$/.test(sql)

async function verify(fields: Record<string, string> = {}) {
  return admin.press(await admin.open(`${mount}/audit/verification`), 'Verify now', fields)
}

/** Sends the form of a verification, and returns the answer as it arrives. */
async function beginVerification() {
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const headers = { 'X-User': 'admin-root', ...fromOwnPage, 'Content-Length': 0 }
  const sent = request({ port, method: 'POST', path: `${mount}/audit/verification`, headers })
  sent.on('error', () => {})
  sent.end()
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  answer.on('error', () => {})
  return { server, sent, answer }
}

describe('a verification of the audit trail', () => {
  it('says that it is intact, and gives its end, which the next one takes', async () => {
    await createKey({ userId: newUser() })
    const first = await verify()
    const head = textOf(first.root.querySelector('#head'))
    await createKey({ userId: newUser() })
    const second = await verify({ head })
    const entries = Number((await rows('SELECT count(*) FROM api_key_events'))[0]?.count)

    expect(first.status).toBe(200)
    expect(first.headers['cache-control']).toBe('no-store, no-transform')
    expect(textOf(first.root.querySelector('.verified .banner'))).toBe('The audit trail is intact')
    expect(JSON.parse(head)).toMatchObject({ position: entries - 1 })
    expect(first.html).toMatch(/<\/main><\/body><\/html>\s*$/)
    expect(second.text).toContain('The audit trail is intact')
    expect(second.text).toContain(`Verified entries${entries.toLocaleString('en-GB')}`)
  })

  it.each([
    ['nonsense', 'An exported end must be the end of a trail as it was exported.'],
    ['{"position":1}', 'An exported end must be the end of a trail as it was exported.'],
    [
      JSON.stringify({
        position: 1,
        hash: 'a'.repeat(64),
        at: new Date().toISOString(),
        secretId: null,
        mac: 'b'.repeat(64),
      }),
      'An exported end was not exported here.',
    ],
  ])('is refused beside its field: %s', async (head, fault) => {
    const page = await verify({ head })

    expect(page.status).toBe(422)
    expect(faultOf(page, 'An exported end')).toBe(fault)
    expect(fieldsOf(formWith(page, 'Verify now'))).toMatchObject({ head: [head] })
  })

  it('shows how far it is while it runs', async () => {
    const keys = Array.from({ length: 5_000 }, (_, i) => ({
      userId: `many-${i % 10}`,
      name: 'Many',
      permissions: ['READ_GRAPH'] as const,
    }))
    await apiKeys.createMany(keys)
    const { server, answer } = await beginVerification()
    let html = ''
    for await (const chunk of answer) html += String(chunk)
    server.close()

    const lines = [...html.matchAll(/<progress value="(\d+)"/g)].map(([, value]) => Number(value))
    expect(lines.length).toBeGreaterThan(0)
    expect(lines).toEqual(lines.toSorted((a, b) => a - b))
    expect(html.lastIndexOf('<progress')).toBeLessThan(html.indexOf('class="verified"'))
    expect(answer.headers).toMatchObject({ 'x-accel-buffering': 'no' })
  })

  it('ends when the user leaves the page', async () => {
    await createKey({ userId: newUser() })
    const lock = await holdLock('LOCK TABLE api_key_suspended_owners IN ACCESS EXCLUSIVE MODE')
    const { server, sent } = await beginVerification()
    await lock.waitedFor()
    const from = statements.all.length
    sent.destroy()
    await until(
      () =>
        new Promise<boolean>((resolve) => {
          server.getConnections((_, count) => resolve(count === 0))
        }),
    )
    await lock.release()

    await until(async () => statements.all.slice(from).some(isEnd))
    server.close()

    // The whole verification would commit.
    expect(statements.all.slice(from).find(isEnd)).toMatch(/^ROLLBACK/)
  })

  it('says so if the database fails meanwhile', async () => {
    await createKey({ userId: newUser() })
    const lock = await holdLock('LOCK TABLE api_key_suspended_owners IN ACCESS EXCLUSIVE MODE')
    const { server, answer } = await beginVerification()
    const session = await lock.waitedFor()
    await rows('SELECT pg_terminate_backend($1)', [session])
    let html = ''
    for await (const chunk of answer) html += String(chunk)
    await lock.release()
    server.close()

    expect(html).toContain('API keys cannot be checked or changed at the moment.')
    expect(html).not.toContain('class="verified"')
    expect(html).toMatch(/<\/main><\/body><\/html>\s*$/)
  })

  it('lists what is wrong, in words', async () => {
    const { id } = await createKey({ userId: newUser() })
    await apiKeys.auditHead()
    await rows('ALTER TABLE api_key_events DISABLE TRIGGER USER')
    await rows(`UPDATE api_key_events SET reason = 'Forged' WHERE api_key_id = $1`, [id])
    const page = await verify()
    const german = as('admin-root', { 'Accept-Language': 'de' })
    const form = await german.open(`${mount}/audit/verification`)
    const inGerman = await german.press(form, 'Jetzt prüfen')
    const result: AuditVerification = await apiKeys.verifyAuditTrail()

    expect(result.isIntact).toBe(false)
    expect(textOf(page.root.querySelector('.verified .banner'))).toBe(
      'The audit trail is not intact',
    )
    expect(page.root.querySelectorAll('table.brief th[scope=row]').map(textOf)).toEqual(
      result.faults.map(({ kind, message }) => `${en.admin.verification.kinds[kind]}${message}`),
    )
    expect(page.root.querySelector('#head')).toBeNull()
    expect(inGerman.text).toContain('Eintrag geändert')
  })
})
