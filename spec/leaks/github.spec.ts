import { hash } from 'node:crypto'

import express, { type Express } from 'express'

import type { ApiKeyNotices } from '../../lib'
import type { Options, TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { sample, useGithub } from '../support/github'
import { sendHalf } from '../support/half-sent'
import { forgeKey } from '../support/keys'
import { expectProblem } from '../support/problem'
import { sendRaw } from '../support/raw-http'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const github = useGithub()
const signWith = github.addKey('spec')
const world = useWorldForEach()

const url = 'https://github.com/octocat/Hello-World/blob/123456/foo.txt'

function addLeaks(given: object = {}) {
  return (app: Express, keys: TestApiKeys) => {
    const { publicKeysUrl } = github
    app.use('/leaks', keys.leakRouter({ github: { publicKeysUrl }, ...given }))
  }
}

const createReceiver = (options: Options = {}, given: object = {}) =>
  world.createProcess(options, addLeaks(given))

type Receiver = ReturnType<typeof createReceiver>

/** Sends a report as GitHub does. */
function report({ http }: Pick<Receiver, 'http'>, matches: unknown) {
  const body = typeof matches === 'string' ? matches : JSON.stringify(matches)
  return http.set(signWith(body)).post('/leaks/github', body)
}

const matchOf = (token: string, more: object = {}) => ({ token, type: 'acme_key', url, ...more })

describe('POST /github', () => {
  it('takes the sample of the documentation of GitHub, to the byte', async () => {
    const { http } = createReceiver()
    const { body, keyIdentifier, signature } = sample

    const answer = await http
      .set({
        'Content-Type': 'application/json',
        'Github-Public-Key-Identifier': keyIdentifier,
        'Github-Public-Key-Signature': signature,
      })
      .post('/leaks/github', body)

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual([
      {
        token_hash: hash('sha256', 'some_token'),
        token_type: 'some_type',
        label: 'false_positive',
      },
    ])
  })

  it('revokes a key, says where it was found, and reports it to the app', async () => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey()
    await apiKeys.verify(plainTextKey)
    const notices: ApiKeyNotices['exposed'][] = []
    const revoked: string[] = []
    apiKeys.on('exposed', (notice) => void notices.push(notice))
    apiKeys.on('revoked', ({ apiKey }) => void revoked.push(apiKey.id))

    const answer = await report(receiver, [matchOf(plainTextKey, { source: 'commit' })])

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual([
      { token_hash: hash('sha256', plainTextKey), token_type: 'acme_key', label: 'true_positive' },
    ])
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    const exposed = { at: expect.any(Date), source: 'github:commit', url }
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED', exposed })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'system',
      address: '127.0.0.1',
      reason: 'reported by the secret scanning of GitHub',
      after: { exposed: { source: 'github:commit', url } },
    })
    const before = { status: 'ACTIVE' }
    expect(notices).toMatchObject([{ apiKey: { id, exposed }, before, actor: { type: 'system' } }])
    expect(revoked).toEqual([id])
    expect((await apiKeys.verifyAuditTrail()).faults).toEqual([])
  })

  it('labels each text, and tolerates types and sources that are not known yet', async () => {
    const receiver = createReceiver()
    const { plainTextKey } = await receiver.createKey()
    const texts = [plainTextKey, forgeKey(), `${plainTextKey}x`, '', 'x'.repeat(10_000), '\0\ud800']

    const answer = await report(
      receiver,
      texts.map((token, at) => ({ token, type: at, source: ['?'], url: at, commit: {} })),
    )

    expect(answer.status).toBe(200)
    const labels = answer.body.map(({ label }: { label: string }) => label)
    expect(labels).toEqual(['true_positive', ...Array.from({ length: 5 }, () => 'false_positive')])
    const [first] = (await receiver.apiKeys.list()).apiKeys
    expect(first?.exposed).toEqual({ at: expect.any(Date), source: 'github', url: null })
  })

  it.each([
    ['a byte that was changed', () => ({ body: ' ' })],
    ['no signature', () => ({ fields: { 'Github-Public-Key-Signature': '' } })],
    [
      'the identifier of another key',
      () => ({ fields: { 'Github-Public-Key-Identifier': sample.keyIdentifier } }),
    ],
  ])('changes nothing for a report with %s', async (_, change) => {
    const { http, apiKeys, createKey } = createReceiver()
    const { id, plainTextKey } = await createKey()
    const body = JSON.stringify([matchOf(plainTextKey)])
    const { body: added = '', fields = {} } = change() as { body?: string; fields?: object }

    const answer = await http
      .set({ ...signWith(body), ...fields })
      .post('/leaks/github', body + added)

    expectProblem(answer, 'invalid_signature')
    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
  })

  it.each(['', '{', '{}', 'null', '"text"', '[1]', '[null]', '[{}]', '[{"token":7}]'])(
    'refuses a signed report of another form: %s',
    async (body) => {
      expectProblem(await report(createReceiver(), body), 'malformed_report')
    },
  )

  it('refuses a report that is too large', async () => {
    const answer = await report(createReceiver(), [matchOf('x'.repeat(4 * 1024 * 1024))])

    expect([answer.status, answer.body.code]).toEqual([413, 'body_too_large'])
  })

  it('takes a report that is sent again, at once or later, and changes nothing more', async () => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey()
    const matches = [matchOf(plainTextKey), matchOf(plainTextKey, { url: `${url}#2` })]
    const exposed: unknown[] = []
    apiKeys.on('exposed', (notice) => void exposed.push(notice))

    const answers = await Promise.all([1, 2, 3].map(() => report(receiver, matches)))
    answers.push(await report(receiver, matches))

    for (const answer of answers) expect(answer.text).toBe(answers[0]?.text)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events.map(({ action }) => action)).toEqual(['revoked', 'created'])
    expect(exposed).toHaveLength(1)
  })

  it('takes 1,000 keys in one report', async () => {
    const receiver = createReceiver({ maxKeysPerOwner: Infinity, maxExposedPerMinute: Infinity })
    const { apiKeys } = receiver
    const input = Array.from({ length: 1_000 }, (_, at) => ({
      userId: 'alice',
      name: `Key ${at}`,
      permissions: ['READ_GRAPH' as const],
    }))
    const { apiKeys: created } = await apiKeys.createMany(input)
    const matches = created.map(({ plainTextKey }) => matchOf(plainTextKey ?? ''))

    const answer = await report(receiver, matches)

    expect(new Set(answer.body.map(({ label }: { label: string }) => label))).toEqual(
      new Set(['true_positive']),
    )
    expect((await apiKeys.countRevocable({ type: 'user', id: 'alice' })).keys).toBe(0)
  })

  it('changes nothing if GitHub goes away half-way, and takes the whole report then', async () => {
    const receiver = createReceiver()
    const { app, apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey()
    const body = JSON.stringify([matchOf(plainTextKey)])
    await sendHalf(app, '/leaks/github', { fields: signWith(body), body })

    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
    await report(receiver, body)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('answers 503 while the database is away, and loses nothing', async () => {
    const away = createReceiver({ sequelize: databaseAway.connect() })
    const receiver = createReceiver()
    const { id, plainTextKey } = await receiver.createKey()
    const matches = [matchOf(plainTextKey)]

    const refused = await report(away, matches)

    expectProblem(refused, 'database_unavailable')
    expect(refused.headers['retry-after']).toBe('1')
    expect((await report(receiver, matches)).status).toBe(200)
    expect((await receiver.apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('answers 503 while the public keys of GitHub are unknown', async () => {
    const publicKeysUrl = 'http://127.0.0.1:1/'
    const receiver = createReceiver({}, { github: { publicKeysUrl } })

    const answer = await report(receiver, [])

    expectProblem(answer, 'report_unverifiable')
    expect(answer.headers['retry-after']).toBe('1')
  })

  it('refuses an address after 60 reports without a signature, before it reads more of them', async () => {
    const receiver = world.createProcess({}, (app, keys) => {
      app.set('trust proxy', 'loopback')
      addLeaks()(app, keys)
    })
    const { id, plainTextKey } = await receiver.createKey()
    const body = JSON.stringify([matchOf(plainTextKey)])
    const from = (address: string, fields: Record<string, string>, sent = body) =>
      receiver.http.set({ ...fields, 'X-Forwarded-For': address }).post('/leaks/github', sent)
    const wrong = [
      ['403', () => from('203.0.113.7', {})],
      ['403', () => from('203.0.113.7', { ...signWith(`${body} `) })],
      ['413', () => from('203.0.113.7', signWith(body), 'x'.repeat(4 * 1024 * 1024 + 1))],
    ] as const
    for (let count = 0; count < 60; count++) {
      const [status, send] = wrong[Math.min(count % 20, 2)] ?? wrong[0]
      expect(String((await send()).status)).toBe(status)
      // Signed reports do not count.
      if (count % 10 === 0) await from('203.0.113.7', signWith('[]'), '[]').expect(200)
    }

    await from('203.0.113.7', {}).expect(429)
    const answer = await from('203.0.113.7', signWith(body))

    expectProblem(answer, 'too_many_reports')
    expect(answer.headers['retry-after']).toMatch(/^3[56]\d\d$/)
    expect((await receiver.apiKeys.get(id)).status).toBe('ACTIVE')
    await from('140.82.115.1', signWith(body)).expect(200)
    expect((await receiver.apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('reads nothing of a report whose signature has no form or no key', async () => {
    const { app } = createReceiver()
    const open = { 'Content-Type': 'application/json', 'Content-Length': '1000' }

    for (const fields of [{}, { ...signWith('[]'), 'Github-Public-Key-Identifier': 'unknown' }]) {
      const lines = Object.entries({ ...open, ...fields }).map(
        ([name, value]) => `${name}: ${value}`,
      )
      // No byte of the body is sent.
      expect((await sendRaw(app, ['POST /leaks/github HTTP/1.1', ...lines])).status).toBe(403)
    }
  })

  it('needs the bytes of the body, and takes them from a parser that has kept them', async () => {
    const { apiKeys, http, createKey } = createReceiver()
    const { plainTextKey } = await createKey()
    const body = JSON.stringify([matchOf(plainTextKey)])
    const { publicKeysUrl } = github
    const over = (parser: express.RequestHandler) => {
      const app = express().use(parser, apiKeys.leakRouter({ github: { publicKeysUrl } }))
      const failures: string[] = []
      app.use(((error, _req, res, _next) => {
        failures.push((error as Error).message)
        res.status(500).end()
      }) as express.ErrorRequestHandler)
      return { failures, sent: http.to(app).set(signWith(body)).post('/github', body) }
    }

    const parsed = over(express.json())
    expect((await parsed.sent).status).toBe(500)
    expect(parsed.failures).toEqual([expect.stringContaining('Mount the router before')])
    const keeping = express.json({
      verify: (req, _res, bytes) => void Object.assign(req, { rawBody: bytes }),
    })
    expect((await over(keeping).sent).status).toBe(200)
    expect((await over(express.raw({ type: () => true })).sent).status).toBe(200)
    expect((await over(express.text({ type: () => true })).sent).status).toBe(200)
  })
})

describe('an exposed key', () => {
  it('may be suspended in place of its revocation, and is never reactivated', async () => {
    const receiver = createReceiver({}, { onExposed: 'suspend' })
    const { apiKeys, http, createKey } = receiver
    const { id, userId, path, plainTextKey } = await createKey()

    await report(receiver, [matchOf(plainTextKey)])

    expect(await apiKeys.get(id)).toMatchObject({ status: 'SUSPENDED', exposed: { url } })
    await expect(apiKeys.reactivate(id)).rejects.toMatchObject({ code: 'api_key_exposed' })
    expectProblem(await http.as(userId).post(`${path}/reactivate`), 'api_key_exposed')
    const byAdmin = await http.as('admin').post(`/admin${path}/reactivate`)
    expectProblem(byAdmin, 'api_key_exposed')
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    const sql = `UPDATE api_keys SET status = 'ACTIVE' WHERE id = '${id}'`
    await expect(world.rows(sql)).rejects.toThrow('violates check constraint')
    expect((await apiKeys.revoke(id)).status).toBe('REVOKED')
  })

  it.each(['SUSPENDED', 'REVOKED'] as const)('is marked if it was %s before', async (status) => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey({ status })

    const answer = await report(receiver, [matchOf(plainTextKey)])

    expect(answer.body[0].label).toBe('true_positive')
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED', exposed: { url } })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]?.action).toBe(status === 'REVOKED' ? 'exposed' : 'revoked')
    expect((await apiKeys.verifyAuditTrail()).faults).toEqual([])
  })

  it('is suspended above maxExposedPerMinute, stays so, and an event says it', async () => {
    const receiver = createReceiver({ maxExposedPerMinute: 2 })
    const { apiKeys, createKey } = receiver
    const keys = await Promise.all([1, 2, 3, 4, 5].map(() => createKey()))
    const reached: unknown[] = []
    apiKeys.on('exposure_limit_reached', (notice) => void reached.push(notice))

    await report(
      receiver,
      keys.map(({ plainTextKey }) => matchOf(plainTextKey)),
    )

    const records = await Promise.all(keys.map(({ id }) => apiKeys.get(id)))
    const suspended = records.filter(({ status }) => status === 'SUSPENDED')
    expect(records.filter(({ status }) => status === 'REVOKED')).toHaveLength(2)
    expect(suspended).toHaveLength(3)
    expect(reached).toEqual([{ source: 'github', suspended: 3 }])
    for (const { id, exposed } of suspended) {
      expect(exposed?.url).toBe(url)
      await expect(apiKeys.reactivate(id)).rejects.toMatchObject({ code: 'api_key_exposed' })
    }
  })

  it('goes on if the exposed secret works no longer', async () => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey()
    const { plainTextKey: next } = await apiKeys.rotate(id, { gracePeriodSeconds: 0 })

    const answer = await report(receiver, [matchOf(plainTextKey)])

    expect(answer.body[0].label).toBe('true_positive')
    expect(await apiKeys.verify(next)).toMatchObject({ valid: true })
    expect(await apiKeys.get(id)).not.toHaveProperty('exposed')
  })

  it('goes on without its old secret if that was exposed', async () => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const { id, plainTextKey } = await createKey()
    const { plainTextKey: next } = await apiKeys.rotate(id)

    await report(receiver, [matchOf(plainTextKey)])

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'retired' })
    expect(await apiKeys.verify(next)).toMatchObject({ valid: true })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'rotation_ended',
      reason: 'reported by the secret scanning of GitHub',
    })
  })

  it('has no key in the address of its place', async () => {
    const receiver = createReceiver()
    const { apiKeys, createKey } = receiver
    const [first, second, third] = await Promise.all([createKey(), createKey(), createKey()])

    await report(receiver, [
      matchOf(first.plainTextKey, { url: `https://example.com/?key=${first.plainTextKey}&x=1` }),
      matchOf(second.plainTextKey, { url: `https://example.com/${'x'.repeat(3_000)}` }),
      matchOf(third.plainTextKey, { url: 'https://example.com/\0\n' }),
    ])

    const urlOf = async ({ id }: { id: string }) => (await apiKeys.get(id)).exposed?.url
    const shown = first.plainTextKey.slice(0, 11)
    expect(await urlOf(first)).toBe(`https://example.com/?key=${shown}...&x=1`)
    expect([await urlOf(second), await urlOf(third)]).toEqual([null, null])
  })

  it('is refused by other processes', async () => {
    const receiver = createReceiver()
    const { plainTextKey } = await receiver.createKey()
    const other = world.createProcess()
    await other.apiKeys.verify(plainTextKey)

    await report(receiver, [matchOf(plainTextKey)])

    await until(async () => !(await other.apiKeys.verify(plainTextKey)).valid)
    expect(await other.apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })
})
