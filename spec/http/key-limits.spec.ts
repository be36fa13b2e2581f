import { newKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const minute = 60
const month = 30 * 86_400
const options = {
  limits: {
    burst: { limit: 3, windowSeconds: minute },
    monthly: { limit: 5, windowSeconds: month },
  },
}

const { apiKeys, http, createKey, createProcess } = useWorld({
  options,
  routes(app, { requirePermission }) {
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
  },
})
const elsewhere = createProcess(options).apiKeys

function use(plainTextKey: string, path = '/graphs') {
  return http.with(plainTextKey).get(path)
}

async function statusesOf(plainTextKey: string, times: number, path?: string) {
  const statuses: number[] = []
  for (let time = 0; time < times; time++) {
    statuses.push((await use(plainTextKey, path)).status)
  }
  return statuses
}

describe('limits of a key', () => {
  it('replace limits of the app with the same names, in every process', async () => {
    const { body } = await http
      .as('admin')
      .post(
        '/admin/api-keys',
        newKey({ limits: { burst: { limit: 1, windowSeconds: 60 }, monthly: null } }),
      )
    expect(body.apiKey.limits).toEqual({
      burst: { limit: 1, windowSeconds: 60 },
      monthly: null,
    })
    expect((await use(body.plainTextKey)).headers['ratelimit-policy']).toBe('"burst";q=1;w=60')
    expect((await use(body.plainTextKey)).status).toBe(429)
    await elsewhere.verify(body.plainTextKey)

    const changed = await http.as('admin').patch(`/admin/api-keys/${body.apiKey.id}`, {
      limits: { burst: { limit: 2, windowSeconds: 60 } },
    })

    expect(changed.body.limits).toEqual({ burst: { limit: 2, windowSeconds: 60 } })
    expect((await use(body.plainTextKey)).status).toBe(200)
    await until(async () => {
      const verdict = await elsewhere.verify(body.plainTextKey)
      if (!verdict.valid) throw new Error(verdict.code)
      const states = await elsewhere.consume(verdict.apiKey).catch(() => [])
      return states.length === 2 && states[0]?.limit === 2
    })
  })

  it('may have other names', async () => {
    const { plainTextKey } = await createKey({
      limits: { daily: { limit: 2, windowSeconds: 86_400 } },
    })

    expect((await use(plainTextKey)).headers['ratelimit-policy']).toBe(
      `"burst";q=3;w=60, "daily";q=2;w=86400, "monthly";q=5;w=${month}`,
    )
    expect(await statusesOf(plainTextKey, 2)).toEqual([200, 429])
  })

  it('never ask clients to wait longer than their timers can', async () => {
    const yearly = { limit: 1, windowSeconds: 366 * 86_400 }
    const { plainTextKey } = await createKey({ limits: { yearly } })
    await use(plainTextKey)
    const refused = await use(plainTextKey)

    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toBe('2147483')
    expect(refused.headers.ratelimit).toContain('"yearly";r=0;t=3162')
  })

  it('can be read but not written by owners', async () => {
    const limits = { burst: { limit: 1_000, windowSeconds: 60 } }
    const faults = [{ pointer: '#/limits', message: 'is for administrators to write' }]
    const { id } = await createKey({ limits: { burst: { limit: 1, windowSeconds: 60 } } })
    const path = `/api-keys/${id}`

    const created = await http
      .as('alice')
      .post('/api-keys', { name: 'CI', permissions: ['READ_GRAPH'], limits })
    expect([created.status, created.body.errors]).toEqual([422, faults])
    for (const wish of [limits, null, {}]) {
      const changed = await http.as('alice').patch(path, { limits: wish })
      expect([changed.status, changed.body.errors]).toEqual([422, faults])
    }
    const seen = await http.as('alice').get(path)
    expect(seen.body.limits).toEqual({ burst: { limit: 1, windowSeconds: 60 } })
    // A record that was read may be sent back.
    const same = await http.as('alice').patch(path, { name: 'Other', limits: seen.body.limits })
    expect([same.status, same.body.name]).toEqual([200, 'Other'])
  })

  it('are written to the audit trail when they change', async () => {
    const { id } = await createKey()
    const limits = { burst: { windowSeconds: 60, limit: 7 }, a: null }
    await apiKeys.update(id, { limits })
    await apiKeys.update(id, { limits: { a: null, burst: { limit: 7, windowSeconds: 60 } } })

    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events).toHaveLength(2)
    expect(events[0]).toMatchObject({
      action: 'updated',
      before: { limits: null },
      after: { limits },
    })
  })

  it.each([
    [[], '#/limits', 'must be a JSON object of limits, by their names'],
    [
      { burst: { limit: 5, windowSeconds: 60, cost: 1 } },
      '#/limits/burst/cost',
      'is not known here',
    ],
    [JSON.parse('{"__proto__": null}'), '#/limits', 'must not have a limit called __proto__'],
  ])('cannot be %j', async (limits, pointer, message) => {
    const { id } = await createKey()

    const answer = await http
      .as('admin')
      .patch(`/admin/api-keys/${id}`)
      .set('Content-Type', 'application/json')
      .send(`{"limits":${JSON.stringify(limits)}}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toContainEqual({ pointer, message })
  })
})
