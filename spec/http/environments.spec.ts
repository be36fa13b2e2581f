import express, { type RequestHandler } from 'express'
import { Passport } from 'passport'

import type { ApiKeyNotices } from '../../lib'
import { environmentOptions, newKeyOf, withEnvironments } from '../support/environments'
import { bearer } from '../support/http'
import { expectFaults, expectProblem } from '../support/problem'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const show: RequestHandler = (req, res) => {
  res.json({ apiKey: req.apiKey ?? null, authorization: req.headers.authorization ?? null })
}

const world = useWorld({
  options: environmentOptions(),
  routes(app, given) {
    const { requirePermission, authenticate, authenticateRequest, strategy } =
      withEnvironments(given)
    const passport = new Passport().use(strategy)
    app.get('/live', requirePermission('READ_GRAPH'), show)
    app.get('/test', requirePermission('READ_GRAPH', { environment: 'test' }), show)
    app.get('/both', authenticate({ environment: ['test', 'live'] }), show)
    app.get('/optional', authenticate({ optional: true }), show)
    app.get('/page', requirePermission('READ_GRAPH', { orSignedIn: true }), show)
    app.get('/execute', requirePermission('EXECUTE_GRAPH'), show)
    app.get('/narrowed', authenticate({ environment: ['test', 'live'] }), authenticate(), show)
    app.get('/passport', passport.authenticate('api-key', { session: false }), show)
    // The types of Passport know no options of strategies.
    const testKeys: object = { session: false, environment: 'test' }
    app.get('/passport/test', passport.authenticate('api-key', testKeys), show)
    const typo: object = { ...testKeys, environment: 'tset' }
    app.get('/passport/typo', passport.authenticate('api-key', typo), show)
    app.get('/call', async (req, res, next) => {
      try {
        res.json(await authenticateRequest(req, { environment: 'test' }))
      } catch (error) {
        next(error)
      }
    })
  },
})
const { http, rows } = world
const apiKeys = withEnvironments(world.apiKeys)
const alice = http.as('alice')
const admin = http.as('admin')
const input = { name: 'CI', permissions: ['READ_GRAPH'] }

function idsOf({ body }: { body: { apiKeys: { id: string }[] } }) {
  return body.apiKeys.map(({ id }) => id)
}

async function keyOf(environment: 'live' | 'test', wishes: Parameters<typeof newKeyOf>[1] = {}) {
  return apiKeys.create(newKeyOf(environment, wishes))
}

