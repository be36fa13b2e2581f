import { randomUUID } from 'node:crypto'

import * as fc from 'fast-check'

import { createApiKeys } from '../../lib'
import { createTestApiKeys } from '../support/app'
import { createKey, faultsOf } from '../support/keys'
import { ids, listAll } from '../support/lists'
import { useWorld } from '../support/world'

const statuses = ['ACTIVE', 'SUSPENDED', 'REVOKED'] as const

const { apiKeys, sequelize, database } = useWorld()

const names = (keys: readonly { name: string }[]) => keys.map(({ name }) => name)
const inDays = (days: number) => new Date(Date.now() + days * 86_400_000)
/** Makes a cursor in the form of lists, with any id and time. */
const cursorOf = (id: string, time: string) =>
  Buffer.from(`-createdAt.${id}.${time}`).toString('base64url')

describe('list', () => {
  it('shows keys of every status, newest first, 20 to a page', async () => {
    const userId = randomUUID()
    const keys = []
    for (let number = 0; number < 21; number++) {
      keys.unshift(
        await createKey(apiKeys, {
          status: statuses[number % 3] ?? 'ACTIVE',
          userId,
          name: `${number}`,
        }),
      )
    }

    const first = await apiKeys.list({ userId })
    const second = await apiKeys.list({ userId, cursor: String(first.nextCursor) })

    expect(first.apiKeys).toEqual(keys.slice(0, 20))
    expect(second).toEqual({ apiKeys: keys.slice(20), nextCursor: null })
  })

  it('has no next page if the last page is just full', async () => {
    const userId = randomUUID()
    const [older, newer] = [
      await createKey(apiKeys, { userId }),
      await createKey(apiKeys, { userId }),
    ]

    expect(await apiKeys.list({ userId, limit: 2 })).toEqual({
      apiKeys: [newer, older],
      nextCursor: null,
    })
  })

  it('neither repeats nor skips a key while new keys are created', async () => {
    const unindexed = createTestApiKeys(database, {
      sequelize: database.connect({
        dialectOptions: { options: '-c enable_indexscan=off -c enable_bitmapscan=off' },
      }),
    })
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.boolean(),
        fc.constantFrom(apiKeys, unindexed),
        async (count, limit, atOneInstant, instance) => {
          const userId = randomUUID()
          const keys = []
          for (let number = 0; number < count; number++)
            keys.push(await createKey(apiKeys, { userId }))
          if (atOneInstant) {
            await sequelize.query('UPDATE api_keys SET created_at = $2 WHERE user_id = $1', {
              bind: [userId, '2026-01-01T00:00:00.123Z'],
            })
          }

          const added: string[] = []
          const seen = await listAll(instance, { userId, limit }, async () => {
            const more = await Promise.all([
              createKey(apiKeys, { userId }),
              createKey(apiKeys, { userId }),
            ])
            added.push(...ids(more))
          })

          expect(ids(seen).filter((id) => added.includes(id))).toEqual([])
          expect(new Set(ids(seen))).toEqual(new Set(ids(keys)))
          expect(seen).toHaveLength(count)
        },
      ),
      { numRuns: 20 },
    )
  })

  it('keeps its place when the key at the end of a page is gone', async () => {
    const userId = randomUUID()
    const keys = [
      await createKey(apiKeys, { userId }),
      await createKey(apiKeys, { userId }),
      await createKey(apiKeys, { userId }),
    ]
    const { nextCursor } = await apiKeys.list({ userId, limit: 2 })

    await sequelize.query('DELETE FROM api_keys WHERE id = $1', { bind: [keys[1]?.id] })

    expect(ids((await apiKeys.list({ userId, cursor: String(nextCursor) })).apiKeys)).toEqual([
      keys[0]?.id,
    ])
  })

  it.each([['SQL', cursorOf(randomUUID(), `' OR 1=1 --`)]])(
    'refuses a cursor that holds %s',
    async (_, cursor) => {
      expect(await faultsOf(apiKeys.list({ cursor }))).toEqual([
        { pointer: '#/cursor', message: 'must be the nextCursor of a page before' },
      ])
    },
  )

  it('reads or rejects any text as a cursor', async () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('base64url')),
    )

    await fc.assert(
      fc.asyncProperty(text, async (cursor) => {
        const answers = await Promise.allSettled([
          apiKeys.list({ cursor }),
          apiKeys.events({ cursor }),
        ])
        const failures = answers.filter((answer) => answer.status === 'rejected')
        expect(failures.filter(({ reason }) => reason?.code !== 'invalid_input')).toEqual([])
      }),
    )
  })

  it.each([
    [{ user: 'alice' }, '#/user', 'is not known here (did you mean userId?)'],
    [{ owner: 'alice' }, '#/owner', 'must be an owner: { type, id }'],
  ])('refuses %j', async (filter, pointer, message) => {
    expect(await faultsOf(apiKeys.list(filter as never))).toEqual([{ pointer, message }])
  })

  it.each(statuses)('filters by the status %s', async (status) => {
    const userId = randomUUID()
    for (const each of statuses) await createKey(apiKeys, { status: each, userId, name: each })

    expect(names(await listAll(apiKeys, { userId, status }))).toEqual([status])
  })

  it('filters by several statuses', async () => {
    const userId = randomUUID()
    for (const each of statuses) await createKey(apiKeys, { status: each, userId, name: each })

    const filter = { userId, status: ['ACTIVE', 'REVOKED', 'ACTIVE'] as const }
    expect(names(await listAll(apiKeys, filter))).toEqual(['REVOKED', 'ACTIVE'])
  })

  it('filters by isExpired, whatever the status', async () => {
    const userId = randomUUID()
    const { id: expired } = await createKey(apiKeys, { userId, expiresAt: inDays(1) })
    const { id: revoked } = await createKey(apiKeys, { userId, expiresAt: inDays(1) })
    const { id: lasting } = await createKey(apiKeys, { userId })
    const { id: later } = await createKey(apiKeys, { userId, expiresAt: inDays(1) })
    await sequelize.query('UPDATE api_keys SET expires_at = now() WHERE id IN ($1, $2)', {
      bind: [expired, revoked],
    })
    await apiKeys.revoke(revoked)

    const over = await listAll(apiKeys, { userId, isExpired: true })
    const others = await listAll(apiKeys, { userId, isExpired: false })

    expect(ids(over)).toEqual([revoked, expired])
    expect(ids(others)).toEqual([later, lasting])
    expect([...over, ...others].map(({ isExpired }) => isExpired)).toEqual([
      true,
      true,
      false,
      false,
    ])
  })

  it.each([
    ['createdAt', 'bca'],
    ['-createdAt', 'acb'],
    ['name', 'abc'],
    ['-name', 'cba'],
    ['expiresAt', 'acb'],
    ['-expiresAt', 'bca'],
    ['lastUsedAt', 'cba'],
    ['-lastUsedAt', 'abc'],
  ] as const)('sorts by %s, page after page', async (sort, expected) => {
    const userId = randomUUID()
    const never = await createKey(apiKeys, { userId, name: 'b' })
    await createKey(apiKeys, { userId, name: 'c', expiresAt: inDays(2) })
    const soon = await createKey(apiKeys, { userId, name: 'a', expiresAt: inDays(1) })
    await sequelize.query(
      `UPDATE api_keys SET last_used_at = now() - CASE id WHEN $1 THEN interval '1 hour' ELSE interval '0' END
        WHERE id IN ($1, $2)`,
      { bind: [never.id, soon.id] },
    )

    expect(names(await listAll(apiKeys, { userId, sort, limit: 1 })).join('')).toBe(expected)
  })

  it('refuses a cursor of another order', async () => {
    const userId = randomUUID()
    for (const name of ['a', 'b']) await createKey(apiKeys, { userId, name })
    const { nextCursor } = await apiKeys.list({ userId, sort: 'name', limit: 1 })

    expect(await faultsOf(apiKeys.list({ userId, cursor: String(nextCursor) }))).toEqual([
      { pointer: '#/cursor', message: 'must be the nextCursor of a page before' },
    ])
  })

  it('finds keys by the shown ends of their plain text, and other words', async () => {
    const userId = randomUUID()
    const [first, second] = [
      await createKey(apiKeys, { userId, name: 'Backup' }),
      await createKey(apiKeys, { userId, name: 'Other' }),
    ]
    const find = async (text: string) => ids((await apiKeys.list({ userId, text })).apiKeys)

    expect(await find(first.prefix)).toEqual([first.id])
    expect(await find(first.prefix.slice(0, -1))).toEqual([first.id])
    expect(await find(`${first.prefix}xyz`)).toEqual([first.id])
    expect(await find(`${first.prefix} back`)).toEqual([first.id])
    expect(await find(`${first.prefix} other`)).toEqual([])
    expect(await find(second.prefix)).toEqual([second.id])
    expect(await find("agpt_'\\")).toEqual([])
  })

  it('filters by all of its filters together', async () => {
    const userId = randomUUID()
    const wanted = await createKey(apiKeys, { status: 'SUSPENDED', userId, name: 'Graph runner' })
    await createKey(apiKeys, { userId, name: 'Graph runner' })
    await createKey(apiKeys, {
      status: 'SUSPENDED',
      userId,
      name: 'Graph runner',
      permissions: ['READ_BLOCK'],
    })
    await createKey(apiKeys, { status: 'SUSPENDED', userId, name: 'Other' })
    await createKey(apiKeys, { status: 'SUSPENDED', userId: randomUUID(), name: 'Graph runner' })

    expect(
      ids(
        await listAll(apiKeys, {
          userId,
          status: 'SUSPENDED',
          permission: 'READ_GRAPH',
          text: 'run graph',
        }),
      ),
    ).toEqual([wanted.id])
  })

  it('filters by owners of odd names', async () => {
    const owners = ["O'Brien", 'a\\', "\\'; --", ':id', ':text', '$1', '"', 'ü@x.de', '%', '_', ' ']
    for (const userId of owners)
      await createKey(apiKeys, { userId, name: `of ${owners.indexOf(userId)}` })

    for (const userId of owners) {
      expect(names(await listAll(apiKeys, { userId, text: 'of' }))).toEqual([
        `of ${owners.indexOf(userId)}`,
      ])
    }
  })

  it('filters by permissions of odd names', async () => {
    const odd = ["it's", 'graphs:read', ':id', ':text', '$1', '{a,b}', 'NULL', '*', '%', 'ARRAY[]']
    const oddKeys = createApiKeys({ sequelize, keyPrefix: 'odd', permissions: odd } as never)
    const userId = randomUUID()
    for (const name of odd) await oddKeys.create({ userId, name, permissions: [name] })
    await oddKeys.create({ userId, name: 'all', permissions: odd })

    for (const permission of odd) {
      const { apiKeys: found } = await oddKeys.list({ userId, permission })
      expect(names(found)).toEqual(['all', permission])
    }
  })

  it.each([
    ['graph', 'Graph runner', true],
    ['GRAPH run', 'graph Runner', true],
    ['runner graph', 'Graph runner', true],
    ['raph', 'Graph runner', false],
    ['graph walker', 'Graph runner', false],
    ["O'Brien", "O'Brien's key", true],
    ['C:\\keys', 'In C:\\keys\\here', true],
    ['say "hi"', 'Say "hi" to all', true],
    ['a:id', 'About a:id and :text', true],
    ['ci-deploy', 'The ci-deploy key', true],
    ['üben', 'Übungen und üben', true],
    ["'; DROP TABLE api_keys; --", 'Graph runner', false],
    ['!graph', 'Walker', false],
    ['walker | graph', 'Graph', false],
  ])('finds by the text %p a key named %p: %p', async (text, name, isFound) => {
    const userId = randomUUID()
    await createKey(apiKeys, { userId, name: 'Nothing', description: 'to see' })
    await createKey(apiKeys, { userId, name })

    expect(names(await listAll(apiKeys, { userId, text }))).toEqual(isFound ? [name] : [])
  })

  it('finds by the words of name and description together', async () => {
    const userId = randomUUID()
    await createKey(apiKeys, { userId, name: 'Backup', description: 'of every graph' })
    await createKey(apiKeys, { userId, name: 'Backup' })

    expect(await listAll(apiKeys, { userId, text: 'backup graph' })).toHaveLength(1)
  })

  it('takes any text there is', async () => {
    const odd = [':', "'", '\\', '|', '&', '!', '<->', '(', '*', '$1', '"', ':*', ':text', "' '"]
    const text = fc
      .oneof(fc.string({ unit: 'grapheme' }), fc.string(), fc.constantFrom(...odd))
      .filter((text) => /\S/.test(text) && !/\p{Cc}/u.test(text) && text.split(/\s+/).length <= 10)

    await fc.assert(
      fc.asyncProperty(text, async (text) => {
        const { apiKeys: found } = await apiKeys.list({ text: text.slice(0, 200).toWellFormed() })
        expect(found).toEqual(expect.any(Array))
      }),
      { numRuns: 200 },
    )
  })
})
