import { once } from 'node:events'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase } from '../support/database'
import { newKey } from '../support/keys'
import { expectProblem } from '../support/problem'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const secrets = ['first', 'second'].map((name) => `${name} of the secrets, 0123456789 abcdef`)
const day = 86_400
const options = { secrets: secrets.slice(0, 1) }

const { apiKeys, http, rows, sequelize, createKey, createProcess } = useWorld({
  options,
  documented: {},
})
const elsewhere = createProcess(options).apiKeys

async function saysOf(plainTextKey: string, instance = apiKeys) {
  const verdict = await instance.verify(plainTextKey)
  return verdict.valid ? 'valid' : verdict.code
}

/** Ends the grace period, as if its time had passed. */
async function endGracePeriod(id: string) {
  await rows(
    `UPDATE api_keys SET previous_works_until = now() - interval '1 second' WHERE id = '${id}'`,
  )
}

async function actionsOf(id: string) {
  const { events } = await apiKeys.events({ apiKeyId: id })
  return events.map(({ action }) => action)
}

describe('POST /:id/rotate', () => {
  it('gives the key a new secret, and keeps the old secret valid for a day', async () => {
    const { apiKey, plainTextKey: old, path } = await createKey({ description: 'Nightly' })

    const before = Date.now()
    const answer = await http.as('alice').post(path + '/rotate')
    const after = Date.now()

    const { apiKey: rotated, plainTextKey } = answer.body
    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(Object.keys(answer.body)).toEqual(['apiKey', 'plainTextKey'])
    expect(rotated).toEqual({
      ...JSON.parse(JSON.stringify(apiKey)),
      prefix: plainTextKey.slice(0, 11),
      postfix: plainTextKey.slice(-8),
      updatedAt: rotated.updatedAt,
      previousSecret: {
        prefix: apiKey.prefix,
        postfix: apiKey.postfix,
        worksUntil: expect.any(String),
        lastUsedAt: null,
      },
    })
    const rotatedAt = Date.parse(rotated.previousSecret.worksUntil) - day * 1000
    expect(rotatedAt).toBeGreaterThanOrEqual(before)
    expect(rotatedAt).toBeLessThanOrEqual(after)
    expect(plainTextKey).not.toBe(old)
    expect((await http.as('alice').get(path)).body).toEqual(rotated)
    for (const key of [old, plainTextKey]) {
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true, apiKey: { id: apiKey.id } })
    }
  })

  it('returns the last use of the old secret, also if the new secret is used', async () => {
    const { apiKey, plainTextKey: old } = await createKey()
    const { plainTextKey } = await apiKeys.rotate(apiKey.id)
    const hourAgo = new Date(Date.now() - 3_600_000)
    await rows(`UPDATE api_keys SET last_used_at = '${hourAgo.toISOString()}',
                           previous_last_used_at = '${hourAgo.toISOString()}' WHERE id = '${apiKey.id}'`)
    const lastUsesIn = async (instance: TestApiKeys) => {
      const { lastUsedAt, previousSecret } = await instance.get(apiKey.id)
      return [lastUsedAt, previousSecret?.lastUsedAt].map((time) => time?.getTime() ?? 0)
    }
    const process = createProcess(options).apiKeys

    expect(await saysOf(plainTextKey, process)).toBe('valid')
    const [newUse = 0] = await lastUsesIn(process)
    expect(newUse).toBeGreaterThan(hourAgo.getTime())
    expect(await lastUsesIn(process)).toEqual([newUse, hourAgo.getTime()])

    expect(await saysOf(old, process)).toBe('valid')
    const [lastUse = 0, oldUse = 0] = await lastUsesIn(process)
    expect(oldUse).toBeGreaterThanOrEqual(newUse)
    expect(lastUse).toBe(oldUse)

    await process.flush()
    expect(await lastUsesIn(apiKeys)).toEqual([lastUse, oldUse])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('keeps the last use of the secret that it replaces', async () => {
    const { apiKey, plainTextKey: old } = await createKey()
    await saysOf(old)
    await apiKeys.flush()
    const { lastUsedAt } = await apiKeys.get(apiKey.id)

    const { apiKey: rotated } = await apiKeys.rotate(apiKey.id)

    expect(lastUsedAt).toBeInstanceOf(Date)
    expect(rotated.previousSecret).toMatchObject({ lastUsedAt })
  })

  it('ends the old secret at once on request, in every process', async () => {
    const { plainTextKey: old, path } = await createKey()
    expect(await saysOf(old, elsewhere)).toBe('valid')

    const { body } = await http.as('alice').post(`${path}/rotate`, { gracePeriodSeconds: 0 })

    expect(body.apiKey.previousSecret).toBeNull()
    expect(await saysOf(old)).toBe('retired')
    await until(async () => (await saysOf(old, elsewhere)) === 'retired')
    expect(await saysOf(body.plainTextKey, elsewhere)).toBe('valid')
  })

  it('never leaves more than two secrets', async () => {
    const { apiKey, plainTextKey: first } = await createKey()
    const { plainTextKey: second } = await apiKeys.rotate(apiKey.id)
    await saysOf(second)
    const { plainTextKey: third } = await apiKeys.rotate(apiKey.id)

    expect(await Promise.all([first, second, third].map((key) => saysOf(key)))).toEqual([
      'retired',
      'valid',
      'valid',
    ])
  })

  it('replaces a new secret that was never used, and leaves the secret before its time', async () => {
    const { plainTextKey: inUse, path } = await createKey()
    await saysOf(inUse)
    const wish = { gracePeriodSeconds: 3_600 }
    const { body: lost } = await http.as('alice').post(path + '/rotate', wish)

    const { status, body } = await http.as('alice').post(path + '/rotate')

    expect(status).toBe(200)
    expect(body.apiKey.previousSecret).toEqual(lost.apiKey.previousSecret)
    const all = [inUse, lost.plainTextKey, body.plainTextKey]
    expect(await Promise.all(all.map((key) => saysOf(key)))).toEqual(['valid', 'retired', 'valid'])
    expect(await Promise.all(all.map((key) => saysOf(key, elsewhere)))).toEqual([
      'valid',
      'retired',
      'valid',
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('ends the secret before if the new secret was used, also in a process that has written it just now', async () => {
    const { apiKey, plainTextKey: inUse } = await createKey()
    await saysOf(inUse, elsewhere)
    await elsewhere.flush()
    const { plainTextKey } = await apiKeys.rotate(apiKey.id)
    // So soon that this is no new last use of the key.
    expect(await saysOf(plainTextKey, elsewhere)).toBe('valid')
    await elsewhere.flush()

    const { apiKey: rotated } = await apiKeys.rotate(apiKey.id)

    expect(rotated.previousSecret).toMatchObject({ postfix: plainTextKey.slice(-8) })
    expect(await Promise.all([inUse, plainTextKey].map((key) => saysOf(key)))).toEqual([
      'retired',
      'valid',
    ])
  })

  it('ends the secret before at once if that is asked for, though the new secret was never used', async () => {
    const { apiKey, plainTextKey: inUse } = await createKey()
    await apiKeys.rotate(apiKey.id)

    const { apiKey: rotated } = await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })

    expect(rotated.previousSecret).toBeNull()
    expect(await saysOf(inUse)).toBe('retired')
  })

  it('gives a secret that was never used its grace period if no other secret works', async () => {
    const { apiKey, plainTextKey: first } = await createKey()
    const { plainTextKey: second } = await apiKeys.rotate(apiKey.id)
    await endGracePeriod(apiKey.id)

    await apiKeys.rotate(apiKey.id)

    expect(await Promise.all([first, second].map((key) => saysOf(key)))).toEqual([
      'retired',
      'valid',
    ])
  })

  it('leaves two secrets, however many calls come at once', async () => {
    const { apiKey, plainTextKey: first } = await createKey()

    const rotations = await Promise.all(Array.from({ length: 8 }, () => apiKeys.rotate(apiKey.id)))

    const all = [first, ...rotations.map(({ plainTextKey }) => plainTextKey)]
    const verdicts = await Promise.all(all.map((key) => saysOf(key)))
    expect(verdicts.filter((said) => said === 'valid')).toHaveLength(2)
    expect(verdicts.filter((said) => said === 'retired')).toHaveLength(7)
    expect(await actionsOf(apiKey.id)).toEqual([
      ...Array.from({ length: 8 }, () => 'rotated'),
      'created',
    ])
  })

  it('writes the ends of the secrets to the audit trail, and nothing else of them', async () => {
    const { apiKey } = await createKey()
    const { apiKey: rotated } = await apiKeys.rotate(apiKey.id, { userId: 'alice', reason: 'due' })

    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })

    expect(events[0]).toMatchObject({
      action: 'rotated',
      actorId: 'alice',
      reason: 'due',
      before: { prefix: apiKey.prefix, postfix: apiKey.postfix, previousSecret: null },
      after: { prefix: rotated.prefix, postfix: rotated.postfix },
    })
  })

  it('does not change the expiry of the key', async () => {
    const expiresAt = new Date(Date.now() + 60_000)
    const { apiKey, plainTextKey: old } = await createKey({ expiresAt })
    const { apiKey: rotated, plainTextKey } = await apiKeys.rotate(apiKey.id)

    expect(rotated.expiresAt).toEqual(expiresAt)
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${apiKey.id}'`)
    await until(async () => (await saysOf(old)) === 'expired')
    expect(await saysOf(plainTextKey)).toBe('expired')
  })

  it('revokes and suspends both secrets with the key', async () => {
    const { apiKey, plainTextKey: old } = await createKey()
    const { plainTextKey } = await apiKeys.rotate(apiKey.id)

    await apiKeys.suspend(apiKey.id)
    expect([await saysOf(old), await saysOf(plainTextKey)]).toEqual(['suspended', 'suspended'])
    await apiKeys.revoke(apiKey.id)
    expect([await saysOf(old), await saysOf(plainTextKey)]).toEqual(['revoked', 'revoked'])
  })

  it('refuses everywhere, because nothing may come between the secret and its answer', async () => {
    const { path, plainTextKey } = await createKey()

    const answer = await http.as('admin').post(`/admin${path}/rotate?everywhere=true`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors[0].pointer).toBe('#/everywhere')
    expect(await saysOf(plainTextKey)).toBe('valid')
  })

  it('refuses a revoked key', async () => {
    const { apiKey, path } = await createKey()
    await apiKeys.revoke(apiKey.id)

    const answer = await http.as('alice').post(path + '/rotate')

    expectProblem(answer, 'api_key_revoked')
  })

  it('is refused for an expired key until it has a later end', async () => {
    const {
      apiKey,
      path,
      plainTextKey: old,
    } = await createKey({
      expiresAt: new Date(Date.now() + 60_000),
    })
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${apiKey.id}'`)
    await until(async () => (await saysOf(old)) === 'expired')

    const answer = await http.as('alice').post(path + '/rotate')

    expectProblem(answer, 'api_key_expired')
    expect(answer.body.detail).toContain('later expiresAt')
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ previousSecret: null })
    expect(await actionsOf(apiKey.id)).not.toContain('rotated')

    const later = new Date(Date.now() + 60_000).toISOString()
    await http.as('alice').patch(path, { expiresAt: later })
    const { plainTextKey } = (await http.as('alice').post(path + '/rotate')).body
    expect(await saysOf(plainTextKey)).toBe('valid')
  })

  it('does not find the key of another user', async () => {
    const { path } = await createKey()

    expect((await http.as('bob').post(path + '/rotate')).status).toBe(404)
    expect((await http.as('bob').delete(path + '/rotation')).status).toBe(404)
    expect((await http.as('admin').post(`/admin${path}/rotate`)).status).toBe(200)
  })

  it.each([30 * day + 1])('refuses a grace of %j', async (given) => {
    const { apiKey, path, plainTextKey } = await createKey()

    const answer = await http.as('alice').post(path + '/rotate', { gracePeriodSeconds: given })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      {
        pointer: '#/gracePeriodSeconds',
        message: 'must be a whole number of seconds from 0 to 2592000',
      },
    ])
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ previousSecret: null })
    expect(await saysOf(plainTextKey)).toBe('valid')
  })

  it('keeps count of the keys of each secret of the app', async () => {
    const own = await createDatabase()
    const before = createTestApiKeys(own, { secrets: secrets.slice(0, 1) })
    const { apiKey, plainTextKey: old } = await before.create(newKey())
    const after = createTestApiKeys(own, { secrets: secrets.toReversed() })
    const { plainTextKey } = await after.rotate(apiKey.id)

    expect([await saysOf(old, after), await saysOf(plainTextKey, after)]).toEqual([
      'valid',
      'valid',
    ])
    expect((await after.health({ livingKeys: true })).livingKeys).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ secret: 0, keys: 1 }),
        expect.objectContaining({ secret: 1, keys: 1 }),
      ]),
    )
    await own.drop()
  })
})

