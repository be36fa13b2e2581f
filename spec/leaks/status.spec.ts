import express, { type Express } from 'express'

import type { TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

function addLeaks(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use('/leaks', keys.leakRouter())
}

const { apiKeys, http, rows, createKey, createProcess } = useWorld({
  routes: addLeaks,
  options: { header: 'X-API-Key', limits: { burst: { limit: 1, windowSeconds: 3_600 } } },
})
const statusOf = (key: string) => http.with(key).get('/leaks/status')

describe('GET /status', () => {
  it('answers 204 to a key that works, and has no body', async () => {
    const { plainTextKey } = await createKey()

    const answer = await statusOf(plainTextKey)

    expect([answer.status, answer.text]).toEqual([204, ''])
    expect(answer.headers['cache-control']).toBe('no-store')
    expect((await http.set({ 'X-API-Key': plainTextKey }).get('/leaks/status')).status).toBe(204)
    expect((await http.with(plainTextKey).head('/leaks/status')).status).toBe(204)
  })

  it('answers 401 to all else, to the byte', async () => {
    const good = await createKey()
    const expired = await createKey()
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    const owned = await createKey({ userId: 'olga' })
    await apiKeys.suspendOwner({ type: 'user', id: 'olga' })
    const rotated = await createKey()
    await apiKeys.rotate(rotated.id, { gracePeriodSeconds: 0 })
    const bad = [
      (await createKey({ status: 'REVOKED' })).plainTextKey,
      (await createKey({ status: 'SUSPENDED' })).plainTextKey,
      ...[expired, owned, rotated].map(({ plainTextKey }) => plainTextKey),
      forgeKey(),
      `${good.plainTextKey}x`,
      'x',
    ]
    const requests = [
      ...bad.map(bearer),
      {},
      { Authorization: good.plainTextKey },
      { ...bearer(good.plainTextKey), 'X-API-Key': good.plainTextKey },
    ]

    for (const headers of requests) {
      const answer = await http.set(headers).get('/leaks/status')

      const { date: _, connection: __, ...others } = answer.headers
      expect([answer.status, answer.text, others]).toEqual([
        401,
        '',
        {
          'x-powered-by': 'Express',
          'cache-control': 'no-store',
          'www-authenticate': 'Bearer realm="api", error="invalid_token"',
          'content-length': '0',
        },
      ])
    }
  })

  it('answers so behind a guard of the whole app, too, which has judged the key', async () => {
    const { http } = createProcess({}, (app, keys) => {
      app.use(keys.authenticate({ optional: true }))
      app.use('/leaks', keys.leakRouter())
    })
    const [good, bound] = [await createKey(), await createKey({ allowedIps: ['203.0.113.0/24'] })]
    const app = express()
      // A refusal of the guard is passed over, as an app may do.
      .use((req, _res, next) => {
        apiKeys.authenticateRequest(req).then(
          () => next(),
          () => next(),
        )
      })
      .use('/leaks', apiKeys.leakRouter())
    const statusIn = async (key: string) =>
      (await http.to(app).with(key).get('/leaks/status')).status

    expect((await http.with(good.plainTextKey).get('/leaks/status')).status).toBe(204)
    expect(await statusIn(bound.plainTextKey)).toBe(204)
    expect(await statusIn((await createKey({ status: 'REVOKED' })).plainTextKey)).toBe(401)
    expect(await statusIn(forgeKey())).toBe(401)
  })

  it('counts no use, and nothing towards a limit', async () => {
    const { id, plainTextKey } = await createKey()
    for (let time = 0; time < 5; time++) await statusOf(plainTextKey)
    await apiKeys.flush()

    const { accepted } = (await apiKeys.usage(id)).totals
    expect(accepted).toBe(0)
    expect((await apiKeys.get(id)).lastUsedAt).toBeNull()
    const verdict = await apiKeys.verify(plainTextKey)
    expect(verdict.valid && (await apiKeys.consume(verdict.apiKey))[0]?.remaining).toBe(0)
  })

  it('asks the database once about a key in use, and honours its revocation at once', async () => {
    const { id, plainTextKey } = await createKey()
    const process = createProcess({}, addLeaks)
    const ask = () => process.http.with(plainTextKey).get('/leaks/status')
    await ask()
    const before = process.statements.lookUps().length

    for (let time = 0; time < 20; time++) expect((await ask()).status).toBe(204)
    const lookUps = process.statements.lookUps().length - before
    await process.apiKeys.revoke(id)

    // A lease may lapse on a machine that is busy.
    expect(lookUps).toBeLessThan(20)
    expect((await ask()).status).toBe(401)
  })

  it('answers from every address, because a scanner is not where a key is used', async () => {
    const { plainTextKey } = await createKey({ allowedIps: ['203.0.113.7'] })

    expect((await statusOf(plainTextKey)).status).toBe(204)
  })

  it('answers 503 while the database is away', async () => {
    const away = createProcess({ sequelize: databaseAway.connect() }, addLeaks)

    expect((await away.http.with(forgeKey()).get('/leaks/status')).status).toBe(503)
    expect((await away.http.with('agpt_x').get('/leaks/status')).status).toBe(401)
  })

  it('leaves ten look-ups a second to made-up keys of an address', async () => {
    const strict = createProcess({ maxFailedAttemptsPerMinute: 5 }, addLeaks)
    const from = (address: string) =>
      strict.http.set({ 'X-Forwarded-For': address, ...bearer(forgeKey()) }).get('/leaks/status')
    for (let time = 0; time < 6; time++) expect((await from('203.0.113.7')).status).toBe(401)

    const answers = await Promise.all(Array.from({ length: 30 }, () => from('203.0.113.7')))

    const statuses = new Set(answers.map(({ status }) => status))
    expect(statuses).toEqual(new Set([401, 503]))
    expect((await from('203.0.113.8')).status).toBe(401)
  })
})