describe('a key of an environment', () => {
  it('is created for the environment that the body names, by its owner and by an administrator', async () => {
    const own = await alice.post('/api-keys', { ...input, environment: 'test' })
    const given = await admin.post('/admin/api-keys', {
      ...input,
      userId: 'bob',
      environment: 'live',
    })

    expect(own.status).toBe(201)
    expect(own.body).toMatchObject({ apiKey: { environment: 'test', userId: 'alice' } })
    expect(own.body.plainTextKey).toMatch(/^acme_test_[0-9A-Za-z]{51}$/)
    expect(given.body).toMatchObject({ apiKey: { environment: 'live', userId: 'bob' } })
    expect(given.body.plainTextKey).toMatch(/^acme_live_[0-9A-Za-z]{51}$/)
  })

  it.each([
    ['one that the app does not have', 'staging', 'must be one of live, test'],
    ['a list', ['live'], 'must be one of live, test'],
    ['null', null, 'must be one of live, test'],
    ['a name of an object', '__proto__', 'must be one of live, test'],
  ])('is not created for %s', async (_, environment, message) => {
    const own = await alice.post('/api-keys', { ...input, environment })
    const given = await admin.post('/admin/api-keys', { ...input, userId: 'bob', environment })

    expectFaults(own, { '#/environment': message })
    expectFaults(given, { '#/environment': message })
  })

  it('is created for the accepted environment if the body names none, and for none if several are accepted', async () => {
    const undecided = world.createProcess(
      environmentOptions({ acceptedEnvironments: ['live', 'test'] }),
    ).http

    expect((await alice.post('/api-keys', input)).body).toMatchObject({
      apiKey: { environment: 'live', prefix: expect.stringMatching(/^acme_live_/) },
    })
    expectFaults(await undecided.as('alice').post('/api-keys', input), {
      '#/environment': 'is required',
    })
    expectFaults(await undecided.as('admin').post('/admin/api-keys', { ...input, userId: 'bob' }), {
      '#/environment': 'is required',
    })
  })

  it('is created with many others, each in its own environment', async () => {
    const made = await admin.post('/admin/api-keys/batch', {
      apiKeys: [
        { ...input, userId: 'grace', environment: 'live' },
        { ...input, userId: 'grace', environment: 'test' },
      ],
    })
    const refused = await admin.post('/admin/api-keys/batch', {
      apiKeys: [
        { ...input, userId: 'grace', environment: 'live' },
        { ...input, userId: 'grace', environment: 'staging' },
      ],
    })

    expect(made.status).toBe(201)
    expect(made.body.apiKeys).toMatchObject([
      { apiKey: { environment: 'live' }, plainTextKey: expect.stringMatching(/^acme_live_/) },
      { apiKey: { environment: 'test' }, plainTextKey: expect.stringMatching(/^acme_test_/) },
    ])
    expectFaults(refused, { '#/apiKeys/1/environment': 'must be one of live, test' })
  })

  it('never changes its environment', async () => {
    const { apiKey } = await keyOf('test')

    const patched = await alice.patch(`/api-keys/${apiKey.id}`, { environment: 'live' })
    const rotated = await alice.post(`/api-keys/${apiKey.id}/rotate`, { environment: 'live' })
    const permitted = await alice.put(`/api-keys/${apiKey.id}/permissions`, {
      permissions: ['READ_GRAPH'],
      environment: 'live',
    })

    expectFaults(patched, { '#/environment': 'never changes: create another key instead' })
    expectFaults(rotated, { '#/environment': 'is not known here' })
    expectFaults(permitted, { '#/environment': 'is not known here' })
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
  })

  it('is rotated within its environment', async () => {
    const { apiKey, plainTextKey } = await keyOf('test')

    const { body } = await alice.post(`/api-keys/${apiKey.id}/rotate`, {})

    expect(body.apiKey).toMatchObject({ id: apiKey.id, environment: 'test' })
    expect(body.plainTextKey).toMatch(/^acme_test_/)
    for (const key of [plainTextKey, String(body.plainTextKey)]) {
      expect(
        await http
          .with(key)
          .get('/test')
          .then(({ status }) => status),
      ).toBe(200)
      expectProblem(await http.with(key).get('/live'), 'environment_not_allowed')
    }
  })

  it('is listed by its environment, to its owner and to administrators', async () => {
    const live = await keyOf('live', { userId: 'heidi' })
    const test = await keyOf('test', { userId: 'heidi' })
    const heidi = http.as('heidi')

    expect(idsOf(await heidi.get('/api-keys'))).toEqual([test.apiKey.id, live.apiKey.id])
    expect(idsOf(await heidi.get('/api-keys', { environment: 'test' }))).toEqual([test.apiKey.id])
    expect(idsOf(await heidi.get('/api-keys', { environment: 'live', sort: 'name' }))).toEqual([
      live.apiKey.id,
    ])
    const found = await admin.get('/admin/api-keys', { environment: 'live', userId: 'heidi' })
    expect(idsOf(found)).toEqual([live.apiKey.id])
    expectFaults(await heidi.get('/api-keys', { environment: 'staging' }), {
      '#/environment': 'must be one of live, test',
    })
  })
})

