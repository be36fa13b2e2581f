import { expectFaults } from '../support/problem'
import { createRelease, createReleaseApp, type AnyRelease } from '../support/releases'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach()

const read = 'graphs:read'
const run = 'graphs/run'
const blocks = 'blocks.read'
const admin = 'admin'

/** The permissions of today. */
const permissions = {
  [read]: 'Read graphs',
  [run]: { description: 'Run graphs', implies: [read] },
  [blocks]: 'Read blocks',
  [admin]: { description: 'Everything', implies: '*' },
} as const

const names = Object.keys(permissions)

/** The names of before: one permission that was renamed twice, one that became part of another, one that was dropped. */
const formerPermissions = { EXECUTE: 'RUN_GRAPH', RUN_GRAPH: run, LIST: read, DELETE: null }

const today = { permissions, formerPermissions }
const before = {
  permissions: ['READ_GRAPH', 'EXECUTE', 'RUN_GRAPH', 'LIST', 'DELETE', read, blocks],
}

function releaseOf(release: Parameters<typeof createRelease>[1]): AnyRelease {
  return createRelease(world.database, release)
}

async function keyOf(apiKeys: AnyRelease, given: string[], userId = 'alice') {
  const { apiKey, plainTextKey } = await apiKeys.create({ userId, name: 'CI', permissions: given })
  return { id: apiKey.id, key: plainTextKey }
}

/** The permissions that a key uses in an app, by the guard of each. */
async function usableBy(apiKeys: AnyRelease, key: string) {
  const http = world.http.to(createReleaseApp(apiKeys, names))
  const answers = await Promise.all(names.map((_, index) => http.with(key).get(`/use/${index}`)))
  return names.filter((_, index) => answers[index]?.status === 200)
}

/** The names that the row of a key has. */
async function storedFor(id: string) {
  const [row] = await world.rows<{ permissions: string[] }>(
    'SELECT permissions FROM api_keys WHERE id = $1',
    [id],
  )
  return row?.permissions
}

