import { randomBytes } from 'node:crypto'

import { findBlockedSession } from '../support/blocked'
import { databaseAway } from '../support/database'
import { newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const secret = randomBytes(32)
const options = { secrets: [secret], maxStalenessMs: 500 }
const { apiKeys, http, rows, sequelize, createKey, createProcess } = useWorld({
  options,
  routes: (app, { requirePermission }) =>
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => res.json([])),
})
const other = createProcess(options).apiKeys

const valid = { valid: true }

/** Creates a key, and a new secret that waits for its first use. */
async function pendingKey(gracePeriodSeconds = 3_600) {
  const { id, userId, plainTextKey: old } = await createKey({ userId: newUser() })
  const { apiKey, plainTextKey } = await apiKeys.rotate(id, {
    activate: 'on-first-use',
    gracePeriodSeconds,
  })
  return { id, userId, old, plainTextKey, apiKey }
}

async function actionsOf(apiKeyId: string) {
  const { events } = await apiKeys.events({ apiKeyId, limit: 100 })
  return events.map(({ action }) => action)
}

/** Resolves once the new secret is the current one. */
async function activated(id: string) {
  await until(async () => (await apiKeys.get(id)).pendingRotation === null)
  return apiKeys.get(id)
}

async function expectIntact() {
  expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
}