describe('a guard', () => {
  it('takes the accepted environments, or those that it names', async () => {
    const live = (await keyOf('live')).plainTextKey
    const test = (await keyOf('test')).plainTextKey
    const status = async (path: string, key: string) => (await http.with(key).get(path)).status

    expect([await status('/live', live), await status('/live', test)]).toEqual([200, 403])
    expect([await status('/test', live), await status('/test', test)]).toEqual([403, 200])
    expect([await status('/both', live), await status('/both', test)]).toEqual([200, 200])
    expect([await status('/optional', live), await status('/optional', test)]).toEqual([200, 403])
    expect([await status('/narrowed', live), await status('/narrowed', test)]).toEqual([200, 403])
    expect((await http.get('/optional')).body).toEqual({ apiKey: null, authorization: null })
  })

  it('answers 403 without a challenge, before it looks at permissions', async () => {
    const { plainTextKey, apiKey } = await keyOf('test')
    const denied: ApiKeyNotices['denied'][] = []
    const off = apiKeys.on('denied', (notice) => denied.push(notice))

    expectProblem(await http.with(plainTextKey).get('/execute'), 'environment_not_allowed')
    off()

    expect(denied).toMatchObject([
      { apiKey: { id: apiKey.id }, error: { code: 'environment_not_allowed' }, reason: null },
    ])
    await until(async () => (await apiKeys.usage(apiKey.id)).totals.denied === 1)
  })

  it('refuses a key of another environment also from a user who is signed in', async () => {
    const { plainTextKey } = await keyOf('test')

    const answer = await http.set({ ...bearer(plainTextKey), 'X-User': 'alice' }).get('/page')

    expectProblem(answer, 'environment_not_allowed')
    expect((await alice.get('/page')).status).toBe(200)
  })

  it('says in which environment a key is', async () => {
    const test = await keyOf('test')
    const live = await keyOf('live')

    expect((await http.with(test.plainTextKey).get('/both')).body).toMatchObject({
      apiKey: { id: test.apiKey.id, environment: 'test' },
      authorization: `Bearer ${test.apiKey.prefix}...`,
    })
    expect((await http.with(live.plainTextKey).get('/live')).body).toMatchObject({
      apiKey: { environment: 'live' },
    })
  })

  it('refuses to be made for an environment that the app does not have, or for none', () => {
    const { requirePermission, authenticate } = world.apiKeys

    const typo = { environment: 'tset' } as never
    expect(() => requirePermission('READ_GRAPH', typo)).toThrow(
      new TypeError(
        'requirePermission: "tset" is not one of the app\'s environments. Did you mean test?',
      ),
    )
    expect(() => authenticate({ environment: [] } as never)).toThrow(
      new TypeError('authenticate: needs at least one environment'),
    )
  })
})

describe('authenticateRequest, verify and the strategy', () => {
  it('take the keys of the environments that they name, else of the accepted ones', async () => {
    const live = (await keyOf('live')).plainTextKey
    const test = (await keyOf('test')).plainTextKey
    const refused = { valid: false, code: 'environment_not_allowed' }

    expect((await http.with(test).get('/call')).body).toMatchObject({ environment: 'test' })
    expect((await http.with(live).get('/call')).status).toBe(500)
    expect(await apiKeys.verify(live)).toMatchObject({
      valid: true,
      apiKey: { environment: 'live' },
    })
    expect(await apiKeys.verify(test)).toEqual(refused)
    expect(await apiKeys.verify(test, { environment: 'test' })).toMatchObject({ valid: true })
    expect(await apiKeys.verify(live, { environment: 'test' })).toEqual(refused)
    expect(await apiKeys.verify(test, { environment: ['live', 'test'] })).toMatchObject({
      valid: true,
    })
    await expect(apiKeys.verify(test, { environment: 'tset' } as never)).rejects.toThrow(TypeError)
  })

  it('answer 403 without a challenge with Passport', async () => {
    const live = (await keyOf('live')).plainTextKey
    const test = (await keyOf('test')).plainTextKey

    const answers = [
      await http.with(live).get('/passport'),
      await http.with(test).get('/passport'),
      await http.with(test).get('/passport/test'),
      await http.with(live).get('/passport/test'),
      await http.with(live).get('/passport/typo'),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 403, 200, 403, 500])
    expect(answers[1]?.headers['www-authenticate']).toBeUndefined()
    expect(answers[2]?.body).toMatchObject({ apiKey: { environment: 'test' } })
  })
})

