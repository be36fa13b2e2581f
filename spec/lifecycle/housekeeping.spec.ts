import type { ApiKeyNotices } from '../../lib'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach()

const post = (path: string, body: object, user = 'admin') =>
  world.http.as(user).post(`/admin/api-keys${path}`).send(body)

function ago(days: number | undefined): string {
  return days === undefined ? 'NULL' : `now() - interval '${days} days'`
}

/** Makes a key, with its age and the days since its last use and its revocation. */
async function createOldKey(
  ages: { created: number; used?: number; revoked?: number },
  userId = 'alice',
) {
  const { id } = await world.createKey({
    userId,
    status: ages.revoked === undefined ? 'ACTIVE' : 'REVOKED',
  })
  // A statement sets the times back, because no call makes an old key.
  await world.sequelize.query(`
    BEGIN;
    SET LOCAL session_replication_role = replica;
    ALTER TABLE api_keys DISABLE TRIGGER USER;
    UPDATE api_keys SET created_at = ${ago(ages.created)}, last_used_at = ${ago(ages.used)},
                        revoked_at = ${ago(ages.revoked)} WHERE id = '${id}';
    ALTER TABLE api_keys ENABLE TRIGGER USER;
    COMMIT`)
  return id
}

async function statusesOf(...ids: string[]) {
  return Promise.all(
    ids.map(async (id) =>
      world.apiKeys.get(id).then(
        ({ status }) => status,
        ({ code }: { code: string }) => code,
      ),
    ),
  )
}

describe('POST /revoke-all', () => {
  it('counts the keys with dryRun, and changes nothing', async () => {
    const ids = [await createOldKey({ created: 1 }), await createOldKey({ created: 1 })]
    await createOldKey({ created: 2, revoked: 1 })

    const dry = await post('/revoke-all', { userId: 'alice', dryRun: true })
    expect([dry.status, dry.body]).toEqual([200, { revoked: 2 }])
    expect(await statusesOf(...ids)).toEqual(['ACTIVE', 'ACTIVE'])

    const wet = await post('/revoke-all', { userId: 'alice' })
    expect(wet.body).toEqual({ revoked: 2 })
    expect(await statusesOf(...ids)).toEqual(['REVOKED', 'REVOKED'])
  })
})

