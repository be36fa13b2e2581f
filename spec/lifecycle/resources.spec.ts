import { ApiKeysError, InvalidInputError } from '../../lib'
import { createTestApp } from '../support/app'
import { createBindingApiKeys } from '../support/bound-keys'
import { expectFaults } from '../support/problem'
import { useWorld } from '../support/world'

const { database, sequelize, http, rows, createProcess } = useWorld()

type Ask = (ids: readonly string[], owner: unknown, context: unknown) => unknown

/** The app lets all owners bind graphs 7, 8 and 9. */
const isKnown: Ask = (ids) => ids.every((id) => ['7', '8', '9'].includes(id))
/** Bob may bind graph 7 alone. */
const isKnownToBob: Ask = (ids, owner, context) =>
  isKnown(ids, owner, context) === true &&
  ((owner as { id: string }).id !== 'bob' || ids.every((id) => id === '7'))
const mayBind = jest.fn<unknown, Parameters<Ask>>()
const apiKeys = createBindingApiKeys(database, {
  resources: {
    graph: (...args) => mayBind(...args) as boolean,
    project: true,
  },
})
const app = http.to(createTestApp(apiKeys))
const alice = app.as('alice')
const admin = app.as('admin')

const key = { userId: 'alice', name: 'Deployment', permissions: ['READ_GRAPH'] as const }

type Bound = { graph?: readonly string[]; project?: readonly string[] } | null

async function createKey(resources: Bound = null) {
  const { apiKey } = await apiKeys.create({ ...key, resources })
  mayBind.mockClear()
  return apiKey
}

beforeEach(() => mayBind.mockReset().mockImplementation(isKnown))

const notBindable = {
  code: 'invalid_input',
  errors: [{ pointer: '#/resources/graph', message: 'may not be bound by this owner' }],
}

describe('create', () => {
  it('binds a key, and shows it in the answer and in records', async () => {
    const { apiKey } = await apiKeys.create({
      ...key,
      resources: { project: ['b', 'a'], graph: ['7'] },
    })

    expect(apiKey.resources).toEqual({ graph: ['7'], project: ['a', 'b'] })
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
    expect((await apiKeys.list({ userId: 'alice' })).apiKeys).toContainEqual(apiKey)
  })

  it.each([undefined, null, {}])('binds no key with %j', async (resources) => {
    const { apiKey } = await apiKeys.create({ ...key, resources })

    expect(apiKey.resources).toBeNull()
    expect(mayBind).not.toHaveBeenCalled()
  })

  it('asks the app about ids of a type with a function, with the owner and the transaction', async () => {
    await sequelize.transaction(async (transaction) => {
      await apiKeys.create(
        { ...key, resources: { graph: ['8', '7'], project: ['x'] } },
        { transaction },
      )

      expect(mayBind.mock.calls).toEqual([
        [['7', '8'], { type: 'user', id: 'alice' }, { transaction }],
      ])
    })
  })

  it('asks nothing about an empty list', async () => {
    expect((await createKey({ graph: [] })).resources).toEqual({ graph: [] })
    expect(mayBind).not.toHaveBeenCalled()
  })

  it.each([false, null, undefined])('is refused if the app answers %j', async (answer) => {
    mayBind.mockReturnValueOnce(answer)

    await expect(apiKeys.create({ ...key, resources: { graph: ['7'] } })).rejects.toMatchObject(
      notBindable,
    )
  })

  it.each<[string, unknown, string]>([
    ['a list of the ids', ['7'], "[ '7' ]"],
    ['a number', 1, '1'],
    ['text', 'false', '"false"'],
  ])('rejects with a TypeError if the app answers with %s', async (_, answer, shown) => {
    mayBind.mockReturnValueOnce(answer)

    await expect(apiKeys.create({ ...key, resources: { graph: ['7'] } })).rejects.toThrow(
      new TypeError(
        `createApiKeys: the option resources.graph must return true or false, got ${shown}`,
      ),
    )
  })

  it('rejects with the error of the app', async () => {
    const error = new Error('no graphs today')
    mayBind.mockImplementationOnce(() => Promise.reject(error))

    await expect(apiKeys.create({ ...key, resources: { graph: ['7'] } })).rejects.toBe(error)
  })

  it('creates no key that is refused', async () => {
    const carol = { ...key, userId: 'carol' }

    await expect(apiKeys.create({ ...carol, resources: { graph: ['1'] } })).rejects.toMatchObject(
      notBindable,
    )
    await expect(
      apiKeys.createMany([carol, { ...carol, resources: { graph: ['1'] } }]),
    ).rejects.toMatchObject({
      errors: [
        { pointer: '#/apiKeys/1/resources/graph', message: 'may not be bound by this owner' },
      ],
    })

    expect((await apiKeys.list({ userId: 'carol' })).apiKeys).toEqual([])
  })

  it('binds many keys at once', async () => {
    const { apiKeys: made } = await apiKeys.createMany([
      { ...key, resources: { graph: ['7'] } },
      { ...key, resources: null },
      { ...key, resources: { graph: [], project: ['x'] } },
    ])

    expect(made.map(({ apiKey }) => apiKey.resources)).toEqual([
      { graph: ['7'] },
      null,
      { graph: [], project: ['x'] },
    ])
  })
})