describe('the row of a key and its prefix', () => {
  it('have to name one environment, whatever the options say later', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
    const { live, test } = {
      live: await keyOf('live', { userId: 'ivan' }),
      test: await keyOf('test', { userId: 'ivan' }),
    }
    const swapped = world.createProcess(
      environmentOptions({
        environments: { live: 'acme_test', test: 'acme_live' },
        acceptedEnvironments: ['live', 'test'],
      }),
      (app, { authenticate }) => app.get('/both', authenticate(), show),
    )

    for (const { plainTextKey } of [live, test]) {
      expectProblem(await swapped.http.with(plainTextKey).get('/both'), 'invalid_api_key')
      expect(await swapped.apiKeys.verify(plainTextKey)).toEqual({
        valid: false,
        code: 'environment_mismatch',
      })
    }

    const { refusedKeys = [] } = await swapped.apiKeys.health({ livingKeys: true })
    expect(refusedKeys).toContainEqual({
      keyPrefix: 'acme_live',
      environment: 'live',
      keys: expect.any(Number),
    })
    expect(warnings.mock.calls.map(([, options]) => options)).toContainEqual(
      expect.objectContaining({ code: 'API_KEYS_ENVIRONMENT_MISMATCH' }),
    )
    expect((await apiKeys.health({ livingKeys: true })).refusedKeys).toEqual([])

    // A rotation gives it the prefix that its environment has now, and no key of another environment.
    const rotated = await swapped.apiKeys.rotate(test.apiKey.id)
    expect(rotated.plainTextKey).toMatch(/^acme_live_/)
    expect(await apiKeys.verify(rotated.plainTextKey, { environment: ['live', 'test'] })).toEqual({
      valid: false,
      code: 'environment_mismatch',
    })
    warnings.mockRestore()
  })

  it('have to agree for the old secret of a rotation as well', async () => {
    const { apiKey, plainTextKey } = await keyOf('test', { userId: 'judy' })
    await apiKeys.rotate(apiKey.id)
    const moved = world.createProcess(
      environmentOptions({
        environments: {
          live: { prefix: 'acme_live', formerPrefixes: ['acme_test'] },
          test: 'acme_new',
        },
        acceptedEnvironments: ['live', 'test'],
      }),
    ).apiKeys
    const { plainTextKey: young } = await moved.rotate(apiKey.id)

    expect(young).toMatch(/^acme_new_/)
    expect(await moved.verify(young)).toMatchObject({
      valid: true,
      apiKey: { environment: 'test' },
    })
    expect(await moved.verify(plainTextKey)).toMatchObject({ valid: false })
  })

  it('abort signals once they disagree', async () => {
    const { apiKey, plainTextKey } = await keyOf('live', { userId: 'mallory' })
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error('the key is not valid')
    const { signal } = verdict.apiKey
    const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve))

    await rows(`UPDATE api_keys SET environment = 'test' WHERE id = '${apiKey.id}'`)

    await aborted
    expect(signal.reason).toMatchObject({ code: 'invalid_api_key' })
    expect(await apiKeys.verify(plainTextKey)).toEqual({
      valid: false,
      code: 'environment_mismatch',
    })
  })

  it('leave a key from before there were environments to its prefix', async () => {
    const before = world.createProcess({ keyPrefix: 'oldtest' }).apiKeys
    const { apiKey, plainTextKey } = await before.create({
      userId: 'niaj',
      name: 'Old',
      permissions: ['READ_GRAPH'],
    })
    expect(apiKey).not.toHaveProperty('environment')

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ code: 'environment_not_allowed' })
    expect(await apiKeys.verify(plainTextKey, { environment: 'test' })).toMatchObject({
      valid: true,
    })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ environment: 'test' })
    expect((await apiKeys.list({ environment: 'test', userId: 'niaj' })).apiKeys).toHaveLength(1)
    expect((await apiKeys.list({ environment: 'live', userId: 'niaj' })).apiKeys).toHaveLength(0)

    const rotated = await apiKeys.rotate(apiKey.id)
    expect(rotated.plainTextKey).toMatch(/^acme_test_/)
    for (const key of [plainTextKey, rotated.plainTextKey]) {
      expect(await apiKeys.verify(key, { environment: 'test' })).toMatchObject({ valid: true })
    }
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('leave a key whose environment is gone refused, and without a new secret', async () => {
    const { apiKey, plainTextKey } = await keyOf('test', { userId: 'olivia' })
    const renamed = world.createProcess(
      environmentOptions({
        environments: { live: 'acme_live', sandbox: 'acme_test' },
        acceptedEnvironments: ['live', 'sandbox'],
      }),
    )

    expect(await renamed.apiKeys.verify(plainTextKey)).toMatchObject({
      code: 'environment_mismatch',
    })
    expectProblem(
      await renamed.http.as('olivia').post(`/api-keys/${apiKey.id}/rotate`, {}),
      'unknown_environment',
    )
    expect((await renamed.apiKeys.revoke(apiKey.id)).status).toBe('REVOKED')
  })
})

