import { randomBytes } from 'node:crypto'

import type { Express } from 'express'

import type { ImportSource } from '../../lib'
import type { Options, TestApiKeys } from '../support/app'
import { bearer } from '../support/http'
import { vectors, type Vector } from '../support/imported-keys'
import { until } from '../support/until'
import { useWorld, type World } from '../support/world'

/** A vector for each source. Some sources store keys in two ways. */
const perSource = Object.values(vectors).filter(
  ({ source }, at, all) => all.findIndex((other) => other.source.name === source.name) === at,
)
const salted = Object.values(vectors).find(({ row }) => row.salt !== undefined)
const imports = perSource.map(({ source }) => source)
const named = perSource.map((vector): [string, Vector] => [vector.source.name, vector])

const gitlabToken = 'a token of at least 16 characters'

function addLeaks(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use('/leaks', keys.leakRouter({ reports: true, gitlab: { token: gitlabToken } }))
  app.use('/oauth', keys.tokenRouter())
  app.get('/graphs', keys.authenticate(), (_req, res) => void res.json({}))
}

/** Gives a group of specs an app with a key of each source, whose owner has the name of the source. */
function useImported(options: Options = {}) {
  const world = useWorld({ options: { imports, ...options }, routes: addLeaks })
  beforeAll(async () => {
    for (const { source, row } of perSource) {
      await world.apiKeys.importKeys(source.name, [{ ...row, userId: source.name }])
    }
  })
  return world
}

async function keyOf({ apiKeys }: Pick<World, 'apiKeys'>, { source }: Vector) {
  const { apiKeys: found } = await apiKeys.list({ userId: source.name })
  const [key] = found
  if (!key) throw new Error(`There is no key of ${source.name}`)
  return key
}

describe('a report of an imported key', () => {
  const world = useImported()
  let calls = 0
  const report = (credentials: string[]) =>
    world.http
      .set({ 'X-Forwarded-For': `203.0.113.${++calls}` })
      .post('/leaks/reports', { credentials })

  it.each(named)('revokes it: %s', async (_, vector) => {
    await report(vector.nearMisses)
    expect((await keyOf(world, vector)).status).toBe('ACTIVE')

    const answer = await report([vector.key])

    expect([answer.status, answer.text]).toEqual([202, '{}'])
    expect(await keyOf(world, vector)).toMatchObject({
      status: 'REVOKED',
      exposed: { source: 'report' },
    })
    expect(await world.apiKeys.verify(vector.key)).toMatchObject({ valid: false })
  })
})

describe('the place of an imported key', () => {
  const world = useImported()

  it.each(named)('is kept without the key: %s', async (_, vector) => {
    const { key: token } = vector
    const location = `https://git.example.com/a?k=${token}&l=${encodeURIComponent(token)}#${token}`

    await world.http
      .set({ Authorization: gitlabToken })
      .post('/leaks/revoke_tokens', [{ token, location }])

    const { exposed } = await keyOf(world, vector)
    const mask = `${token.slice(0, 6)}...`
    expect(exposed?.url).toBe(`https://git.example.com/a?k=${mask}&l=${mask}#${mask}`)
  })
})

describe('the status of an imported key', () => {
  const world = useImported()
  const statusOf = async (key: string) => (await world.http.with(key).get('/leaks/status')).status

  it.each(named)('is told: %s', async (_, vector) => {
    expect(await statusOf(vector.key)).toBe(204)
    for (const text of vector.nearMisses) expect(await statusOf(text)).toBe(401)

    await world.apiKeys.revoke((await keyOf(world, vector)).id)
    expect(await statusOf(vector.key)).toBe(401)
  })

  it('counts no use, and leaves a salted key as it is', async () => {
    if (!salted) throw new Error('There is no salted key')
    await world.apiKeys.flush()

    const { id, lastUsedAt } = await keyOf(world, salted)
    expect(lastUsedAt).toBeNull()
    const { events } = await world.apiKeys.events({ apiKeyId: id })
    expect(events.map(({ action }) => action)).not.toContain('upgraded')
  })
})

