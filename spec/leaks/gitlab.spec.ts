import { randomUUID } from 'node:crypto'

import type { Express } from 'express'

import { sources } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { sendHalf } from '../support/half-sent'
import { forgeKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const token = 'a token of at least 16 characters'
const gitlab = { token }

function addLeaks(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use('/leaks', keys.leakRouter({ gitlab }))
  app.use('/named', keys.leakRouter({ gitlab: { token, types: ['gitleaks_rule_id_acme'] } }))
}

const { apiKeys, app, http, createKey, createProcess } = useWorld({ routes: addLeaks })
const location = 'https://gitlab.example.com/acme/app/-/blob/123456/foo.txt'
const type = 'gitleaks_rule_id_agpt_api_key'

/** Calls as the GitLab of the app, which sends its token without a scheme. */
const asGitlab = http.set({ Authorization: token })

describe('GET /revocable_token_types', () => {
  it('has a type for each prefix of keys, or the types that the app names', async () => {
    const answer = await asGitlab.get('/leaks/revocable_token_types')
    const named = await asGitlab.get('/named/revocable_token_types')

    expect([answer.status, answer.body]).toEqual([200, { types: [type] }])
    expect(named.body).toEqual({ types: ['gitleaks_rule_id_acme'] })
  })
})

describe('POST /revoke_tokens', () => {
  it('revokes the keys, and says where they were found', async () => {
    const { id, plainTextKey } = await createKey()

    const answer = await asGitlab.post('/leaks/revoke_tokens', [
      { type, token: plainTextKey, location },
      { type, token: forgeKey(), location: 7 },
    ])

    expect([answer.status, answer.text]).toEqual([204, ''])
    const exposed = { source: 'gitlab', url: location }
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED', exposed })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]?.reason).toBe('reported by the secret detection of GitLab')
    const again = await asGitlab.post('/leaks/revoke_tokens', [{ type, token: plainTextKey }])
    expect(again.status).toBe(204)
  })

  it.each([undefined, 7, '', 'gitleaks_rule_id_other', '__proto__'])(
    'revokes a key whatever its type is, and answers 400 to a type that it does not list: %j',
    async (other) => {
      const { id, plainTextKey } = await createKey()
      const tokens = [
        { type, token: forgeKey() },
        { type: other, token: plainTextKey },
      ]

      const answer = await asGitlab.post('/leaks/revoke_tokens', tokens)

      expect([answer.status, answer.body.code]).toEqual([400, 'unsupported_token_type'])
      expect((await apiKeys.get(id)).status).toBe('REVOKED')
    },
  )

  it('takes the types that the app names, and no others', async () => {
    const named = [{ type: 'gitleaks_rule_id_acme', token: 'x' }]
    const other = [{ type, token: 'x' }]

    expect((await asGitlab.post('/named/revoke_tokens', named)).status).toBe(204)
    expect((await asGitlab.post('/named/revoke_tokens', other)).status).toBe(400)
  })

  it('has types for former prefixes and for imported keys, as the rules for scanners name them', async () => {
    const imports = [sources.autogpt(), sources.knox()]
    const other = createProcess({ formerPrefixes: ['zenith'], imports }, addLeaks)

    const { body } = await other.http
      .set({ Authorization: token })
      .get('/leaks/revocable_token_types')

    expect(body.types).toEqual([
      'gitleaks_rule_id_agpt_api_key',
      'gitleaks_rule_id_zenith_api_key',
      'gitleaks_rule_id_autogpt_imported_key',
    ])
    for (const type of body.types) {
      const id = String(type).replace('gitleaks_rule_id_', '')
      expect(other.apiKeys.scannerRules('gitleaks')).toContain(`id = "${id}"`)
    }
  })

  it('changes nothing if GitLab goes away half-way, and takes the whole report then', async () => {
    const { id, plainTextKey } = await createKey()
    const body = JSON.stringify([{ type, token: plainTextKey, location }])

    await sendHalf(app, '/leaks/revoke_tokens', { fields: { Authorization: token }, body })

    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
    await asGitlab.post('/leaks/revoke_tokens').type('json').send(body)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('goes on if GitLab does not wait for the answer', async () => {
    const { id, plainTextKey } = await createKey()
    const body = JSON.stringify([{ type, token: plainTextKey, location }])

    await sendHalf(app, '/leaks/revoke_tokens', {
      fields: { Authorization: token },
      body,
      isWhole: true,
    })

    await until(async () => (await apiKeys.get(id)).status === 'REVOKED')
    expect((await apiKeys.get(id)).exposed?.url).toBe(location)
  })

  it.each([
    {},
    { tokens: [] },
    [1],
    [{}],
    [{ token: 7 }],
    Array.from({ length: 1_001 }, () => ({ token: 'x' })),
  ])('answers 400 to input of another form: %j', async (body) => {
    const answer = await asGitlab.post('/leaks/revoke_tokens', body)

    expect([answer.status, answer.body.code]).toEqual([400, 'malformed_report'])
  })

  it('answers 400 to a body that is no JSON', async () => {
    const answer = await asGitlab.post('/leaks/revoke_tokens').type('json').send('[')

    expect(answer.status).toBe(400)
  })

  it('answers 503 while the database is away, and loses nothing', async () => {
    const away = createProcess({ sequelize: databaseAway.connect() }, addLeaks)
    const { id, plainTextKey } = await createKey()
    const tokens = [{ type, token: plainTextKey }]

    const refused = await away.http
      .set({ Authorization: token })
      .post('/leaks/revoke_tokens', tokens)

    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '1'])
    expect((await asGitlab.post('/leaks/revoke_tokens', tokens)).status).toBe(204)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })
})

describe('the token of GitLab', () => {
  it.each(['', 'x', `${token}x`, token.toUpperCase(), `Basic ${token}`])(
    'is not %j',
    async (sent) => {
      const { id, plainTextKey } = await createKey()
      const caller = sent === '' ? http : http.set({ Authorization: sent })

      const types = await caller.get('/leaks/revocable_token_types')
      const answer = await caller.post('/leaks/revoke_tokens', [{ type, token: plainTextKey }])

      for (const { status, body } of [types, answer]) {
        expect([status, body.code]).toEqual([401, 'invalid_report_token'])
      }
      expect((await apiKeys.get(id)).status).toBe('ACTIVE')
    },
  )

  it('may come as a bearer token', async () => {
    const caller = http.set({ Authorization: `Bearer ${token}` })

    expect((await caller.get('/leaks/revocable_token_types')).status).toBe(200)
  })

  it('is guessed 600 times an hour from an address at most', async () => {
    const address = { 'X-Forwarded-For': '203.0.113.7' }
    const strict = createProcess({}, addLeaks).http
    for (let batch = 0; batch < 30; batch++) {
      await Promise.all(
        Array.from({ length: 20 }, () =>
          strict
            .set({ ...address, Authorization: randomUUID() })
            .get('/leaks/revocable_token_types'),
        ),
      )
    }

    const limited = await strict
      .set({ ...address, Authorization: token })
      .get('/leaks/revocable_token_types')
    const other = await strict
      .set({ 'X-Forwarded-For': '203.0.113.8', Authorization: token })
      .get('/leaks/revocable_token_types')

    expect([limited.status, limited.body.code]).toEqual([429, 'too_many_reports'])
    expect(other.status).toBe(200)
  })
})
