import express from 'express'
import { Passport } from 'passport'
import type { Transaction } from 'sequelize'

import type { ApiKeyNotices } from '../../lib'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { apiKeys, http, sequelize, createKey, createProcess } = useWorld({
  options: { undoMinutes: 60 },
  routes(app, { requirePermission, strategy }) {
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
    app.get('/passport', new Passport().use(strategy).authenticate('api-key'), (_req, res) => {
      res.json([])
    })
  },
})

/** The notices since a spec began, in order. */
let noticed: [name: string, notice: unknown][]
let stopListening: (() => void)[]

beforeEach(() => {
  noticed = []
  stopListening = []
})

afterEach(() => {
  for (const stop of stopListening) stop()
})

function listenTo(...names: (keyof ApiKeyNotices)[]) {
  for (const name of names) {
    stopListening.push(apiKeys.on(name, (notice) => noticed.push([name, notice])))
  }
}

const get = (path: string, plainTextKey: string) => http.with(plainTextKey).get(path)

describe('on', () => {
  it('reports every change over HTTP with the state before, the actor and the reason', async () => {
    listenTo('created', 'updated', 'permissions_changed', 'suspended', 'reactivated')
    listenTo('rotated', 'rotation_ended', 'revoked', 'unrevoked')

    const { body } = await http
      .as('alice')
      .post('/api-keys', { name: 'CI', permissions: ['READ_GRAPH'] })
    const path = `/api-keys/${body.apiKey.id}`
    await http.as('alice').patch(path, { name: 'Build' })
    await http.as('alice').put(`${path}/permissions`, { permissions: ['READ_BLOCK'] })
    await http.as('admin').post(`/admin${path}/suspend`, { reason: 'leaked' })
    await http.as('alice').post(`${path}/reactivate`)
    const rotated = await http.as('alice').post(`${path}/rotate`)
    await http.as('alice').delete(`${path}/rotation`)
    await http.as('alice').delete(path)
    await http.as('admin').post(`/admin${path}/unrevoke`, { reason: 'wrong key' })

    expect(noticed.map(([name]) => name)).toEqual([
      'created',
      'updated',
      'permissions_changed',
      'suspended',
      'reactivated',
      'rotated',
      'rotation_ended',
      'revoked',
      'unrevoked',
    ])
    expect(noticed[0]).toEqual([
      'created',
      {
        apiKey: expect.objectContaining({ id: body.apiKey.id, name: 'CI', status: 'ACTIVE' }),
        before: null,
        actor: { type: 'user', id: 'alice' },
        reason: null,
      },
    ])
    expect(noticed[3]).toEqual([
      'suspended',
      {
        apiKey: expect.objectContaining({ status: 'SUSPENDED' }),
        before: expect.objectContaining({ status: 'ACTIVE' }),
        actor: { type: 'admin', id: 'admin' },
        reason: 'leaked',
      },
    ])
    const text = JSON.stringify(noticed)
    expect(text).not.toContain(body.plainTextKey)
    expect(text).not.toContain(rotated.body.plainTextKey)
    expect(text).not.toMatch(/[0-9a-f]{64}/)
  })

  it('reports no call that changed nothing or was refused', async () => {
    const { apiKey } = await createKey()
    await apiKeys.revoke(apiKey.id)
    listenTo('revoked', 'suspended', 'updated')

    await apiKeys.revoke(apiKey.id)
    await apiKeys.suspend(apiKey.id).catch(() => {})
    await apiKeys.update(apiKey.id, { name: 'Other' }).catch(() => {})

    expect(noticed).toEqual([])
  })

  it('reports each key that revokeAll revokes', async () => {
    const ids = []
    for (const name of ['one', 'two', 'three']) {
      ids.push((await createKey({ userId: 'carol', name })).apiKey.id)
    }
    listenTo('revoked')

    await apiKeys.revokeAll({ type: 'user', id: 'carol' })

    const revoked = noticed.map(([, notice]) => (notice as ApiKeyNotices['revoked']).apiKey.id)
    expect(revoked.toSorted()).toEqual(ids.toSorted())
  })

  it('waits for the transaction of the caller', async () => {
    const { apiKey } = await createKey()
    listenTo('suspended')
    const transaction = await sequelize.transaction()

    await apiKeys.suspend(apiKey.id, { transaction })
    expect(noticed).toEqual([])
    await transaction.commit()

    expect(noticed).toHaveLength(1)
  })

  it.each(['outer', 'inner'])(
    'reports nothing if the %s transaction is rolled back',
    async (which) => {
      const { apiKey } = await createKey()
      listenTo('suspended', 'revoked')
      const outer = await sequelize.transaction()
      const inner: Transaction = await sequelize.transaction({ transaction: outer })

      await apiKeys.suspend(apiKey.id, { transaction: inner })
      await (which === 'inner' ? inner.rollback() : inner.commit())
      await (which === 'outer' ? outer.rollback() : outer.commit())

      expect(noticed).toEqual([])
      expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'ACTIVE' })
    },
  )

  it('reports denied requests with the reason, which the client does not get', async () => {
    const { apiKey, plainTextKey } = await createKey({ permissions: ['READ_BLOCK'] })
    listenTo('denied')

    await get('/graphs', plainTextKey)
    await apiKeys.revoke(apiKey.id)
    await get('/graphs', plainTextKey)
    await get('/passport', plainTextKey)
    await get('/graphs', 'agpt_nonsense')
    await http.get('/graphs')

    const notices = noticed.map(([, notice]) => notice as ApiKeyNotices['denied'])
    expect(notices.map(({ error, reason }) => [error.code, reason])).toEqual([
      ['missing_permission', null],
      ['invalid_api_key', 'revoked'],
      ['invalid_api_key', 'revoked'],
      ['invalid_api_key', 'malformed'],
      ['missing_credential', null],
    ])
    const holder = { id: apiKey.id, owner: { type: 'user', id: 'alice' } }
    // The key is named although it is no longer good, because an app that lists such requests shows its owner.
    expect(notices.map(({ apiKey }) => apiKey)).toEqual([holder, holder, holder, null, null])
    expect(notices[0]).toMatchObject({ address: '127.0.0.1' })
    expect(JSON.stringify(notices)).not.toContain(plainTextKey)
  })

  it('reports accepted keys once per request, while a listener is there', async () => {
    const { apiKey, plainTextKey } = await createKey()
    await get('/graphs', plainTextKey)
    listenTo('verified')

    await get('/graphs', plainTextKey)

    expect(noticed).toEqual([
      ['verified', { apiKey: expect.objectContaining({ id: apiKey.id }), address: '127.0.0.1' }],
    ])
    for (const stop of stopListening) stop()
    await get('/graphs', plainTextKey)
    expect(noticed).toHaveLength(1)
  })

  it('reports the uses that usage counts as accepted, even if later guards refuse them', async () => {
    const keys = createProcess({
      limits: { burst: { limit: 5, windowSeconds: 3_600 } },
    }).apiKeys
    const app = express()
    app.use(keys.authenticate({ cost: 0 }))
    app.get('/graphs', keys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.end()
    })
    app.get('/blocks', keys.requirePermission('READ_BLOCK'))
    app.get('/costly', async (req, res) => {
      await keys.consume(req, 99).catch(() => {})
      res.end()
    })
    const { apiKey, plainTextKey } = await createKey()
    const verified: unknown[] = []
    keys.on('verified', (notice) => verified.push(notice))
    const paths = [...Array.from({ length: 7 }, () => '/graphs'), '/blocks', '/costly']

    for (const path of paths) {
      await http.to(app).with(plainTextKey).get(path)
    }
    await keys.verify(plainTextKey)
    await keys.flush()

    const { totals } = await keys.usage(apiKey.id)
    expect(totals).toEqual({ accepted: 6, denied: 1, rateLimited: 3 })
    expect(verified).toHaveLength(6)
  })

  it('reports the use of a retired secret', async () => {
    const { apiKey, plainTextKey } = await createKey()
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })
    listenTo('retired_secret_used')

    await get('/graphs', plainTextKey)
    await get('/graphs', plainTextKey)

    expect(noticed).toEqual([['retired_secret_used', { apiKeyId: apiKey.id }]])
  })

  it('gives listeners a copy, which they cannot change', async () => {
    const { apiKey } = await createKey()
    stopListening.push(
      apiKeys.on('updated', (notice) => {
        noticed.push(['updated', Object.isFrozen(notice) && Object.isFrozen(notice.apiKey)])
        Reflect.deleteProperty(notice.apiKey, 'permissions')
      }),
    )

    const changed = await apiKeys.update(apiKey.id, { name: 'Other' })

    expect(noticed).toEqual([['updated', true]])
    expect(changed.permissions).toEqual(['READ_GRAPH'])
  })

  it('lets no listener break a request, a change or another listener', async () => {
    stopListening.push(
      apiKeys.on('verified', () => {
        throw new Error('broken')
      }),
      apiKeys.on('revoked', () => Promise.reject(new Error('rejected'))),
      apiKeys.on('error', () => {
        throw new Error('breaks at failures, too')
      }),
    )
    listenTo('verified', 'revoked', 'error')
    const { apiKey, plainTextKey } = await createKey()

    const answer = await get('/graphs', plainTextKey)
    await apiKeys.revoke(apiKey.id)

    expect(answer.status).toBe(200)
    await until(() => noticed.length === 4)
    expect(noticed.map(([name, notice]) => [name, (notice as { notice?: string }).notice])).toEqual(
      expect.arrayContaining([
        ['verified', undefined],
        ['error', 'verified'],
        ['revoked', undefined],
        ['error', 'revoked'],
      ]),
    )
  })

  it('refuses unknown names, and listeners that are no functions', () => {
    expect(() => apiKeys.on('revokd' as 'revoked', () => {})).toThrow(
      'on: there is no event "revokd". Did you mean revoked?',
    )
    expect(() => apiKeys.on('toString' as 'revoked', () => {})).toThrow(TypeError)
    expect(() => apiKeys.on('revoked', undefined as never)).toThrow('on: needs a function to call')
  })
})