describe('a rotation that is activated on first use', () => {
  it('changes nothing about the current secret before that', async () => {
    const { id, apiKey, old } = await pendingKey(60)
    const before = await apiKeys.get(id)

    expect(apiKey.pendingRotation).toEqual({
      prefix: expect.stringMatching(/^agpt_/),
      postfix: expect.any(String),
      gracePeriodSeconds: 60,
    })
    expect(apiKey).toEqual(before)
    expect(apiKey.previousSecret).toBeNull()
    expect(apiKey.prefix).not.toBe(apiKey.pendingRotation?.prefix)
    for (let use = 0; use < 3; use++) expect(await other.verify(old)).toMatchObject(valid)
    expect((await apiKeys.get(id)).pendingRotation).toEqual(apiKey.pendingRotation)
    expect(await actionsOf(id)).toEqual(['rotation_begun', 'created'])
    await expectIntact()
  })

  it('makes the new secret the current one when it is used, and the grace period begins then', async () => {
    const { id, apiKey, old, plainTextKey } = await pendingKey()
    const noticed = jest.fn()
    const stopListening = other.on('rotated', noticed)
    const usedAt = Date.now()

    expect(await other.verify(plainTextKey, { ip: '203.0.113.7' })).toMatchObject(valid)

    const record = await activated(id)
    expect(record).toMatchObject({
      prefix: apiKey.pendingRotation?.prefix,
      postfix: apiKey.pendingRotation?.postfix,
      previousSecret: { prefix: apiKey.prefix, postfix: apiKey.postfix },
    })
    const worksUntil = Number(record.previousSecret?.worksUntil.getTime())
    expect(worksUntil).toBeGreaterThan(usedAt + 3_590_000)
    expect(worksUntil).toBeLessThan(Date.now() + 3_610_000)
    for (const each of [apiKeys, other]) {
      expect(await each.verify(old)).toMatchObject(valid)
      expect(await each.verify(plainTextKey)).toMatchObject(valid)
    }
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'rotated',
      actorType: 'system',
      address: '203.0.113.7',
      reason: 'first use of the new secret',
      before: { pendingRotation: apiKey.pendingRotation, previousSecret: null },
      after: { pendingRotation: null, prefix: record.prefix },
    })
    expect(JSON.stringify(events)).not.toMatch(/[0-9a-f]{64}|HashDigest/)
    await until(async () => noticed.mock.calls.length === 1)
    stopListening()
    await expectIntact()
  })

  it('is no longer asked about once it is activated: the secret is cached like any', async () => {
    const process = createProcess({ ...options, maxStalenessMs: 60_000 })
    const { id, plainTextKey } = await pendingKey()
    await process.apiKeys.verify(plainTextKey)
    await activated(id)
    await until(async () => {
      const { length } = process.statements.lookUps()
      await process.apiKeys.verify(plainTextKey)
      return process.statements.lookUps().length === length
    })

    const before = process.statements.lookUps().length
    for (let use = 0; use < 50; use++) await process.apiKeys.verify(plainTextKey)
    expect(process.statements.lookUps()).toHaveLength(before)
  })

  it('is activated once, with one entry, whatever requests of two processes come first', async () => {
    const { id, plainTextKey } = await pendingKey()

    const verdicts = await Promise.all(
      Array.from({ length: 40 }, (_, use) => (use % 2 ? apiKeys : other).verify(plainTextKey)),
    )

    expect(verdicts.every((verdict) => verdict.valid)).toBe(true)
    await activated(id)
    await Promise.all([apiKeys.verify(plainTextKey), other.verify(plainTextKey)])
    await Promise.all([apiKeys.flush(), other.flush()])
    expect(await actionsOf(id)).toEqual(['rotated', 'rotation_begun', 'created'])
    await expectIntact()
  })

  it('ends the old secret at the first use without a grace period', async () => {
    const { id, old, plainTextKey } = await pendingKey(0)
    expect(await other.verify(old)).toMatchObject(valid)
    await other.verify(plainTextKey)

    expect(await activated(id)).toMatchObject({ previousSecret: null })
    await until(async () => {
      const verdict = await other.verify(old)
      return !verdict.valid && verdict.code === 'retired'
    })
    expect(await other.verify(plainTextKey)).toMatchObject(valid)
  })

  it('leaves an older secret its grace period until then', async () => {
    const { id, plainTextKey: first } = await createKey({ userId: newUser() })
    const { plainTextKey: second } = await apiKeys.rotate(id)
    await apiKeys.verify(second)
    const { plainTextKey: third } = await apiKeys.rotate(id, { activate: 'on-first-use' })

    for (const key of [first, second]) expect(await apiKeys.verify(key)).toMatchObject(valid)
    await apiKeys.verify(third)
    await activated(id)

    // The change is committed, and this process honours it within the bound.
    await until(async () => !(await apiKeys.verify(first)).valid)
    expect(await apiKeys.verify(first)).toEqual({ valid: false, code: 'retired' })
    for (const key of [second, third]) expect(await apiKeys.verify(key)).toMatchObject(valid)
  })

  it.each([
    ['another of its kind', { activate: 'on-first-use' }],
    ['a rotation', {}],
  ] as const)('is cancelled by %s', async (_, wish) => {
    const { id, old, plainTextKey } = await pendingKey()

    const { plainTextKey: next } = await apiKeys.rotate(id, wish)

    for (const each of [apiKeys, other]) {
      expect(await each.verify(plainTextKey)).toEqual({ valid: false, code: 'retired' })
      expect(await each.verify(old)).toMatchObject(valid)
    }
    expect(await apiKeys.verify(next)).toMatchObject(valid)
    await activated(id)
    await expectIntact()
  })

  it('that is replaced while a use of its secret is activated is not activated', async () => {
    const { id, old, plainTextKey } = await pendingKey()
    const transaction = await sequelize.transaction()
    const { plainTextKey: next } = await apiKeys.rotate(id, {
      activate: 'on-first-use',
      transaction,
    })

    // The use is good, because the other rotation is not committed. Its activation waits for that.
    expect(await other.verify(plainTextKey)).toMatchObject(valid)
    await findBlockedSession(sequelize)
    await transaction.commit()

    await until(async () => {
      const verdict = await other.verify(plainTextKey)
      return !verdict.valid && verdict.code === 'retired'
    })
    expect(await other.verify(old)).toMatchObject(valid)
    expect(await other.verify(next)).toMatchObject(valid)
    await activated(id)
    expect(await actionsOf(id)).toEqual(['rotated', 'rotation_begun', 'rotation_begun', 'created'])
    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'retired' })
  })

  it('is cancelled by endRotation, with an entry', async () => {
    const { id, old, plainTextKey } = await pendingKey()

    expect(await apiKeys.endRotation(id)).toMatchObject({ pendingRotation: null })

    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'retired' })
    expect(await other.verify(old)).toMatchObject(valid)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'rotation_ended',
      before: { pendingRotation: { gracePeriodSeconds: 3_600 } },
      after: { pendingRotation: null },
    })
    await expectIntact()
  })

  it('is refused with its key, and goes on when the key does', async () => {
    const { id, userId, plainTextKey } = await pendingKey()
    await apiKeys.suspend(id)
    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    await apiKeys.reactivate(id)
    await apiKeys.suspendOwner({ type: 'user', id: userId })
    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    await apiKeys.reactivateOwner({ type: 'user', id: userId })
    await rows('UPDATE api_keys SET expires_at = now() WHERE id = $1', [id])
    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
    await rows('UPDATE api_keys SET expires_at = NULL WHERE id = $1', [id])
    await apiKeys.transfer(id, { type: 'user', id: newUser() })
    expect((await apiKeys.get(id)).pendingRotation).not.toBeNull()

    expect(await other.verify(plainTextKey)).toMatchObject(valid)
    await activated(id)
    const { id: revoked, plainTextKey: never } = await pendingKey()
    await apiKeys.revoke(revoked)
    expect(await other.verify(never)).toEqual({ valid: false, code: 'revoked' })
    expect(await actionsOf(revoked)).toEqual(['revoked', 'rotation_begun', 'created'])
    await expectIntact()
  })

  it.each(['SUSPENDED', 'REVOKED'] as const)('is refused for a key that is %s', async (status) => {
    const { id } = await createKey({ userId: newUser(), status })

    await expect(apiKeys.rotate(id, { activate: 'on-first-use' })).rejects.toMatchObject({
      status: 409,
    })
  })

  it('accepts both secrets while it cannot be activated, and is activated by a later use', async () => {
    const { id, old, plainTextKey } = await pendingKey()
    const transaction = await sequelize.transaction()
    await sequelize.query(`SELECT FROM api_keys WHERE id = '${id}' FOR UPDATE`, { transaction })

    expect(await other.verify(plainTextKey)).toMatchObject(valid)
    expect(await other.verify(plainTextKey)).toMatchObject(valid)
    expect(await other.verify(old)).toMatchObject(valid)
    expect((await apiKeys.get(id)).pendingRotation).not.toBeNull()
    await transaction.rollback()

    await until(async () => {
      expect(await other.verify(plainTextKey)).toMatchObject(valid)
      return (await apiKeys.get(id)).pendingRotation === null
    })
    expect(await actionsOf(id)).toEqual(['rotated', 'rotation_begun', 'created'])
  })

  it('is refused with 503 while the database is away', async () => {
    const away = createProcess({ ...options, sequelize: databaseAway.connect() }).apiKeys
    const { plainTextKey } = await pendingKey()

    await expect(away.verify(plainTextKey)).rejects.toMatchObject({ code: 'database_unavailable' })
  })

  it('revokes the key if the new secret is exposed, and explains itself', async () => {
    const { id, old, plainTextKey } = await pendingKey()
    const { conditions } = await apiKeys.explain(plainTextKey)
    expect(JSON.stringify(conditions)).toContain('its first use makes it the current one')
    expect((await apiKeys.get(id)).pendingRotation).not.toBeNull()
    const receiver = createProcess({ ...options, insecureTransport: 'revoke' }, (app, keys) => {
      app.set('trust proxy', 'loopback')
      app.get('/secure', keys.requirePermission('READ_GRAPH'), (_req, res) => res.json([]))
    })

    await receiver.http
      .with(plainTextKey)
      .get('/secure')
      .set({ 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'http' })
      .expect(403)

    await until(async () => (await apiKeys.get(id)).status === 'REVOKED')
    expect(await apiKeys.get(id)).toMatchObject({ exposed: { source: 'plain_http' } })
    for (const key of [old, plainTextKey]) {
      expect(await apiKeys.verify(key)).toEqual({ valid: false, code: 'revoked' })
    }
  })

  it('is found if a pending secret was put in by hand, with the triggers off or on', async () => {
    const { id } = await pendingKey()
    const { apiKey } = await createKey({ userId: newUser() })
    const put = `
      INSERT INTO api_key_retired_secrets (hash, api_key_id) VALUES (md5('x') || md5('y'), '${apiKey.id}');
      UPDATE api_keys SET pending_hash = md5('x') || md5('y'), pending_prefix = 'agpt_abc123', pending_postfix = 'abcd1234',
                          pending_grace_seconds = 0 WHERE id = '${apiKey.id}'`
    await sequelize.query(put)
    expect((await apiKeys.events({ apiKeyId: apiKey.id })).events[0]).toMatchObject({
      actorType: 'database',
      after: { pendingRotation: { prefix: 'agpt_abc123' } },
    })
    await expectIntact()

    await sequelize.query(`
      ALTER TABLE api_keys DISABLE TRIGGER USER;
      UPDATE api_keys SET pending_hash = NULL, pending_secret_id = NULL, pending_prefix = NULL, pending_postfix = NULL,
                          pending_grace_seconds = NULL WHERE id = '${id}'`)
    await apiKeys.migrate()

    const { faults } = await apiKeys.verifyAuditTrail()
    const messages = faults.map(({ message }) => message)
    expect(messages).toContain(`The trail and the key ${id} do not agree on pendingRotation.`)
    expect(messages).toContain(`The trail and the key ${id} do not agree on pendingHashDigest.`)
  })
})

