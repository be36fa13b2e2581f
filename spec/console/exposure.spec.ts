import express from 'express'

import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { createVisitor, factsOf, formWith, textOf, type OpenPage } from '../support/visitor'

const token = 'a token of at least 16 characters'
const url = 'https://gitlab.example.com/acme/app/-/blob/123456/foo.txt?a="><b>'

const { apiKeys, as, http, createKey, rows, createProcess } = useConsole()
const asAdmin = createProcess({}, (app, keys) => app.use(mount, keys.console({ admin: true })))
const admin = createVisitor(asAdmin.http, { 'X-User': 'admin' })

/** Reports a key that was found at a place, as GitLab does. */
async function report(key: string, location: unknown, onExposed: 'revoke' | 'suspend' = 'revoke') {
  const leaks = express().use('/', apiKeys.leakRouter({ gitlab: { token }, onExposed }))
  const tokens = [{ type: 'gitleaks_rule_id_agpt_api_key', token: key, location }]
  await http
    .to(leaks)
    .set({ Authorization: token })
    .post('/revoke_tokens', tokens as never)
    .expect(204)
}

function statesOf({ root }: OpenPage): string[] {
  return root.querySelectorAll('main .state').map((state) => textOf(state))
}

describe('a key that became public', () => {
  it('says so on its page: by whom it was found, when and where', async () => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user })
    await report(plainTextKey, url)

    for (const page of [
      await as(user).open(`${mount}/${id}`),
      await admin.open(`${mount}/${id}`),
    ]) {
      expect(statesOf(page)).toEqual(['Revoked', 'Exposed'])
      expect(textOf(page.root.querySelector('.banner.note'))).toBe(
        'This key became public. It never works again. Create a new one, and put it in its place.',
      )
      const fact = factsOf(page)['Became public']
      expect(fact).toMatch(/^found by GitLab \d+ \w+ 20\d\d, \d\d:\d\d UTC/)
      expect(fact).toContain(url)
      const link = page.root.querySelector('.place')?.parentNode
      expect([link?.getAttribute('href'), link?.getAttribute('rel')]).toEqual([
        url,
        'noreferrer nofollow',
      ])
    }
  })

  it('says so in the lists', async () => {
    const user = newUser()
    const { plainTextKey } = await createKey({ userId: user })
    await createKey({ userId: user })
    await report(plainTextKey, url, 'suspend')

    expect(statesOf(await as(user).open(mount)).toSorted()).toEqual([
      'Active',
      'Exposed',
      'Suspended',
    ])
    const list = await admin.open(`${mount}?ownerType=user&ownerId=${user}`)
    expect(statesOf(list)).toContain('Exposed')
  })

  it('has no button for a reactivation, which is refused', async () => {
    const user = newUser()
    const [exposed, suspended] = [
      await createKey({ userId: user }),
      await createKey({ userId: user, status: 'SUSPENDED' }),
    ]
    await report(exposed.plainTextKey, null, 'suspend')

    const page = await as(user).open(`${mount}/${exposed.id}`)
    const other = await as(user).open(`${mount}/${suspended.id}`)

    expect(statesOf(page)).toEqual(['Suspended', 'Exposed'])
    expect(page.root.toString()).not.toContain('/reactivate')
    expect(formWith(other, 'Reactivate')).toBeDefined()
    expect((await admin.open(`${mount}/${exposed.id}`)).root.toString()).not.toContain(
      '/reactivate',
    )
  })

  it('is told in German', async () => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user })
    await report(plainTextKey, url)

    const page = await as(user, { 'Accept-Language': 'de' }).open(`${mount}/${id}`)

    expect(statesOf(page)).toEqual(['Widerrufen', 'Öffentlich'])
    expect(factsOf(page)['Öffentlich geworden']).toMatch(/^von GitLab gefunden /)
  })

  it.each([
    ['github:commit', 'found by GitHub (commit)'],
    ['report', 'reported by a finder'],
    ['plain_http', 'sent over plain HTTP'],
    ['scanner', 'scanner'],
    ['scanner:commit', 'scanner:commit'],
  ])('names the source %s', async (source, words) => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user })
    await report(plainTextKey, null)
    const exposed = JSON.stringify({ at: Date.now(), source, url: null })
    await rows(`UPDATE api_keys SET exposed = $1 WHERE id = $2`, [exposed, id])

    const fact = factsOf(await as(user).open(`${mount}/${id}`))['Became public']

    expect(fact?.startsWith(`${words} `)).toBe(true)
  })

  it.each([
    'javascript:alert(1)',
    'data:text/html,x',
    '//evil.example',
    'foo.txt',
    'http://[',
    '<b>',
  ])('links to no place but the web: %s', async (place) => {
    const user = newUser()
    const { id, plainTextKey } = await createKey({ userId: user })
    await report(plainTextKey, place)

    const page = await as(user).open(`${mount}/${id}`)

    expect(textOf(page.root.querySelector('.place'))).toBe(place)
    expect(page.root.querySelectorAll('dd a')).toEqual([])
  })

  it('has no such words if it did not', async () => {
    const user = newUser()
    const { id } = await createKey({ userId: user, status: 'REVOKED' })

    const page = await as(user).open(`${mount}/${id}`)

    expect(statesOf(page)).toEqual(['Revoked'])
    expect(factsOf(page)).not.toHaveProperty('Became public')
  })
})