describe('an app without environments', () => {
  const plain = world.createProcess({ keyPrefix: 'plain' })

  it('has no trace of them', async () => {
    const answer = await plain.http.as('alice').post('/api-keys', input)

    expect(answer.status).toBe(201)
    expect(answer.body.apiKey).not.toHaveProperty('environment')
    expectFaults(
      await plain.http.as('alice').post('/api-keys', { ...input, environment: 'live' }),
      {
        '#/environment': 'is not known here',
      },
    )
    expectFaults(await plain.http.as('alice').get('/api-keys', { environment: 'live' }), {
      '#/environment': 'is not known here',
    })
    expectFaults(
      await plain.http
        .as('alice')
        .patch(`/api-keys/${answer.body.apiKey.id}`, { environment: 'live' }),
      { '#/environment': 'is not known here' },
    )
    expect(() => plain.apiKeys.authenticate({ environment: 'live' } as never)).toThrow(
      new TypeError('authenticate: environment needs the option environments of createApiKeys'),
    )
    const { plainTextKey } = answer.body
    await expect(
      plain.apiKeys.verify(plainTextKey, { environment: 'live' } as never),
    ).rejects.toThrow(
      new TypeError('verify: environment needs the option environments of createApiKeys'),
    )
    const verdict = await plain.apiKeys.verify(plainTextKey)
    expect(verdict).toMatchObject({ valid: true })
    expect(verdict).not.toHaveProperty('apiKey.environment')
  })
})

describe('an app with one environment', () => {
  it('gives it to keys that name none', async () => {
    const { apiKeys: one } = world.createProcess(
      environmentOptions({ environments: { only: 'acme_only' }, acceptedEnvironments: ['only'] }),
    )

    const { apiKey, plainTextKey } = await one.create({
      userId: 'alice',
      name: 'CI',
      permissions: ['READ_GRAPH'],
    })

    expect(apiKey).toMatchObject({ environment: 'only' })
    expect(await one.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { environment: 'only' },
    })
  })
})

it('masks keys with all prefixes, former ones too', async () => {
  const seen = express().use(world.apiKeys.maskKeys(), show)
  const body = 'k'.repeat(51)

  for (const prefix of ['acme_live', 'acme_test', 'acme', 'oldtest']) {
    const answer = await http.to(seen).with(`${prefix}_${body}`).get('/')
    expect(answer.body.authorization).toBe(`Bearer ${prefix}_kkkkkk...`)
  }
})