describe('an imported key that is revoked by itself', () => {
  const world = useImported()

  it.each(named)('is revoked: %s', async (_, vector) => {
    const revoke = (token: string) => world.http.post('/oauth/revoke').type('form').send({ token })
    for (const text of vector.nearMisses) await revoke(text)
    expect((await keyOf(world, vector)).status).toBe('ACTIVE')

    expect((await revoke(vector.key)).status).toBe(200)

    expect((await keyOf(world, vector)).status).toBe('REVOKED')
  })
})

describe('an imported key that is sent over plain HTTP', () => {
  const world = useImported({ insecureTransport: 'revoke' })

  it.each(named)('is revoked: %s', async (_, vector) => {
    const answer = await world.http
      .set({ 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'http', ...bearer(vector.key) })
      .get('/graphs')

    expect([answer.status, answer.body.code]).toEqual([403, 'insecure_transport'])
    await until(async () => (await keyOf(world, vector)).status === 'REVOKED')
    expect((await keyOf(world, vector)).exposed?.source).toBe('plain_http')
  })
})

/** A source whose keys with a salt take until the gate is open. */
const gate = { running: 0, most: 0, opened: Promise.resolve(), open() {} }
const slow: ImportSource = {
  name: 'slow',
  accepts: /^slow_[0-9]{8}$/,
  digest: { of: (text: string) => text.padEnd(32), read: () => null },
  locate: (key) => key.slice(0, 6),
  salted: {
    read: (derived, salt) => (salt === undefined ? null : { recipe: 'r', salt, derived }),
    async derive(key, _recipe, salt) {
      gate.most = Math.max(gate.most, ++gate.running)
      await gate.opened
      gate.running--
      return `${salt} ${key}`
    },
  },
}

/** A text of the form of Knox's keys. */
function madeUp() {
  return randomBytes(32).toString('hex')
}

describe('made-up texts that look like imported keys', () => {
  const world = useWorld({ options: { imports: [...imports, slow] }, routes: addLeaks })
  const statusFrom = (address: string, key: string) =>
    world.http.set({ 'X-Forwarded-For': address, ...bearer(key) }).get('/leaks/status')

  const lookUps = () => world.statements.lookUps().length

  beforeAll(async () => {
    const row = { userId: 'alice', permissions: ['READ_GRAPH'] }
    const key = { stored: 'salt slow_10000000', salt: 'salt', locator: 'slow_1' }
    await world.apiKeys.importKeys('slow', [{ ...row, ...key }])
  })

  it('cost no query once all imported keys are known', async () => {
    await until(async () => {
      const before = lookUps()
      await statusFrom('203.0.113.250', madeUp())
      return lookUps() === before
    })
    const before = lookUps()

    const answers = await Promise.all(
      Array.from({ length: 30 }, () => statusFrom('203.0.113.9', madeUp())),
    )

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([401]))
    expect(lookUps()).toBe(before)
  })

  it('have two salts tried at once, and one for an address, and are refused above 20 that wait', async () => {
    gate.opened = new Promise((resolve) => (gate.open = resolve))
    const codes: number[] = []
    const trials = Array.from({ length: 30 }, async (_, at) => {
      const { status } = await statusFrom(`203.0.113.${at % 2}`, `slow_1000${1_000 + at}`)
      codes.push(status)
    })

    await until(() => codes.length === 8)
    expect(new Set(codes)).toEqual(new Set([503]))
    gate.open()
    await Promise.all(trials)

    expect(codes.filter((status) => status === 401)).toHaveLength(22)
    expect(gate.most).toBe(2)
    expect((await statusFrom('203.0.113.250', 'slow_10000000')).status).toBe(204)
  })

  it('count against their sender', async () => {
    const strict = world.createProcess({ imports: [slow], maxFailedAttemptsPerMinute: 2 }, addLeaks)
    const sending = (key: string) =>
      strict.http.set({ 'X-Forwarded-For': '203.0.113.7', ...bearer(key) })
    for (const at of [1, 2, 3]) await sending(`slow_1000100${at}`).get('/leaks/status')

    const malformed = await sending('agpt_x').get('/graphs')

    expect(malformed.status).toBe(429)
  })
})