describe('update', () => {
  it('replaces all bindings, and null ends them', async () => {
    const { id } = await createKey({ graph: ['7'], project: ['x'] })

    const seen = [
      await apiKeys.update(id, { resources: { graph: ['8'] } }),
      await apiKeys.update(id, { name: 'Renamed' }),
      await apiKeys.update(id, { resources: { graph: [] } }),
      await apiKeys.update(id, { resources: {} }),
      await apiKeys.update(id, { resources: { project: ['x'] } }),
      await apiKeys.update(id, { resources: null }),
    ]

    expect(seen.map(({ resources }) => resources)).toEqual([
      { graph: ['8'] },
      { graph: ['8'] },
      { graph: [] },
      null,
      { project: ['x'] },
      null,
    ])
    expect(await apiKeys.get(id)).toEqual(seen.at(-1))
  })

  it('asks the app about the ids that the key does not have yet', async () => {
    const { id } = await createKey({ graph: ['7', '8'] })

    await apiKeys.update(id, { resources: { graph: ['8', '9'] } })

    expect(mayBind.mock.calls.map(([ids]) => ids)).toEqual([['9']])
  })

  it('asks nothing if a key is narrowed, or ends to be bound, although the owner has lost the graph', async () => {
    const { id } = await createKey({ graph: ['7', '8'] })
    mayBind.mockReturnValue(false)

    await apiKeys.update(id, { resources: { graph: ['7'] } })
    await apiKeys.update(id, { resources: { graph: ['7'], project: ['x'] } })
    await apiKeys.update(id, { resources: { graph: [] } })
    await apiKeys.update(id, { resources: null })

    expect(mayBind).not.toHaveBeenCalled()
  })

  it('is refused if the app does not let the owner bind an id, and changes nothing', async () => {
    const before = await createKey({ graph: ['7'] })
    const changes = { name: 'Renamed', resources: { graph: ['7', '1'] } }

    await expect(apiKeys.update(before.id, changes)).rejects.toMatchObject(notBindable)

    expect(await apiKeys.get(before.id)).toEqual(before)
  })

  it('asks again for the new owner if the key gets another owner meanwhile', async () => {
    const { id } = await createKey()
    mayBind.mockImplementationOnce(async () => {
      await rows(`UPDATE api_keys SET user_id = 'bob' WHERE id = $1`, [id])
      return true
    })

    const { owner, resources } = await apiKeys.update(id, { resources: { graph: ['7'] } })

    expect([owner, resources]).toEqual([{ type: 'user', id: 'bob' }, { graph: ['7'] }])
    expect(mayBind.mock.calls.map(([, owner]) => owner)).toEqual([
      { type: 'user', id: 'alice' },
      { type: 'user', id: 'bob' },
    ])
  })

  it('asks again about an id that the key has lost meanwhile, and is refused if the owner has lost it too', async () => {
    const { id } = await createKey({ graph: ['7', '8'] })
    mayBind.mockImplementation((ids) => !ids.includes('7'))
    mayBind.mockImplementationOnce(async () => {
      await apiKeys.update(id, { resources: { graph: ['8'] } })
      return true
    })

    const update = apiKeys.update(id, { resources: { graph: ['7', '9'] } })

    await expect(update).rejects.toMatchObject(notBindable)
    expect(mayBind.mock.calls.map(([ids]) => ids)).toEqual([['9'], ['7', '9']])
    expect((await apiKeys.get(id)).resources).toEqual({ graph: ['8'] })
  })

  it('writes nothing if the bindings are the same in another order', async () => {
    const before = await createKey({ project: ['b', 'a'], graph: ['7'] })

    const after = await apiKeys.update(before.id, {
      resources: { graph: ['7'], project: ['a', 'b'] },
    })

    expect(after).toEqual(before)
    expect((await apiKeys.events({ apiKeyId: before.id })).events).toHaveLength(1)
  })

  it('lets the later of two processes win, whole', async () => {
    const { id } = await createKey()
    const other = createBindingApiKeys(database)
    const wishes = Array.from({ length: 20 }, (_, round) => ({
      graph: [`${round}`],
      project: [`${round}`],
    }))
    mayBind.mockReturnValue(true)

    await Promise.all(
      wishes.map((resources, round) =>
        (round % 2 === 0 ? apiKeys : other).update(id, { resources }),
      ),
    )

    const { resources } = await apiKeys.get(id)
    expect(resources?.graph).toEqual(resources?.project)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})

describe('transfer', () => {
  const bob = { type: 'user', id: 'bob' } as const

  it('asks the app about all ids of the key, for its new owner', async () => {
    const { id } = await createKey({ graph: ['7', '8'], project: ['x'] })

    const { owner, resources } = await apiKeys.transfer(id, bob)

    expect([owner, resources]).toEqual([bob, { graph: ['7', '8'], project: ['x'] }])
    expect(mayBind.mock.calls.map(([ids, owner]) => [ids, owner])).toEqual([[['7', '8'], bob]])
  })

  it('is refused if the app does not let the new owner bind an id, and changes nothing', async () => {
    const before = await createKey({ graph: ['7', '8'] })
    mayBind.mockImplementation(isKnownToBob)

    await expect(apiKeys.transfer(before.id, bob)).rejects.toMatchObject(notBindable)

    expect(await apiKeys.get(before.id)).toEqual(before)
  })

  it('leaves no owner an id that the owner may not bind, if the key is bound at once', async () => {
    mayBind.mockImplementation(isKnownToBob)
    const ended: unknown[] = []
    for (let round = 0; round < 100; round++) {
      const { id } = await createKey({ graph: ['7'] })
      await Promise.allSettled([
        apiKeys.transfer(id, bob),
        apiKeys.update(id, { resources: { graph: ['7', '9'] } }),
      ])
      const { owner, resources } = await apiKeys.get(id)
      ended.push([owner.id, ...(resources?.graph ?? [])].join(' '))
    }

    expect(ended.filter((end) => end !== 'bob 7' && end !== 'alice 7 9')).toEqual([])
    expect(ended).toHaveLength(100)
  })
})

describe('rotate', () => {
  it('keeps what a key is bound to', async () => {
    const { id } = await createKey({ graph: ['7'] })

    const { apiKey, plainTextKey } = await apiKeys.rotate(id)

    expect(apiKey.resources).toEqual({ graph: ['7'] })
    const verdicts = [
      await apiKeys.verify(plainTextKey, { resource: { graph: '7' } }),
      await apiKeys.verify(plainTextKey, { resource: { graph: '8' } }),
    ]
    expect(verdicts.map(({ valid }) => valid)).toEqual([true, false])
  })
})

describe('the audit trail', () => {
  it('shows what a key was bound to, and what it is bound to', async () => {
    const { id } = await createKey({ graph: ['7'] })
    await apiKeys.update(id, { resources: { graph: ['8'], project: [] } })
    await apiKeys.update(id, { resources: null })
    await rows(`UPDATE api_keys SET resources = '{"graph":["9"]}' WHERE id = $1`, [id])
    await rows('DELETE FROM api_keys WHERE id = $1', [id])

    const { events } = await apiKeys.events({ apiKeyId: id })

    expect(events.map(({ action, before, after }) => [action, before, after])).toMatchObject([
      ['deleted', { resources: { graph: ['9'] } }, null],
      ['updated', { resources: null }, { resources: { graph: ['9'] } }],
      ['updated', { resources: { graph: ['8'], project: [] } }, { resources: null }],
      ['updated', { resources: { graph: ['7'] } }, { resources: { graph: ['8'], project: [] } }],
      ['created', null, { resources: { graph: ['7'] } }],
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})

describe('over HTTP', () => {
  it('owners bind a key, narrow it, widen it and end it', async () => {
    const created = await alice.post('/api-keys', {
      ...key,
      userId: undefined,
      resources: { graph: [7, '8'] },
    })
    const path = `/api-keys/${created.body.apiKey.id}`

    const answers = [
      created,
      await alice.get(path),
      await alice.patch(path, { resources: { graph: ['7'] } }),
      await alice.patch(path, { resources: { graph: ['7', '9'], project: ['x'] } }),
      await alice.patch(path, { resources: null }),
    ]

    expect(answers.map(({ status }) => status)).toEqual([201, 200, 200, 200, 200])
    expect(answers.map(({ body }) => (body.apiKey ?? body).resources)).toEqual([
      { graph: ['7', '8'] },
      { graph: ['7', '8'] },
      { graph: ['7'] },
      { graph: ['7', '9'], project: ['x'] },
      null,
    ])
  })

  it('administrators do the same for the keys of all users', async () => {
    const { id } = await createKey({ graph: ['7'] })
    const path = `/admin/api-keys/${id}`

    const answer = await admin.patch(path, { resources: { graph: ['9'] } })
    const refused = await admin.patch(path, { resources: { graph: ['1'] } })

    expect([answer.status, answer.body.apiKey?.resources ?? answer.body.resources]).toEqual([
      200,
      { graph: ['9'] },
    ])
    expectFaults(refused, { '#/resources/graph': 'may not be bound by this owner' })
    expect(mayBind.mock.calls.map(([, owner]) => owner)).toEqual([
      { type: 'user', id: 'alice' },
      { type: 'user', id: 'alice' },
    ])
  })

  it('another user’s key is not found, and the app is not asked', async () => {
    const { id } = await createKey({ graph: ['7'] })

    const answer = await app.as('bob').patch(`/api-keys/${id}`, { resources: { graph: ['8'] } })

    expect([answer.status, answer.body.code]).toEqual([404, 'api_key_not_found'])
    expect(mayBind).not.toHaveBeenCalled()
  })

  it('a revoked key is not changed', async () => {
    const { id } = await createKey()
    await apiKeys.revoke(id)

    const answer = await alice.patch(`/api-keys/${id}`, { resources: { graph: ['7'] } })

    expect([answer.status, answer.body.code]).toEqual([409, 'api_key_revoked'])
  })

  it.each<[string, unknown, Record<string, string>]>([
    ['a list', ['7'], { '#/resources': 'must be a JSON object of lists of ids, by their types' }],
    ['text', '7', { '#/resources': 'must be a JSON object of lists of ids, by their types' }],
    [
      'another type',
      { block: ['7'] },
      { '#/resources/block': 'is not one of the types graph, project' },
    ],
    [
      'names of members of all objects',
      JSON.parse('{"__proto__":["7"],"constructor":["7"]}'),
      {
        '#/resources/__proto__': 'is not one of the types graph, project',
        '#/resources/constructor': 'is not one of the types graph, project',
      },
    ],
    ['an id alone', { graph: '7' }, { '#/resources/graph': 'must be a list of ids' }],
    ['null for a type', { graph: null }, { '#/resources/graph': 'must be a list of ids' }],
    [
      'an empty id',
      { graph: [''] },
      {
        '#/resources/graph/0':
          'must be text of 1 to 255 characters, well-formed Unicode without NUL',
      },
    ],
    ['a repeat', { graph: ['7', 7] }, { '#/resources/graph/1': 'must not be repeated' }],
    [
      '101 ids',
      { graph: Array.from({ length: 101 }, (_, id) => id) },
      { '#/resources': 'must have at most 100 ids in all' },
    ],
    [
      '5,000 ids',
      { graph: Array.from({ length: 5_000 }, () => 7) },
      { '#/resources': 'must have at most 100 ids in all' },
    ],
  ])('input is refused: %s', async (_, resources, faults) => {
    const { id } = await createKey()
    const body = JSON.stringify({ ...key, userId: undefined, resources })
    const json = { 'X-User': 'alice', 'Content-Type': 'application/json' }

    expectFaults(await app.set(json).post('/api-keys', body), faults)
    expectFaults(
      await app.set(json).patch(`/api-keys/${id}`, JSON.stringify({ resources })),
      faults,
    )
    expect(mayBind).not.toHaveBeenCalled()
  })
})

describe('an app without resources', () => {
  it('knows no such field, in input or in records', async () => {
    const { apiKeys: others, http } = createProcess()
    const { apiKey } = await others.create({ ...key })

    const answers = [
      await http.as('alice').post('/api-keys', { ...key, userId: undefined, resources: null }),
      await http.as('alice').patch(`/api-keys/${apiKey.id}`, { resources: null }),
    ]

    for (const answer of answers) expectFaults(answer, { '#/resources': 'is not known here' })
    expect(apiKey).not.toHaveProperty('resources')
    expect(await others.get(apiKey.id)).not.toHaveProperty('resources')
  })

  it('shows and keeps what a key was bound to before', async () => {
    const { apiKeys: others } = createProcess()
    const { id } = await createKey({ graph: ['7'] })

    const records = [await others.get(id), await others.update(id, { name: 'Renamed' })]

    expect(records).toMatchObject([
      { resources: { graph: ['7'] } },
      { resources: { graph: ['7'] } },
    ])
    expect(await others.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})

describe('the table', () => {
  it.each<[string, string]>([
    ['a list', '["7"]'],
    ['text', '"7"'],
    ['more than 16,384 bytes', JSON.stringify({ graph: ['x'.repeat(16_384)] })],
  ])('refuses %s', async (_, json) => {
    const { id } = await createKey()

    await expect(
      rows('UPDATE api_keys SET resources = $2::json WHERE id = $1', [id, json]),
    ).rejects.toThrow(/violates check constraint/)
  })

  it('takes the most that the input can be', async () => {
    mayBind.mockReturnValue(true)
    const ids = Array.from({ length: 99 }, (_, index) => `${index + 10}${'é'.repeat(80)}`)
    const rest = 16_384 - Buffer.byteLength(JSON.stringify({ graph: ids }))
    const graph = [...ids, 'x'.repeat(Math.min(rest - 3, 255))].toSorted()

    const { apiKey } = await apiKeys.create({ ...key, resources: { graph } })

    expect((await apiKeys.get(apiKey.id)).resources).toEqual({ graph })
    expect(Buffer.byteLength(JSON.stringify({ graph }))).toBe(16_384)
  })
})

it('refuses what breaks the rules before any query, by function', async () => {
  const call = apiKeys.create({ ...key, resources: { graph: [''] } })

  await expect(call).rejects.toBeInstanceOf(InvalidInputError)
  await expect(call).rejects.toBeInstanceOf(ApiKeysError)
})

// Behind all others, because it alters the triggers.
describe('a change behind the back of the audit trail', () => {
  it('is found by a verification', async () => {
    const { id } = await createKey({ graph: ['7'] })
    await rows('ALTER TABLE api_keys DISABLE TRIGGER ALL')
    await rows(`UPDATE api_keys SET resources = '{"graph":["9"]}' WHERE id = $1`, [id])
    await rows('ALTER TABLE api_keys ENABLE TRIGGER ALL')

    const { isIntact, faults } = await apiKeys.verifyAuditTrail()

    expect(isIntact).toBe(false)
    expect(JSON.stringify(faults)).toContain(id)
  })
})