describe('POST /revoke-unused', () => {
  it('counts the unused keys with dryRun, then revokes them', async () => {
    const never = await createOldKey({ created: 100 })
    const long = await createOldKey({ created: 200, used: 91 })
    const lately = await createOldKey({ created: 200, used: 89 })
    const young = await createOldKey({ created: 89 })
    await createOldKey({ created: 200, revoked: 100 })

    const dry = await post('/revoke-unused', { unusedForDays: 90, dryRun: true })
    expect([dry.status, dry.body]).toEqual([200, { revoked: 2 }])
    expect(await statusesOf(never, long)).toEqual(['ACTIVE', 'ACTIVE'])

    const wet = await post('/revoke-unused', { unusedForDays: 90, reason: 'spring cleaning' })
    expect([wet.status, wet.body]).toEqual([200, { revoked: 2 }])
    expect(await statusesOf(never, long, lately, young)).toEqual([
      'REVOKED',
      'REVOKED',
      'ACTIVE',
      'ACTIVE',
    ])
    const { events } = await world.apiKeys.events({ apiKeyId: never, limit: 1 })
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'admin',
      actorId: 'admin',
      reason: 'spring cleaning',
      address: '127.0.0.1',
    })
    expect((await post('/revoke-unused', { unusedForDays: 90 })).body).toEqual({ revoked: 0 })
  })

  it('skips a key whose last use may not be written yet', async () => {
    const slow = world.createProcess({ lastUsedResolutionMs: 86_400_000 }).apiKeys
    const id = await createOldKey({ created: 200, used: 90.5 })

    expect(await slow.revokeUnused({ unusedForDays: 90 })).toEqual({ keys: 0 })
    expect(await world.apiKeys.revokeUnused({ unusedForDays: 90 })).toEqual({ keys: 1 })
    expect(await statusesOf(id)).toEqual(['REVOKED'])
  })

  it('revokes the keys of one user on request', async () => {
    const hers = await createOldKey({ created: 100 }, 'alice')
    const his = await createOldKey({ created: 100 }, 'bob')

    await post('/revoke-unused', { unusedForDays: 90, userId: 'bob' })

    expect(await statusesOf(hers, his)).toEqual(['ACTIVE', 'REVOKED'])
  })

  it('revokes any number, a batch at a time, and leaves an intact trail', async () => {
    await world.sequelize.query(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, created_at)
      SELECT 'carol', 'Old', 'agpt_000000', '00000000', encode(sha256(n::text::bytea), 'hex'),
             '{READ_GRAPH}', now() - interval '100 days'
        FROM generate_series(1, 2500) AS n`)

    expect(await world.apiKeys.revokeUnused({ unusedForDays: 90 })).toEqual({ keys: 2500 })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 5000 })
  })

  it('refuses userId: undefined, which would mean all users', async () => {
    const criteria = { unusedForDays: 90, userId: undefined } as never

    await expect(world.apiKeys.revokeUnused(criteria)).rejects.toThrow('userId is undefined')
  })
})

describe('POST /prune', () => {
  it('deletes keys that were revoked long ago, and records who did it', async () => {
    const old = await createOldKey({ created: 200, revoked: 91 })
    const young = await createOldKey({ created: 200, revoked: 89 })
    const deleted: ApiKeyNotices['deleted'][] = []
    world.apiKeys.on('deleted', (notice) => deleted.push(notice))

    const dry = await post('/prune', { revokedKeys: 90, dryRun: true })
    expect([dry.status, dry.body]).toEqual([200, { revokedKeys: 1 }])
    expect(await statusesOf(old)).toEqual(['REVOKED'])

    const wet = await post('/prune', { revokedKeys: 90, reason: 'retention' })
    expect(wet.body).toEqual({ revokedKeys: 1 })
    expect(await statusesOf(old, young)).toEqual(['api_key_not_found', 'REVOKED'])
    const { events } = await world.apiKeys.events({ apiKeyId: old })
    expect(events.map(({ action }) => action)).toEqual(['deleted', 'revoked', 'created'])
    expect(events[0]).toMatchObject({
      actorType: 'admin',
      actorId: 'admin',
      reason: 'retention',
      before: { status: 'REVOKED', name: 'Deployment' },
      after: null,
    })
    expect(deleted).toEqual([
      expect.objectContaining({ apiKey: expect.objectContaining({ id: old }) }),
    ])
  })

  it('keeps the trail intact', async () => {
    for (let number = 0; number < 3; number++) await world.createKey({ status: 'REVOKED' })
    await world.sequelize.query(`UPDATE api_keys SET revoked_at = now() - interval '2 days'`)

    expect(await world.apiKeys.pruneRevoked({ olderThanDays: 1 })).toEqual({ keys: 3 })

    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('deletes old entries of the trail and old counts of uses', async () => {
    await world.createKey()
    await world.sequelize.query(`
      INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
      VALUES (gen_random_uuid(), 'user', 'alice', date_trunc('hour', now() - interval '500 days'), 1, 0, 0)`)

    const dry = await post('/prune', { events: 365, usage: 400, dryRun: true })
    expect(dry.body).toEqual({ events: 0, usage: 1 })
    expect((await post('/prune', { usage: 400 })).body).toEqual({ usage: 1 })
    expect((await post('/prune', { usage: 400 })).body).toEqual({ usage: 0 })
  })

  it.each([
    [{}, '#'],
    [{ keys: 7, usage: 7 }, '#/keys'],
  ])('refuses %j', async (body, pointer) => {
    const answer = await post('/prune', body)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toContainEqual({ pointer, message: expect.any(String) })
  })

  it.each(['/prune', '/revoke-unused'])('is not for owners: %s', async (path) => {
    const body = { usage: 7, unusedForDays: 7 }

    expect((await post(path, body, 'alice')).status).toBe(403)
    expect((await world.http.as('alice').post(`/api-keys${path}`).send(body)).status).toBe(405)
  })
})