describe('a key', () => {
  it.each<[given: string[], usable: string[]]>([
    [[read], [read]],
    [[run], [read, run]],
    [
      [blocks, run],
      [read, run, blocks],
    ],
    [[admin], names],
  ])('with %j passes the guards of %j', async (given, usable) => {
    const apiKeys = releaseOf(today)
    const { id, key } = await keyOf(apiKeys, given)
    const http = world.http.to(createReleaseApp(apiKeys, [read, ...names]))

    expect(await usableBy(apiKeys, key)).toEqual(usable)
    const shown = await http.as('alice').get(`/api-keys/${id}`)
    expect(shown.body.permissions).toEqual(given)
    const verdict = await apiKeys.verify(key)
    expect(verdict.valid && verdict.apiKey.permissions).toEqual(usable)
    const passed = await http.with(key).get(`/use/${names.indexOf(usable[0] ?? '') + 1}`)
    expect([passed.status, passed.body]).toEqual([200, usable])
  })

  it('is refused with the names that the guard demands, not with those that imply them', async () => {
    const apiKeys = releaseOf(today)
    const { key } = await keyOf(apiKeys, [blocks])

    const refused = await world.http
      .to(createReleaseApp(apiKeys, [read]))
      .with(key)
      .get('/use/0')

    expect(refused.status).toBe(403)
    expect(refused.headers['www-authenticate']).toBe(
      `Bearer realm="api", error="insufficient_scope", scope="${read}"`,
    )
    expect(refused.body).toMatchObject({ code: 'missing_permission', missing: [read] })
  })

  it.each<[given: string[], shown: string[], usable: string[]]>([
    [['EXECUTE'], [run], [read, run]],
    [['RUN_GRAPH', 'EXECUTE'], [run], [read, run]],
    [['LIST', read, 'DELETE'], [read], [read]],
    [['DELETE', blocks], [blocks], [blocks]],
    [['DELETE'], [], []],
    [['READ_GRAPH'], [], []],
  ])('from before with %j has %j', async (given, shown, usable) => {
    const { id, key } = await keyOf(releaseOf(before), given)
    const apiKeys = releaseOf(today)

    expect(await usableBy(apiKeys, key)).toEqual(usable)
    expect((await apiKeys.get(id)).permissions).toEqual(shown)
    const verdict = await apiKeys.verify(key)
    expect(verdict.valid && verdict.apiKey.permissions).toEqual(usable)
    expect(await storedFor(id)).toEqual(given)
  })

  it('from before goes on in both releases while one replaces the other', async () => {
    const [old, new_] = [releaseOf(before), releaseOf(today)]
    const { id, key } = await keyOf(old, ['EXECUTE'])

    expect(await usableBy(new_, key)).toEqual([read, run])
    expect((await old.get(id)).permissions).toEqual(['EXECUTE'])
    const verdict = await old.verify(key)
    expect(verdict.valid && verdict.apiKey.permissions).toEqual(['EXECUTE'])
  })

  it('from before keeps its names through every change but that of its permissions', async () => {
    const { id } = await keyOf(releaseOf(before), ['EXECUTE', 'DELETE', 'READ_GRAPH'])
    const http = world.http.to(createReleaseApp(releaseOf(today), []))

    const renamed = await http.as('alice').patch(`/api-keys/${id}`, { name: 'Another' })
    const rotated = await http.as('alice').post(`/api-keys/${id}/rotate`, {})
    await http.as('alice').post(`/api-keys/${id}/suspend`, {}).expect(200)

    expect(renamed.body.permissions).toEqual([run])
    expect(rotated.body.apiKey.permissions).toEqual([run])
    expect(await usableBy(releaseOf(today), rotated.body.plainTextKey)).toEqual([])
    expect(await storedFor(id)).toEqual(['EXECUTE', 'DELETE', 'READ_GRAPH'])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('with more permissions than a list is searched for passes the guards of all of them', async () => {
    const many = Array.from({ length: 40 }, (_, index) => `PERMISSION_${index}`)
    const apiKeys = releaseOf({ permissions: [...many, 'OTHER'] })
    const { key } = await keyOf(apiKeys, many)
    const http = world.http.to(createReleaseApp(apiKeys, [...many, 'OTHER'])).with(key)

    const statuses = await Promise.all(
      [0, 20, 39, 40].map(async (index) => (await http.get(`/use/${index}`)).status),
    )

    expect(statuses).toEqual([200, 200, 200, 403])
  })
})

describe('an owner', () => {
  it('may give what they hold, with all that it implies, and no more', async () => {
    const http = world.http.to(
      createReleaseApp(releaseOf({ ...today, grantable: () => [run] }), []),
    )
    const post = (given: string[]) =>
      http.as('alice').post('/api-keys', { name: 'CI', permissions: given })

    expect((await post([read])).status).toBe(201)
    expect((await post([run, read])).status).toBe(201)
    expectFaults(await post([read, blocks, admin]), {
      '#/permissions/1': 'may not be granted by this user',
      '#/permissions/2': 'may not be granted by this user',
    })
  })

  it('bounds a key with more to what they hold, with all that it implies', async () => {
    const { key } = await keyOf(releaseOf(today), [admin])
    const roles = [run]
    const apiKeys = releaseOf({ ...today, grantable: () => [...roles], grantableMaxAgeMs: 0 })

    expect(await usableBy(apiKeys, key)).toEqual([read, run])
    roles[0] = blocks
    expect(await usableBy(apiKeys, key)).toEqual([blocks])
    roles[0] = admin
    expect(await usableBy(apiKeys, key)).toEqual(names)
  })

  it('holds a permission by a name of before, and nothing by names that the app does not have', async () => {
    const roles = ['EXECUTE', 'DELETE', 'READ_GRAPH', '*']
    const apiKeys = releaseOf({ ...today, grantable: () => roles })
    const http = world.http.to(createReleaseApp(apiKeys, []))
    const { key } = await keyOf(releaseOf(today), [admin])

    expect(await usableBy(apiKeys, key)).toEqual([read, run])
    const { status } = await http.as('alice').post('/api-keys', { name: 'CI', permissions: [run] })
    expect(status).toBe(201)
  })

  it('is refused one of several permissions at its place, whatever the names of the others', async () => {
    const apiKeys = releaseOf({ ...today, grantable: () => [read] })
    const http = world.http.to(createReleaseApp(apiKeys, []))

    const given = ['DELETE', 'LIST', 'EXECUTE', blocks]
    const answer = await http.as('alice').post('/api-keys', { name: 'CI', permissions: given })

    expectFaults(answer, {
      '#/permissions/2': 'may not be granted by this user',
      '#/permissions/3': 'may not be granted by this user',
    })
  })
})

describe('GET /permissions', () => {
  const described = [
    { name: read, description: 'Read graphs', implies: [] },
    { name: run, description: 'Run graphs', implies: [read] },
    { name: blocks, description: 'Read blocks', implies: [] },
    { name: admin, description: 'Everything', implies: [read, run, blocks] },
  ]

  it('lists what a user may give, with descriptions and all that each implies', async () => {
    const apiKeys = releaseOf({
      ...today,
      grantable: ({ id }) => (id === 'alice' ? ['EXECUTE'] : ['admin']),
    })
    const http = world.http.to(createReleaseApp(apiKeys, []))

    const ofAlice = await http.as('alice').get('/api-keys/permissions')
    const ofBob = await http.as('bob').get('/api-keys/permissions')

    expect(ofAlice.body).toEqual({ permissions: described.slice(0, 2) })
    expect(ofBob.body).toEqual({ permissions: described })
  })

  it('lists all of them to administrators, or those that one user may give', async () => {
    const apiKeys = releaseOf({ ...today, grantable: () => [run] })
    const http = world.http.to(createReleaseApp(apiKeys, []))

    const all = await http.as('admin').get('/admin/api-keys/permissions')
    const ofAlice = await http.as('admin').get('/admin/api-keys/permissions?userId=alice')

    expect(all.body).toEqual({ permissions: described })
    expect(ofAlice.body).toEqual({ permissions: described.slice(0, 2) })
  })
})

/** Replaces the permissions of a key from before. */
async function put(given: unknown, stored: string[] = ['EXECUTE', 'DELETE']) {
  const { id } = await keyOf(releaseOf(before), stored)
  const apiKeys = releaseOf(today)
  const http = world.http.to(createReleaseApp(apiKeys, []))
  const answer = await http
    .as('alice')
    .put(`/api-keys/${id}/permissions`, { permissions: given as string[] })
  return { answer, id, apiKeys }
}

describe('PUT /:id/permissions', () => {
  it.each<[given: string[], written: string[]]>([
    [[run], [run]],
    [['EXECUTE'], [run]],
    [['RUN_GRAPH', run, 'EXECUTE'], [run]],
    [
      ['DELETE', 'LIST', blocks],
      [read, blocks],
    ],
  ])('writes names of today: %j', async (given, written) => {
    const { answer, id } = await put(given)

    expect([answer.status, answer.body.permissions]).toEqual([200, written])
    expect(await storedFor(id)).toEqual(written)
  })

  it.each<[given: unknown, faults: Record<string, string>]>([
    [[], { '#/permissions': 'must name at least one permission' }],
    [['DELETE'], { '#/permissions': 'must name at least one permission' }],
    [['EXECUTE', 'EXECUTE'], { '#/permissions/1': 'must not be repeated' }],
    [[run, 'READ_GRAPH'], { '#/permissions/1': `must be one of ${names.join(', ')}` }],
  ])('refuses %j', async (given, faults) => {
    const { answer, id } = await put(given)

    expectFaults(answer, faults)
    expect(await storedFor(id)).toEqual(['EXECUTE', 'DELETE'])
  })

  it('takes what GET shows, and leaves out what counts for nothing', async () => {
    const { id } = await keyOf(releaseOf(before), ['LIST', 'READ_GRAPH', 'DELETE'])
    const http = world.http.to(createReleaseApp(releaseOf(today), [])).as('alice')

    const shown = await http.get(`/api-keys/${id}`)
    const { permissions } = shown.body
    const saved = await http.put(`/api-keys/${id}/permissions`, { permissions })

    expect(permissions).toEqual([read])
    expect([saved.status, saved.body.permissions]).toEqual([200, [read]])
    expect(await storedFor(id)).toEqual([read])
  })

  it('leaves an entry with the names that the key had and has, once', async () => {
    const { answer, id, apiKeys } = await put(['EXECUTE'])
    const http = world.http.to(createReleaseApp(apiKeys, [])).as('alice')
    await http.put(`/api-keys/${id}/permissions`, { permissions: [run] })

    const { body } = await http.get(`/api-keys/${id}/events`)

    expect(answer.status).toBe(200)
    expect(body.events).toMatchObject([
      {
        action: 'permissions_changed',
        before: { permissions: ['EXECUTE', 'DELETE'] },
        after: { permissions: [run] },
      },
      { action: 'created' },
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})

describe('health({ livingKeys: true })', () => {
  it('counts the living keys with names that the app does not know, and those names alone', async () => {
    const old = releaseOf(before)
    for (const given of [['READ_GRAPH', 'EXECUTE'], ['READ_GRAPH'], [blocks], ['DELETE']]) {
      await keyOf(old, given)
    }
    const revoked = await keyOf(old, ['READ_GRAPH'])
    await old.revoke(revoked.id)
    const odd = 'ODD,{NAME}'
    await keyOf(releaseOf({ permissions: [odd] }), [odd])
    const apiKeys = releaseOf(today)

    expect(await apiKeys.health({ livingKeys: true })).toMatchObject({
      unknownPermissions: [
        { name: 'READ_GRAPH', keys: 2 },
        { name: odd, keys: 1 },
      ],
    })
    expect(await old.health({ livingKeys: true })).toMatchObject({
      unknownPermissions: [{ name: odd, keys: 1 }],
    })
    expect(await apiKeys.health()).not.toHaveProperty('unknownPermissions')
  })
})

describe('?permission', () => {
  it('finds all keys that have it: by its name, by a name of before, and by what implies it', async () => {
    const old = releaseOf(before)
    const apiKeys = releaseOf(today)
    const ids: Record<string, string> = {}
    for (const name of ['EXECUTE', 'RUN_GRAPH', 'LIST', 'DELETE', 'READ_GRAPH']) {
      ids[name] = (await keyOf(old, [name])).id
    }
    for (const name of names) ids[name] = (await keyOf(apiKeys, [name])).id
    const http = world.http.to(createReleaseApp(apiKeys, [])).as('admin')

    async function found(permission: string) {
      const { status, body } = await http.get('/admin/api-keys', { permission })
      expect(status).toBe(200)
      const keys: { id: string }[] = body.apiKeys
      return Object.keys(ids)
        .filter((name) => keys.some(({ id }) => id === ids[name]))
        .toSorted()
    }

    expect(await found(read)).toEqual(['EXECUTE', 'LIST', 'RUN_GRAPH', admin, read, run].toSorted())
    expect(await found('LIST')).toEqual(await found(read))
    expect(await found(run)).toEqual(['EXECUTE', 'RUN_GRAPH', admin, run].toSorted())
    expect(await found('EXECUTE')).toEqual(await found(run))
    expect(await found(admin)).toEqual([admin])
    expect(await found('DELETE')).toEqual(['DELETE'])
    expect(await found('READ_GRAPH')).toEqual(['READ_GRAPH'])
    expect(await found('NO_SUCH')).toEqual([])
  })

  it('revokes the keys of a name that the app no longer has', async () => {
    const { id } = await keyOf(releaseOf(before), ['READ_GRAPH'])
    await keyOf(releaseOf(before), [read])
    const http = world.http.to(createReleaseApp(releaseOf(today), [])).as('admin')

    const answer = await http.post('/admin/api-keys/revoke-many', { permission: 'READ_GRAPH' })

    expect(answer.body).toEqual({ revoked: 1, notFound: [] })
    expect(await world.apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
  })
})