describe('POST /:id/rotate', () => {
  it('takes activate, says it in the record, and makes one secret for one Idempotency-Key', async () => {
    const { userId, path } = await createKey({ userId: newUser() })
    const send = (body: object) =>
      http.as(userId).post(`${path}/rotate`, body).set('Idempotency-Key', '"pending"')
    const wish = { activate: 'on-first-use', gracePeriodSeconds: 60 }

    const first = await send(wish)
    const again = await send(wish)
    const differs = await send({ ...wish, activate: 'now' })
    const shown = await http.as(userId).get(path)

    expect(first.status).toBe(200)
    expect(again.body.plainTextKey).toBe(first.body.plainTextKey)
    expect(differs.body).toMatchObject({ code: 'idempotency_key_reused' })
    expect(shown.body.pendingRotation).toMatchObject({ gracePeriodSeconds: 60 })
    expect((await http.with(first.body.plainTextKey).get('/graphs')).status).toBe(200)
    await until(async () => (await http.as(userId).get(path)).body.pendingRotation === null)
  })

  it.each([null, 'later', 7, ['now']])('refuses %j', async (activate) => {
    const { userId, path } = await createKey({ userId: newUser() })

    const answer = await http.as(userId).post(`${path}/rotate`, { activate })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toMatchObject([{ pointer: '#/activate' }])
  })
})
