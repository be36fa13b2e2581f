import type { Express } from 'express'

import type { ImportSource } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { sendHalf } from '../support/half-sent'
import { forgeKey } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { until } from '../support/until'
import { useWorld } from '../support/world'

function addLeaks(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use('/leaks', keys.leakRouter({ reports: true }))
}

const { apiKeys, createKey, createProcess } = useWorld({ routes: addLeaks })
/** Reports from an address that has not called before. */
let calls = 0
const { app, http } = createProcess({}, addLeaks)
function send(body: unknown, receiver = http) {
  const address = `203.0.${Math.floor(++calls / 250)}.${calls % 250}`
  return receiver.set({ 'X-Forwarded-For': address }).post('/leaks/reports', body as object)
}

/** Reports nothing from an address. */
const from = (address: string) =>
  http.set({ 'X-Forwarded-For': address }).post('/leaks/reports', { credentials: ['x'] })

describe('POST /reports', () => {
  it('revokes the keys of everyone who knows them', async () => {
    const { id, plainTextKey } = await createKey()

    const answer = await send({ credentials: [plainTextKey] })

    expect(answer.status).toBe(202)
    expect(await apiKeys.get(id)).toMatchObject({
      status: 'REVOKED',
      exposed: { at: expect.any(Date), source: 'report', url: null },
    })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'system',
      address: expect.stringMatching(/^203\.0\./),
      reason: 'reported to the endpoint for exposed keys',
    })
  })

  it('answers alike whatever the credentials are, to the byte', async () => {
    const { plainTextKey } = await createKey()
    const { plainTextKey: revoked } = await createKey({ status: 'REVOKED' })
    const lists = [
      [plainTextKey],
      [plainTextKey],
      [revoked],
      [forgeKey()],
      ['x'],
      [''],
      ['x', plainTextKey],
    ]

    const answers = []
    for (const credentials of lists) answers.push(await send({ credentials }))

    for (const { status, text, headers } of answers) {
      expect([status, text]).toEqual([202, '{}'])
      const { date: _, ...others } = headers
      expect({ ...others, date: '' }).toEqual({ ...answers[0]?.headers, date: '' })
    }
  })

  it('takes a report that is sent twice at once', async () => {
    const { id, plainTextKey } = await createKey()

    const answers = await Promise.all([1, 2, 3, 4].map(() => send({ credentials: [plainTextKey] })))

    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202])
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events.map(({ action }) => action)).toEqual(['revoked', 'created'])
  })

  it.each([
    {},
    [],
    { credentials: 'x' },
    { credentials: [] },
    { credentials: [7] },
    { credentials: [['x']] },
    { credentials: Array.from({ length: 1_001 }, () => 'x') },
  ])('refuses input of another form: %j', async (body) => {
    expectFaults(await send(body), { '#/credentials': 'must be a list of 1 to 1,000 texts' })
  })

  it('takes 1,000 credentials, and no form', async () => {
    const answer = await send({ credentials: Array.from({ length: 1_000 }, () => forgeKey()) })
    const form = await http
      .set({ 'X-Forwarded-For': '203.0.113.1' })
      .post('/leaks/reports')
      .type('form')
      .send('credentials=x')

    expect(answer.status).toBe(202)
    expectProblem(form, 'unsupported_media_type')
  })

  it('takes 60 calls an hour from an address, good or bad', async () => {
    for (let time = 0; time < 60; time++) {
      expect((await from('198.51.100.7')).status).toBe(202)
    }

    const refused = await from('198.51.100.7')

    expectProblem(refused, 'too_many_reports')
    expect(refused.headers['retry-after']).toMatch(/^3[56]\d\d$/)
    expect((await from('198.51.100.8')).status).toBe(202)
  })

  it('answers 503 while the database is away, and loses nothing', async () => {
    const { id, plainTextKey } = await createKey()
    const away = createProcess({ sequelize: databaseAway.connect() }, addLeaks)

    expectProblem(await send({ credentials: [plainTextKey] }, away.http), 'database_unavailable')

    expect((await send({ credentials: [plainTextKey] })).status).toBe(202)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('changes nothing if the sender goes away half-way, and takes the whole report then', async () => {
    const { id, plainTextKey } = await createKey()
    const body = JSON.stringify({ credentials: [plainTextKey] })

    await sendHalf(app, '/leaks/reports', { body })

    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
    await send({ credentials: [plainTextKey] })
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('needs no credential, and minds none', async () => {
    const { id, plainTextKey } = await createKey()

    const answer = await http
      .set({ 'X-Forwarded-For': '203.0.113.2', ...bearer(plainTextKey) })
      .post('/leaks/reports', { credentials: ['x'] })

    expect(answer.status).toBe(202)
    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
  })
})

/** A text is compared with each of the ten keys that have its first digit. */
const keyOf = (at: number) => `salted_${at % 6}${1_000_000 + at}`

const rowOf = (key: string, salt: string) => ({
  stored: `${salt} ${key}`,
  salt,
  locator: key.slice(0, 8),
  userId: 'sally',
  permissions: ['READ_GRAPH'],
})

describe('keys with a salt in a report', () => {
  const running = { now: 0, most: 0, all: 0 }
  let beforeDeriving: ((key: string) => Promise<void>) | undefined
  const source: ImportSource = {
    name: 'salted',
    accepts: /^salted_[0-9]{8}$/,
    digest: { of: (text: string) => text.padEnd(32), read: () => null },
    locate: (key) => key.slice(0, 8),
    salted: {
      read: (derived, salt) => (salt === undefined ? null : { recipe: 'r', salt, derived }),
      async derive(key, _recipe, salt) {
        running.all++
        running.most = Math.max(running.most, ++running.now)
        await beforeDeriving?.(key)
        running.now--
        return `${salt} ${key}`
      },
    },
  }
  const receiver = createProcess({ imports: [source] }, addLeaks)
  const keys = Array.from({ length: 60 }, (_, at) => keyOf(at))

  beforeAll(async () => {
    const rows = keys.map((key, at) => rowOf(key, `salt ${at}`))
    await receiver.apiKeys.importKeys('salted', rows)
  })

  it('are revoked although one of them is used first in the midst of the report', async () => {
    const [used, other] = [keyOf(2_000), keyOf(2_001)]
    const upgraded: unknown[] = []
    receiver.apiKeys.on('upgraded', (notice) => void upgraded.push(notice))
    await receiver.apiKeys.importKeys(
      'salted',
      [used, other].map((key) => Object.assign(rowOf(key, 'own'), { userId: 'ute' })),
    )
    beforeDeriving = async (key) => {
      if (key !== other || upgraded.length > 0) return
      // From then on, the key has another hash.
      expect(await receiver.apiKeys.verify(used)).toMatchObject({ valid: true })
      await until(() => upgraded.length > 0)
    }

    expect((await send({ credentials: [used, other] }, receiver.http)).status).toBe(202)

    beforeDeriving = undefined
    expect(upgraded).toHaveLength(1)
    const { apiKeys: left } = await receiver.apiKeys.list({ userId: 'ute', status: 'ACTIVE' })
    expect(left).toEqual([])
  })

  it('are all revoked, one after the other', async () => {
    const { status } = await send({ credentials: keys }, receiver.http)

    const filter = { userId: 'sally', status: 'REVOKED', limit: 100 } as const
    const revoked = (await receiver.apiKeys.list(filter)).apiKeys
    expect([status, revoked.length, running.most]).toEqual([202, keys.length, 1])
  })

  it('count against the sender if they are none', async () => {
    const texts = Array.from({ length: 1_000 }, (_, at) => keyOf(1_000 + at))
    const before = running.all

    const answer = await send({ credentials: texts }, receiver.http)

    expectProblem(answer, 'too_many_lookups')
    expect(running.all - before).toBeLessThan(10 * texts.length)
    expect((await send({ credentials: ['x'] }, receiver.http)).status).toBe(202)
  })
})
