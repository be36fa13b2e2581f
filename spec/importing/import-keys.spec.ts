import { randomUUID } from 'node:crypto'

import { sources, type ImportRow } from '../../lib'
import type { Options } from '../support/app'
import { legacyKey, legacySource as source } from '../support/imported-keys'
import { createInstance } from '../support/tables'
import { useWorldForEach } from '../support/world'

type Legacy = ReturnType<typeof legacyKey>

/** Makes rows one by one, of seven users. */
async function* rowsOfMany(count: number) {
  for (let index = 0; index < count; index++) yield legacyKey({ userId: `user-${index % 7}` }).row
}

describe('importKeys', () => {
  const world = useWorldForEach({ options: { imports: [source], maxKeysPerOwner: 2 } })
  const importKeys = (rows: Iterable<unknown>, options?: object) =>
    world.apiKeys.importKeys('legacy', rows, options)

  async function recordOf(userId = 'alice') {
    const { apiKeys } = await world.apiKeys.list({ userId })
    return apiKeys[0]
  }

  it('keeps what the other system knows of a key', async () => {
    const { row } = legacyKey({
      name: 'Deployment',
      description: 'of the graphs',
      createdAt: '2024-03-01T12:00:00.123Z',
      lastUsedAt: new Date('2025-01-02T03:04:05Z'),
      expiresAt: '2099-01-01T00:00:00Z',
      allowedIps: ['203.0.113.0/24'],
      metadata: { plan: 'gold' },
      limits: { burst: { limit: 3, windowSeconds: 60 } },
      status: 'SUSPENDED',
      shown: { prefix: 'lk_123456', postfix: '…cdef' },
    })

    const report = await importKeys([row], { actor: { type: 'admin', id: 'root' }, reason: 'move' })

    expect(report).toEqual({ imported: 1, known: 0, changed: 0, refused: [], unmapped: [] })
    const record = await recordOf()
    expect(record).toMatchObject({
      name: 'Deployment',
      description: 'of the graphs',
      createdAt: new Date('2024-03-01T12:00:00.123Z'),
      lastUsedAt: new Date('2025-01-02T03:04:05Z'),
      expiresAt: new Date('2099-01-01T00:00:00Z'),
      allowedIps: ['203.0.113.0/24'],
      metadata: { plan: 'gold' },
      limits: { burst: { limit: 3, windowSeconds: 60 } },
      status: 'SUSPENDED',
      source: 'legacy',
      prefix: 'lk_123',
      postfix: 'cdef',
      createdBy: 'root',
    })
    const { events } = await world.apiKeys.events({ apiKeyId: String(record?.id) })
    expect(events).toMatchObject([
      {
        action: 'imported',
        actorType: 'admin',
        actorId: 'root',
        reason: 'move',
        after: { source: 'legacy', prefix: 'lk_123', createdAt: '2024-03-01T12:00:00.123Z' },
      },
    ])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('reports each row that it refuses, with all its faults, and imports the other rows', async () => {
    const rows = [
      legacyKey().row,
      { ...legacyKey().row, stored: 'abc', permissions: [] },
      { ...legacyKey().row, permissions: ['WRITE_GRAPH'], expiresAt: '2030-02-31T00:00:00Z' },
      { ...legacyKey().row, userId: undefined },
      null,
      'text',
      [],
      { ...legacyKey().row, createdAt: '2999-01-01T00:00:00Z' },
      { ...legacyKey().row, metadata: { text: 'x'.repeat(5_000) } },
      legacyKey().row,
    ]

    const { imported, refused } = await importKeys(rows)

    expect(imported).toBe(2)
    expect(refused.map(({ row, errors }) => [row, errors.map(({ pointer }) => pointer)])).toEqual([
      [1, ['#/stored', '#/permissions']],
      [2, ['#/expiresAt', '#/permissions/0']],
      [3, ['#/owner']],
      [4, ['#']],
      [5, ['#']],
      [6, ['#']],
      [7, ['#/createdAt']],
      [8, ['#/metadata']],
    ])
  })

  it('counts the idleness of a key from its import, however old the key is', async () => {
    const { key, row } = legacyKey({ createdAt: '2020-01-01T00:00:00Z' })
    const { apiKeys } = world.createProcess({ imports: [source], maxIdleDays: 30 } as Options)

    await apiKeys.importKeys('legacy', [row])

    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    const other = world.createProcess({ imports: [source], maxIdleDays: 30 } as Options)
    expect(await other.apiKeys.verify(key)).toMatchObject({ valid: true })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('takes permissions, owners and limits from the call', async () => {
    const { row } = legacyKey({ permissions: ['*'], userId: undefined })

    const { imported } = await importKeys([{ ...row, plan: 'gold' }], {
      permissions: (read: ImportRow) => (read.permissions?.includes('*') ? ['READ_BLOCK'] : []),
      owner: { type: 'user', id: 'bob' },
      limits: (_: ImportRow, given: Record<string, unknown>) =>
        given.plan === 'gold' ? { burst: { limit: 9, windowSeconds: 1 } } : null,
    })

    expect(imported).toBe(1)
    expect(await recordOf('bob')).toMatchObject({
      permissions: ['READ_BLOCK'],
      limits: { burst: { limit: 9, windowSeconds: 1 } },
    })
  })

  it('can be repeated, and knows each key by any of its later secrets', async () => {
    const [first, second] = [legacyKey(), legacyKey()]
    await importKeys([first.row])
    const id = String((await recordOf())?.id)
    await world.apiKeys.rotate(id, { gracePeriodSeconds: 0 })

    const report = await importKeys([first.row, second.row, second.row])

    expect(report).toMatchObject({ imported: 1, known: 2, changed: 0 })
    expect(await importKeys([first.row, second.row])).toMatchObject({ imported: 0, known: 2 })
  })

  it('takes over what became worse, and nothing that became better', async () => {
    const kinds = [legacyKey(), legacyKey(), legacyKey(), legacyKey()]
    const rows = kinds.map(({ row }, index) => ({ ...row, userId: `user-${index}` }))
    await importKeys(rows)
    await world.apiKeys.revoke(String((await recordOf('user-3'))?.id))

    const report = await importKeys([
      { ...rows[0], status: 'SUSPENDED', expiresAt: '2099-01-01T00:00:00Z' },
      { ...rows[1], status: 'REVOKED' },
      { ...rows[2], expiresAt: '2098-01-01T00:00:00Z' },
      rows[3],
    ])
    const again = await importKeys(rows)

    expect(report).toEqual({ imported: 0, known: 1, changed: 3, refused: [], unmapped: [] })
    expect(again).toMatchObject({ known: 4, changed: 0 })
    const states = await Promise.all([0, 1, 2, 3].map(async (n) => recordOf(`user-${n}`)))
    expect(states).toMatchObject([
      { status: 'SUSPENDED', expiresAt: new Date('2099-01-01T00:00:00Z') },
      { status: 'REVOKED' },
      { status: 'ACTIVE', expiresAt: new Date('2098-01-01T00:00:00Z') },
      { status: 'REVOKED' },
    ])
    expect(await world.apiKeys.verify(kinds[0]?.key ?? '')).toMatchObject({ code: 'suspended' })
    expect(await world.apiKeys.verify(kinds[1]?.key ?? '')).toMatchObject({ code: 'revoked' })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('brings no key back that was revoked, and pruned or erased since', async () => {
    const [pruned, erased, rotated, deleted] = ['paul', 'erna', 'rosa', 'dora'].map((userId) =>
      legacyKey({ userId }),
    ) as [Legacy, Legacy, Legacy, Legacy]
    const all = [pruned, erased, rotated, deleted]
    const rows = all.map(({ row }) => row)
    await importKeys(rows)
    for (const { row } of [pruned, rotated]) {
      const { id = '' } = (await recordOf(String(row.userId))) ?? {}
      if (row === rotated.row) await world.apiKeys.rotate(id)
      await world.apiKeys.revoke(id)
    }
    await world.rows(
      `UPDATE api_keys SET revoked_at = now() - interval '2 days' WHERE status = 'REVOKED'`,
    )
    expect(await world.apiKeys.pruneRevoked({ olderThanDays: 1 })).toEqual({ keys: 2 })
    await world.apiKeys.eraseOwner({ type: 'user', id: 'erna' }, { reason: 'asked', revoke: true })
    // Not revoked, for example because it was imported for a wrong owner.
    await world.rows(`DELETE FROM api_keys WHERE user_id = 'dora'`)

    const again = await importKeys(rows)

    expect(again).toMatchObject({ imported: 1, known: 3, refused: [] })
    const verdicts = await Promise.all(all.map(({ key }) => world.apiKeys.verify(key)))
    expect(verdicts.map(({ valid }) => valid)).toEqual([false, false, false, true])
    expect((await world.apiKeys.verifyAuditTrail()).faults).toEqual([])
  })

  it.each([
    [{}, { status: 'REVOKED' }],
    [{ status: 'REVOKED' }, {}],
    [{ expiresAt: '2099-01-01T00:00:00Z' }, { status: 'SUSPENDED' }],
    [{}, { expiresAt: '2020-01-01T00:00:00Z' }],
  ] as Partial<ImportRow>[][])('lets a key do the least of its rows: %j', async (...wishes) => {
    const { key, row } = legacyKey()
    const rowsOf = (one: ImportRow) => wishes.map((wish) => Object.assign({}, one, wish))

    expect(await importKeys(rowsOf(row))).toMatchObject({ imported: 1, known: 1 })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false })

    const later = legacyKey()
    await importKeys([later.row])
    await importKeys(rowsOf(later.row))
    expect(await world.apiKeys.verify(later.key)).toMatchObject({ valid: false })
  })

  it('leaves a key alone that was rotated, whatever the other system says of it', async () => {
    const { row } = legacyKey()
    await importKeys([row])
    await world.apiKeys.rotate(String((await recordOf())?.id))

    await importKeys([{ ...row, status: 'REVOKED' }])

    expect(await recordOf()).toMatchObject({ status: 'ACTIVE' })
  })

  it('imports keys that are revoked or expired, as history', async () => {
    const [over, revoked] = [
      legacyKey({ expiresAt: '2020-01-01T00:00:00Z' }),
      legacyKey({ revokedAt: '2021-01-01T00:00:00Z' }),
    ]

    await importKeys([over.row, revoked.row])

    expect(await world.apiKeys.verify(over.key)).toMatchObject({ code: 'expired' })
    expect(await world.apiKeys.verify(revoked.key)).toMatchObject({ code: 'revoked' })
    const { apiKeys } = await world.apiKeys.list({ status: 'REVOKED' })
    expect(apiKeys).toMatchObject([{ revokedAt: new Date('2021-01-01T00:00:00Z') }])
  })

  it('does nothing in a dry run but say what it would do', async () => {
    const { key, row } = legacyKey()
    const events: unknown[] = []
    world.apiKeys.on('imported', (event) => events.push(event))

    const report = await importKeys([row, null], { dryRun: true })

    expect(report).toMatchObject({ imported: 1, refused: [{ row: 1 }] })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false })
    expect(await world.rows('SELECT FROM api_keys')).toEqual([])
    expect(await world.rows('SELECT FROM api_key_events')).toEqual([])
    expect(events).toEqual([])
  })

  it('exempts keys from the maximum of their owner and from the longest lifetime, unless it is told', async () => {
    const strict = world.createProcess({
      imports: [source],
      maxKeysPerOwner: 2,
      maxLifetimeSeconds: 86_400,
    })
    const rows = Array.from({ length: 4 }, () => legacyKey().row)
    const soon = new Date(Date.now() + 3_600_000)

    const first = await strict.apiKeys.importKeys('legacy', rows.slice(0, 1))
    const refused = await strict.apiKeys.importKeys('legacy', rows, {
      enforce: ['maxLifetimeSeconds'],
    })
    const bounded = await strict.apiKeys.importKeys(
      'legacy',
      rows.map((row) => Object.assign({}, row, { expiresAt: soon })),
      { enforce: ['maxKeysPerOwner', 'maxLifetimeSeconds'] },
    )

    expect(first.imported).toBe(1)
    expect(refused.refused).toHaveLength(4)
    expect(bounded).toMatchObject({
      imported: 1,
      changed: 1,
      refused: [
        { row: 2, errors: [{ pointer: '#', message: 'is one more than its owner may have' }] },
        { row: 3 },
      ],
    })
  })

  it('imports any number of rows, from an iterator, and reports its progress', async () => {
    const progress: number[] = []
    const report = await world.apiKeys.importKeys('legacy', rowsOfMany(2_100), {
      onProgress: ({ imported }) => progress.push(imported),
    })

    expect(report.imported).toBe(2_100)
    expect(progress).toEqual([1_000, 2_000, 2_100])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 2_100 })
  })

  it('lets the row count that does the least, also if the rows of a key are a thousand rows apart', async () => {
    const { key, row } = legacyKey()
    const others = Array.from({ length: 1_000 }, () => legacyKey({ userId: 'bob' }).row)

    const report = await importKeys([row, ...others, { ...row, status: 'SUSPENDED' }])

    expect(report).toMatchObject({ imported: 1_001, known: 0, changed: 1 })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false, code: 'suspended' })
  })

  it('ends with the first failure, and imports nothing after it', async () => {
    const importing = world.apiKeys.importKeys('legacy', rowsOfMany(3_100), {
      onProgress() {
        throw new Error('the disk is full')
      },
    })

    await expect(importing).rejects.toThrow('the disk is full')
    const [{ keys } = {}] = await world.rows('SELECT count(*)::int AS keys FROM api_keys')
    expect(keys).toBe(1_000)
  })

  it('imports no more than the maximum of an owner, however many processes import at once', async () => {
    const others = [1, 2, 3].map(() =>
      world.createProcess({ imports: [source], maxKeysPerOwner: 2 }),
    )
    const owners = ['alice', 'bob', 'carol']

    await Promise.all(
      [world, ...others].map(async ({ apiKeys }, index) => {
        const names = index % 2 === 0 ? owners : owners.toReversed()
        const rows = names.map((userId) => legacyKey({ userId }).row)
        await apiKeys.importKeys('legacy', rows, { enforce: ['maxKeysPerOwner'] })
      }),
    )

    const [{ keys } = {}] = await world.rows('SELECT count(*)::int AS keys FROM api_keys')
    expect(keys).toBe(6)
  })

  it('knows a key again whose owner may have no more, though it was drafted before that was known', async () => {
    const own = [legacyKey(), legacyKey()] as const
    const others = Array.from({ length: 1_000 }, () => legacyKey({ status: 'REVOKED' }).row)
    const rows = own.map(({ row }) => row)
    const again = [rows[0], { ...rows[1], status: 'SUSPENDED' }, legacyKey().row]

    const report = await importKeys([...rows, ...others.slice(2), ...again], {
      enforce: ['maxKeysPerOwner'],
    })

    expect(report).toMatchObject({ imported: 1_000, known: 1, changed: 1 })
    expect(report.refused.map(({ row }) => row)).toEqual([1_002])
    const [, { key }] = own
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: false, code: 'suspended' })
  })

  it('imports each key once, however many processes import it at once', async () => {
    const kinds = Array.from({ length: 300 }, () => legacyKey())
    const rows = kinds.map(({ row }) => row)
    const others = [1, 2, 3].map(() => world.createProcess({ imports: [source] }).apiKeys)

    const reports = await Promise.all(
      [world.apiKeys, ...others].map((apiKeys, index) =>
        apiKeys.importKeys('legacy', index % 2 === 0 ? rows : rows.toReversed()),
      ),
    )

    expect(reports.reduce((sum, { imported }) => sum + imported, 0)).toBe(300)
    expect(reports.every(({ imported, known }) => imported + known === 300)).toBe(true)
    const [{ keys, entries } = {}] = await world.rows<{ keys: number; entries: number }>(
      'SELECT (SELECT count(*)::int FROM api_keys) AS keys, (SELECT count(*)::int FROM api_key_events) AS entries',
    )
    expect({ keys, entries }).toEqual({ keys: 300, entries: 300 })
  })

  it('goes on where it was stopped', async () => {
    const rows = Array.from({ length: 1_500 }, () => legacyKey().row)
    function* stopped() {
      yield* rows.slice(0, 1_200)
      throw new Error('the file ends here')
    }

    await expect(importKeys(stopped())).rejects.toThrow('the file ends here')
    const report = await importKeys(rows)

    expect(report).toMatchObject({ imported: 500, known: 1_000 })
  })

  it('refuses rows of owners who are not in the table of the app', async () => {
    await world.sequelize.query('CREATE TABLE users (id text PRIMARY KEY)')
    await world.sequelize.query(`INSERT INTO users VALUES ('alice'), ('bob')`)
    const apiKeys = createInstance(world, { users: { table: 'users' }, imports: [source] } as never)
    await apiKeys.migrate()
    const owners = ['alice', 'nobody', 'bob', 'nobody else']
    const rows = owners.map((userId) => legacyKey({ userId }).row)

    const report = await apiKeys.importKeys('legacy', rows)

    expect(report).toMatchObject({
      imported: 2,
      refused: [
        { row: 1, errors: [{ pointer: '#/owner', message: 'is not a user' }] },
        { row: 3, errors: [{ pointer: '#/owner', message: 'is not a user' }] },
      ],
    })
  })

  it('counts the keys of an owner in every spelling of the id', async () => {
    const userId = randomUUID()
    await world.sequelize.query('CREATE TABLE users (id uuid PRIMARY KEY)')
    await world.sequelize.query(`INSERT INTO users VALUES ('${userId}')`)
    const options = { users: { table: 'users' }, imports: [source], maxKeysPerOwner: 2 }
    const apiKeys = createInstance(world, options)
    await apiKeys.migrate()
    const spellings = [userId, userId.toUpperCase(), userId, userId.toUpperCase()]
    const rows = spellings.map((userId) => legacyKey({ userId }).row)

    const report = await apiKeys.importKeys('legacy', rows, { enforce: ['maxKeysPerOwner'] })

    expect(report).toMatchObject({ imported: 2, refused: [{ row: 2 }, { row: 3 }] })
  })

  it.each<[string, () => Promise<unknown>]>([
    ['a source that is not in the options', () => world.apiKeys.importKeys('knox', [])],
    ['rows that are no list', () => importKeys(42 as never)],
    ['a transaction of the caller', () => importKeys([], { transaction: {} })],
    ['nonsense to enforce', () => importKeys([], { enforce: ['all'] })],
    ['a dry run that is not true or false', () => importKeys([], { dryRun: 'yes' })],
    ['limits that are no function', () => importKeys([], { limits: {} })],
  ])('refuses %s', async (_, call) => {
    await expect(call()).rejects.toThrow(TypeError)
  })

  it('reads the rows of the other system, and counts what it does not import', async () => {
    const betterAuth = world.createProcess({ imports: [sources.betterAuth()] }).apiKeys
    const row = {
      id: 'one',
      name: null,
      start: 'jofIwU',
      key: 'RNq5XnsGaRCzii32z37oVVkBXQ2F9Eag8XJ4f6veZUI',
      referenceId: 'alice',
      enabled: true,
      rateLimitEnabled: true,
      rateLimitMax: 10,
      rateLimitTimeWindow: 86_400_000,
      remaining: 5,
      permissions: '{"READ":["GRAPH"]}',
      metadata: 'null',
      createdAt: '2025-01-01 10:00:00.5+02',
      expiresAt: null,
    }

    const report = await betterAuth.importKeys('better-auth', [row], {
      permissions: (read) => read.permissions?.map((name) => name.replace(':', '_')),
    })

    expect(report).toEqual({
      imported: 1,
      known: 0,
      changed: 0,
      refused: [],
      unmapped: [
        {
          field: 'rateLimitMax',
          message: 'is 10 per 86400000 ms, which better-auth gives every key by default',
          rows: 1,
          firstRow: 0,
        },
        {
          field: 'remaining',
          message: 'counts credits, which the library does not have',
          rows: 1,
          firstRow: 0,
        },
      ],
    })
    const { apiKeys } = await betterAuth.list({ userId: 'alice' })
    expect(apiKeys).toMatchObject([
      {
        name: 'Key of better-auth',
        prefix: 'jofIwU',
        permissions: ['READ_GRAPH'],
        createdAt: new Date('2025-01-01T08:00:00.500Z'),
        limits: null,
      },
    ])
  })
})