describe('DELETE /:id/rotation', () => {
  it('ends the grace period, once', async () => {
    const { apiKey, plainTextKey: old, path } = await createKey()
    const { plainTextKey } = await apiKeys.rotate(apiKey.id)

    const answer = await http.as('alice').delete(path + '/rotation', { reason: 'all moved' })
    const again = await http.as('alice').delete(path + '/rotation')

    expect(answer.status).toBe(200)
    expect(answer.body).toMatchObject({ id: apiKey.id, previousSecret: null })
    expect(again.body).toEqual(answer.body)
    expect([await saysOf(old), await saysOf(plainTextKey)]).toEqual(['retired', 'valid'])
    expect((await actionsOf(apiKey.id))[0]).toBe('rotation_ended')
    expect((await actionsOf(apiKey.id)).filter((name) => name === 'rotation_ended')).toHaveLength(1)
  })
})

describe('a secret whose grace period is over', () => {
  it('is refused like any bad key, and recorded once', async () => {
    const { apiKey, plainTextKey: old } = await createKey()
    const { plainTextKey: second } = await apiKeys.rotate(apiKey.id)
    expect(await saysOf(second)).toBe('valid')
    await apiKeys.rotate(apiKey.id)

    await endGracePeriod(apiKey.id)
    await until(async () => (await saysOf(second)) === 'retired')
    for (const instance of [apiKeys, elsewhere]) {
      for (const key of [old, second]) expect(await saysOf(key, instance)).toBe('retired')
      await instance.flush()
    }

    expect(await apiKeys.get(apiKey.id)).toMatchObject({ lastUsedAt: expect.any(Date) })
    expect((await actionsOf(apiKey.id)).filter((name) => name === 'retired_secret_used')).toEqual([
      'retired_secret_used',
    ])
  })

  it('aborts the signals of its keys', async () => {
    const { apiKey, plainTextKey: old } = await createKey()
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 1 })
    const verdict = await elsewhere.verify(old)
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey

    await once(signal, 'abort')

    expect(signal.reason).toMatchObject({ code: 'invalid_api_key', reason: 'retired' })
    expect(await saysOf(old)).toBe('retired')
  })

  it('cannot become the secret of another key', async () => {
    const { apiKey } = await createKey()
    await apiKeys.rotate(apiKey.id)

    await expect(
      sequelize.query(
        `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
         SELECT 'mallory', 'x', prefix, postfix, previous_hash, permissions
           FROM api_keys WHERE id = '${apiKey.id}'`,
      ),
    ).rejects.toThrow(/current and retired|Validation error/)
    await expect(
      sequelize.query(`DELETE FROM api_key_retired_secrets WHERE api_key_id = '${apiKey.id}'`),
    ).rejects.toThrow(/foreign key/)
    await rows(`DELETE FROM api_keys WHERE id = '${apiKey.id}'`)
    const left = await rows(
      `SELECT * FROM api_key_retired_secrets WHERE api_key_id = '${apiKey.id}'`,
    )
    expect(left).toEqual([])
  })
})
