import { randomBytes, randomUUID } from 'node:crypto'

import { createApiKeys } from '../../lib'
import { findBlockedSession } from '../support/blocked'
import { databaseAway } from '../support/database'
import { newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const secret = randomBytes(32)
const options = { undoMinutes: 10, maxKeysPerOwner: 3, secrets: [secret], maxStalenessMs: 300 }
const { apiKeys, http, rows, sequelize, database, createKey, createProcess } = useWorld({ options })
const other = createProcess(options).apiKeys
const withoutOption = createProcess({ ...options, undoMinutes: undefined }).apiKeys

const stays = { code: 'api_key_revoked', status: 409 }

async function revokedKey() {
  const key = await createKey({ userId: newUser() })
  await apiKeys.revoke(key.id)
  return key
}

/** Moves the revocation of a key into the past. */
async function age(id: string, interval: string) {
  await rows(`UPDATE api_keys SET revoked_at = revoked_at - $2::interval WHERE id = $1`, [
    id,
    interval,
  ])
}

describe('unrevoke', () => {
  it('brings a revoked key back, in every process, with an entry and an event of its own', async () => {
    const { id, plainTextKey } = await revokedKey()
    expect(await other.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    const noticed = jest.fn()
    const stopListening = apiKeys.on('unrevoked', noticed)

    const record = await apiKeys.unrevoke(id, {
      actor: { type: 'admin', id: 'root' },
      reason: 'wrong key',
    })
    stopListening()

    expect(record).toMatchObject({ id, status: 'ACTIVE', revokedAt: null })
    expect(await apiKeys.get(id)).toEqual(record)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    await until(async () => (await other.verify(plainTextKey)).valid)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events).toMatchObject([
      {
        action: 'unrevoked',
        actorType: 'admin',
        actorId: 'root',
        reason: 'wrong key',
        before: { status: 'REVOKED' },
        after: { status: 'ACTIVE' },
      },
      { action: 'revoked' },
      { action: 'created' },
    ])
    expect(noticed).toHaveBeenCalledTimes(1)
    expect(noticed.mock.calls[0]?.[0]).toMatchObject({
      apiKey: { id, status: 'ACTIVE', revokedAt: null },
      before: { status: 'REVOKED', revokedAt: expect.any(Date) },
      reason: 'wrong key',
    })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('brings a key that was suspended back suspended, also if its entry is gone', async () => {
    const [known, unknown] = [await createKey({ status: 'SUSPENDED' }), await revokedKey()]
    await apiKeys.revoke(known.id)
    await rows(`ALTER TABLE api_key_events DISABLE TRIGGER USER`)
    await rows(`DELETE FROM api_key_events WHERE api_key_id = $1`, [unknown.id])
    await apiKeys.migrate()

    expect(await apiKeys.unrevoke(known.id)).toMatchObject({ status: 'SUSPENDED', revokedAt: null })
    expect(await apiKeys.unrevoke(unknown.id)).toMatchObject({ status: 'SUSPENDED' })
  })

  it('changes nothing at a key that is not revoked, and leaves no entry', async () => {
    for (const status of ['ACTIVE', 'SUSPENDED'] as const) {
      const { id, apiKey } = await createKey({ userId: newUser(), status })
      const { events } = await apiKeys.events({ apiKeyId: id })

      expect(await apiKeys.unrevoke(id)).toEqual(apiKey)

      expect((await apiKeys.events({ apiKeyId: id })).events).toEqual(events)
    }
  })

  it('is refused once the time is over, and without the option', async () => {
    const [inTime, late] = [await revokedKey(), await revokedKey()]
    await age(inTime.id, '9 minutes')
    await age(late.id, '10 minutes')
    const before = await apiKeys.get(late.id)

    await expect(withoutOption.unrevoke(inTime.id)).rejects.toMatchObject(stays)
    expect(await apiKeys.unrevoke(inTime.id)).toMatchObject({ status: 'ACTIVE' })
    await expect(apiKeys.unrevoke(late.id)).rejects.toMatchObject(stays)
    expect(await apiKeys.get(late.id)).toEqual(before)
    expect(await apiKeys.verify(late.plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('is refused for a revocation that claims to be of the future', async () => {
    const { id } = await revokedKey()
    for (const time of [`clock_timestamp() + interval '1 hour'`, `'infinity'`]) {
      await rows(`UPDATE api_keys SET revoked_at = ${time} WHERE id = $1`, [id])

      await expect(apiKeys.unrevoke(id)).rejects.toMatchObject(stays)
    }
  })

  it('is refused for an exposed key, also if it was exposed after its revocation', async () => {
    const { id } = await revokedKey()
    const exposed = { at: new Date(), source: 'github:commit', url: null }
    await rows(`UPDATE api_keys SET exposed = $2::json WHERE id = $1`, [
      id,
      JSON.stringify(exposed),
    ])

    await expect(apiKeys.unrevoke(id)).rejects.toMatchObject({
      code: 'api_key_exposed',
      status: 409,
    })
    await expect(
      rows(`UPDATE api_keys SET status = 'ACTIVE', revoked_at = NULL WHERE id = $1`, [id]),
    ).rejects.toThrow('check constraint')
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
  })

  it('is refused for a key that has expired', async () => {
    const { id } = await revokedKey()
    await rows('UPDATE api_keys SET expires_at = clock_timestamp() WHERE id = $1', [id])

    await expect(apiKeys.unrevoke(id)).rejects.toMatchObject(stays)
  })

  it('is refused if the owner has as many keys as are allowed, also if both come at once', async () => {
    const userId = newUser()
    const { id } = await createKey({ userId })
    await apiKeys.revoke(id)
    for (let keys = 0; keys < 3; keys++) await createKey({ userId })
    const { id: second } = (await apiKeys.list({ userId, status: 'ACTIVE' })).apiKeys[0] ?? {}

    await expect(apiKeys.unrevoke(id)).rejects.toMatchObject({ code: 'too_many_api_keys' })
    await apiKeys.revoke(second ?? '')
    const outcomes = await Promise.allSettled([apiKeys.unrevoke(id), other.unrevoke(second ?? '')])

    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect((await apiKeys.list({ userId, status: 'ACTIVE' })).apiKeys).toHaveLength(3)
  })

  it('gives no secret more time: an old secret in its grace period ends as it would have', async () => {
    const { id, plainTextKey: old } = await createKey({ userId: newUser() })
    const { apiKey, plainTextKey } = await apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })
    await apiKeys.revoke(id)

    const { previousSecret } = await apiKeys.unrevoke(id)

    expect(previousSecret?.worksUntil).toEqual(apiKey.previousSecret?.worksUntil)
    expect(await apiKeys.verify(old)).toMatchObject({ valid: true })
    await apiKeys.revoke(id)
    await rows('UPDATE api_keys SET previous_works_until = clock_timestamp() WHERE id = $1', [id])
    await apiKeys.unrevoke(id)
    expect(await apiKeys.verify(old)).toEqual({ valid: false, code: 'retired' })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('leaves the key of a suspended owner refused until the owner is reactivated', async () => {
    const { id, userId, plainTextKey } = await revokedKey()
    await apiKeys.suspendOwner({ type: 'user', id: userId })

    expect(await apiKeys.unrevoke(id)).toMatchObject({ status: 'ACTIVE', ownerSuspended: true })

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    await apiKeys.reactivateOwner({ type: 'user', id: userId })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('finds no key of an owner who was erased or deleted', async () => {
    const { id, userId } = await revokedKey()
    await apiKeys.eraseOwner({ type: 'user', id: userId }, { reason: 'Request 4711' })

    await expect(apiKeys.unrevoke(id)).rejects.toMatchObject({ code: 'api_key_not_found' })

    await rows('CREATE TABLE members (id text PRIMARY KEY)')
    await rows(`INSERT INTO members VALUES ('dave')`)
    const withUsers = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
      schema: 'with users',
      users: { schema: 'public', table: 'members' },
      undoMinutes: 10,
    })
    database.closeFirst(withUsers)
    await withUsers.migrate()
    const { apiKey } = await withUsers.create({
      userId: 'dave',
      name: 'CI',
      permissions: ['READ_GRAPH'],
    })
    await withUsers.revoke(apiKey.id)
    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM members WHERE id = 'dave'`, { transaction })

    const undoing = withUsers.unrevoke(apiKey.id)
    await findBlockedSession(sequelize)
    await transaction.commit()

    await expect(undoing).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it('joins a transaction of the caller, and other processes notice only its commit', async () => {
    const { id, plainTextKey } = await revokedKey()
    const transaction = await sequelize.transaction()
    expect(await apiKeys.unrevoke(id, { transaction })).toMatchObject({ status: 'ACTIVE' })
    expect(await other.verify(plainTextKey)).toMatchObject({ code: 'revoked' })
    await transaction.rollback()

    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
    const events = await apiKeys.events({ apiKeyId: id })
    expect(events.events.map(({ action }) => action)).toEqual(['revoked', 'created'])
  })

  it('is refused with 503 while the database is away, and changes nothing', async () => {
    const away = createProcess({
      ...options,
      sequelize: databaseAway.connect(),
    }).apiKeys

    await expect(away.unrevoke(randomUUID())).rejects.toMatchObject({
      code: 'database_unavailable',
    })
  })

  it.each(['nonsense', '', randomUUID()])('finds no key by the id %j', async (id) => {
    await expect(apiKeys.unrevoke(id)).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it('finds no key of another owner', async () => {
    const { id } = await revokedKey()

    await expect(apiKeys.unrevoke(id, { userId: newUser() })).rejects.toMatchObject({
      code: 'api_key_not_found',
    })
  })
})

describe('a revocation', () => {
  it('wins if it is committed while unrevoke waits', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    const transaction = await sequelize.transaction()
    await apiKeys.revoke(id, { transaction })

    const undoing = other.unrevoke(id)
    undoing.catch(() => {})
    await findBlockedSession(sequelize)
    await transaction.commit()

    await expect(undoing).rejects.toMatchObject(stays)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('that is repeated while unrevoke is not committed changes nothing, and the next one revokes', async () => {
    const { id, plainTextKey } = await revokedKey()
    const transaction = await sequelize.transaction()
    await apiKeys.unrevoke(id, { transaction })

    expect(await other.revoke(id)).toMatchObject({ status: 'REVOKED' })
    await transaction.commit()
    expect(await other.revoke(id)).toMatchObject({ status: 'REVOKED' })

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('and its undoing come in turn in the trail, whatever two processes do at once', async () => {
    const { id } = await createKey({ userId: newUser() })
    for (let round = 0; round < 5; round++) {
      await Promise.allSettled([
        apiKeys.revoke(id),
        other.unrevoke(id),
        apiKeys.unrevoke(id),
        other.revoke(id),
        apiKeys.unrevoke(id),
      ])
    }
    const end = await apiKeys.revoke(id)

    const { events } = await apiKeys.events({ apiKeyId: id, limit: 100 })
    expect(end.status).toBe('REVOKED')
    const actions = events.map(({ action }) => action).slice(0, -1)
    expect(actions).toEqual(actions.map((_, place) => (place % 2 === 0 ? 'revoked' : 'unrevoked')))
  })
})

describe('POST /:id/unrevoke', () => {
  it('is for administrators, and answers with the record', async () => {
    const { id, userId, path } = await revokedKey()

    const own = await http.as(userId).post(`${path}/unrevoke`)
    const foreign = await http.as(userId).post(`/admin/api-keys/${id}/unrevoke`)
    const done = await http.as('admin').post(`/admin/api-keys/${id}/unrevoke`, { reason: 'wrong' })

    expect([own.status, foreign.status, done.status]).toEqual([404, 403, 200])
    expect(done.body).toMatchObject({ id, status: 'ACTIVE', revokedAt: null })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'unrevoked',
      actorType: 'admin',
      actorId: 'admin',
      address: expect.any(String),
      reason: 'wrong',
    })
  })

  it('answers refusals with their codes', async () => {
    const { id } = await revokedKey()
    await age(id, '1 hour')
    const admin = http.as('admin')

    const late = await admin.post(`/admin/api-keys/${id}/unrevoke`)
    const query = await admin.post(`/admin/api-keys/${id}/unrevoke?everywhere=true`)
    const body = await admin.post(`/admin/api-keys/${id}/unrevoke`, { reason: 7 })

    expect(late.body).toMatchObject({ status: 409, code: 'api_key_revoked' })
    expect(query.body.errors).toEqual([{ pointer: '#/everywhere', message: 'is not for this' }])
    expect(body.body.errors).toEqual([{ pointer: '#/reason', message: 'must be text' }])
  })
})
