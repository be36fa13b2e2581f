import type { Express } from 'express'

import type { TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { sendHalf } from '../support/half-sent'
import { forgeKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

function addTokens(app: Express, keys: TestApiKeys) {
  app.set('trust proxy', 'loopback')
  app.use('/oauth', keys.tokenRouter())
}

const world = useWorld({ documented: { tokenRouter: '/oauth' }, routes: addTokens })
const { apiKeys, http, rows, createKey, createProcess, holdLock, sequelize } = world

function revoke(token: string, to = http, headers: Record<string, string> = {}) {
  return to.set(headers).post('/oauth/revoke').type('form').send({ token })
}

async function actionsOf(apiKeyId: string) {
  const { events } = await apiKeys.events({ apiKeyId })
  return events.map(({ action }) => action)
}

describe('POST /revoke', () => {
  it('revokes the key of everyone who knows it, and the trail says how', async () => {
    const { id, plainTextKey } = await createKey()
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)

    const answer = await revoke(plainTextKey, http, { 'X-Forwarded-For': '203.0.113.7' })

    expect([answer.status, answer.text]).toEqual([200, ''])
    expect(answer.headers['cache-control']).toBe('no-store')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
    expect(await apiKeys.get(id)).not.toHaveProperty('exposed')
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'system',
      address: '203.0.113.7',
      reason: 'revoked with the key itself',
    })
  })

  it('answers alike whatever the token is, to the byte', async () => {
    const { plainTextKey } = await createKey()
    const deleted = await createKey()
    await rows(`DELETE FROM api_keys WHERE id = '${deleted.id}'`)
    const tokens = [
      plainTextKey,
      plainTextKey,
      (await createKey({ status: 'REVOKED' })).plainTextKey,
      (await createKey({ status: 'SUSPENDED' })).plainTextKey,
      deleted.plainTextKey,
      forgeKey(),
      'x',
      'eyJhbGciOiJub25lIn0.e30.',
      'x'.repeat(30_000),
    ]

    const answers = []
    for (const token of tokens) answers.push(await revoke(token))

    for (const { status, text, headers } of answers) {
      expect([status, text]).toEqual([200, ''])
      expect({ ...headers, date: '' }).toEqual({ ...answers[0]?.headers, date: '' })
    }
  })

  it('changes a revoked key no more', async () => {
    const { id, plainTextKey } = await createKey()
    await revoke(plainTextKey)
    const { revokedAt } = await apiKeys.get(id)

    await revoke(plainTextKey)

    expect((await apiKeys.get(id)).revokedAt).toEqual(revokedAt)
    expect(await actionsOf(id)).toEqual(['revoked', 'created'])
  })

  it('takes a token that is sent many times at once', async () => {
    const { id, plainTextKey } = await createKey()

    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => revoke(plainTextKey)))

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect(await actionsOf(id)).toEqual(['revoked', 'created'])
  })

  it('revokes suspended keys, expired keys, and keys of other addresses', async () => {
    const suspended = await createKey({ status: 'SUSPENDED' })
    const expired = await createKey()
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    const elsewhere = await createKey({ allowedIps: ['203.0.113.7'] })

    for (const { id, plainTextKey } of [suspended, expired, elsewhere]) {
      await revoke(plainTextKey)
      expect((await apiKeys.get(id)).status).toBe('REVOKED')
    }
  })

  it('ends an old secret, and leaves the key its new one', async () => {
    const { id, plainTextKey: old } = await createKey()
    const { plainTextKey: current } = await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })

    await revoke(old)

    expect((await apiKeys.verify(old)).valid).toBe(false)
    expect((await apiKeys.verify(current)).valid).toBe(true)
    expect((await actionsOf(id))[0]).toBe('rotation_ended')

    await revoke(current)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('takes a secret that ended before for no proof', async () => {
    const { id, plainTextKey: first } = await createKey()
    const { plainTextKey: second } = await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })
    await apiKeys.rotate(id, { gracePeriodSeconds: 0 })

    expect((await revoke(first)).status).toBe(200)
    expect((await revoke(second)).status).toBe(200)

    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it('leaves an old secret its time if an older one is sent', async () => {
    const { id, plainTextKey: first } = await createKey()
    const { plainTextKey: second } = await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })
    expect((await apiKeys.verify(second)).valid).toBe(true)
    const { plainTextKey: third } = await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })

    expect((await revoke(first)).status).toBe(200)

    for (const key of [second, third]) expect((await apiKeys.verify(key)).valid).toBe(true)
  })

  it('changes nothing for the old secret of a revoked key', async () => {
    const { id, plainTextKey: old } = await createKey()
    await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })
    await apiKeys.revoke(id)

    expect((await revoke(old)).status).toBe(200)

    expect(await actionsOf(id)).toEqual(['revoked', 'rotated', 'created'])
  })

  it('takes a key that is deleted meanwhile for revoked', async () => {
    const { id, plainTextKey } = await createKey()
    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`, { transaction })

    const revoking = revoke(plainTextKey).then(({ status }) => status)
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await revoking).toBe(200)
  })

  it('ends the old secret alone if the key is rotated meanwhile', async () => {
    const { id, plainTextKey: old } = await createKey()
    const transaction = await sequelize.transaction()
    const rotation = { gracePeriodSeconds: 3_600, transaction }
    const { plainTextKey: current } = await apiKeys.rotate(id, rotation)

    // The secret is the current one when it is found, and an old one by the time of the change.
    const revoking = revoke(old).then(({ status }) => status)
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await revoking).toBe(200)
    expect((await apiKeys.verify(old)).valid).toBe(false)
    expect((await apiKeys.verify(current)).valid).toBe(true)
    expect(await actionsOf(id)).toEqual(['rotation_ended', 'rotated', 'created'])
  })

  it('needs no credential, and does nothing with one', async () => {
    const { id, plainTextKey } = await createKey()

    expect((await revoke('x', http, bearer(plainTextKey))).status).toBe(200)

    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
  })

  it('answers 503 while the database is away, and revokes the key when the client comes again', async () => {
    const { id, plainTextKey } = await createKey()
    const away = createProcess({ sequelize: databaseAway.connect() }, addTokens)

    const { status, headers, body } = await revoke(plainTextKey, away.http)

    expect([status, headers['retry-after'], body.error, body.code]).toEqual([
      503,
      '1',
      'temporarily_unavailable',
      'database_unavailable',
    ])
    expect((await revoke('x', away.http)).status).toBe(200)
    expect((await revoke(plainTextKey)).status).toBe(200)
    expect((await apiKeys.get(id)).status).toBe('REVOKED')
  })

  it('carries out what it has begun if the client goes', async () => {
    const { id, plainTextKey } = await createKey()
    const lock = await holdLock(`SELECT * FROM api_keys WHERE id = '${id}' FOR UPDATE`)
    const sent = revoke(plainTextKey)
    const gone = sent.catch((error: unknown) => error)
    await lock.waitedFor()
    sent.abort()
    expect(await gone).toMatchObject({ code: 'ABORTED' })
    await lock.release()

    await until(async () => (await apiKeys.get(id)).status === 'REVOKED')
  })

  it('revokes nothing if the client goes before it has sent everything', async () => {
    const { id, plainTextKey } = await createKey()
    const fields = { 'Content-Type': 'application/x-www-form-urlencoded' }

    await sendHalf(world.app, '/oauth/revoke', { body: `token=${plainTextKey}`, fields })
    await sendHalf(world.app, '/oauth/revoke', {
      body: `token=${plainTextKey}&token_type_hint=access_token`,
      fields,
    })

    expect((await apiKeys.get(id)).status).toBe('ACTIVE')
  })

  it('leaves ten look-ups a second to made-up keys of an address', async () => {
    const strict = createProcess({ maxFailedAttemptsPerMinute: 5 }, addTokens)
    const from = (address: string, token = forgeKey()) =>
      revoke(token, strict.http, { 'X-Forwarded-For': address })
    for (let time = 0; time < 6; time++) expect((await from('203.0.113.7')).status).toBe(200)

    const answers = await Promise.all(Array.from({ length: 30 }, () => from('203.0.113.7')))

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 503]))
    const refused = answers.find(({ status }) => status === 503)
    expect([refused?.body.code, refused?.headers['retry-after']]).toEqual(['too_many_lookups', '1'])
    expect((await from('203.0.113.8')).status).toBe(200)
    expect((await from('203.0.113.7', 'x')).status).toBe(200)
  })
})
