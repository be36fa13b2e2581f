import { randomBytes } from 'node:crypto'
import { EventEmitter } from 'node:events'

import { setClock } from '../support/clock'
import { newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld, type Process } from '../support/world'

const day = 86_400_000
const secret = randomBytes(32)
const options = { maxIdleDays: 30, lastUsedResolutionMs: 0, maxStalenessMs: 500, secrets: [secret] }
const { apiKeys, http, rows, createKey, createProcess } = useWorld({
  options,
  routes: (app, { requirePermission }) =>
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => res.json([])),
})

afterEach(() => jest.useRealTimers())

const expired = { valid: false, code: 'expired' }
const valid = { valid: true }

function pass(ms: number) {
  setClock(new Date(Date.now() + ms))
}

/** Has a process cache a key, so that it needs no look-up after the bound, and returns how many it has sent by then. */
async function follow({ apiKeys, statements }: Process, plainTextKey: string, boundMs: number) {
  await until(async () => {
    const { length } = statements.lookUps()
    pass(boundMs + 1)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject(valid)
    return length > 0 && statements.lookUps().length === length
  })
  await apiKeys.flush()
  return statements.lookUps().length
}

/** Moves all that says that a key is in use into the past. */
async function age(id: string, ms: number) {
  const moved = ['created_at', 'last_used_at', 'previous_last_used_at', 'renewed_at']
    .map((name) => `${name} = ${name} - interval '${ms} milliseconds'`)
    .join(', ')
  await rows(`UPDATE api_keys SET ${moved} WHERE id = $1`, [id])
}

async function countLiving() {
  const { livingKeys = [] } = await apiKeys.health({ livingKeys: true })
  return livingKeys.reduce((sum, { keys }) => sum + keys, 0)
}

/** Makes a key that was not used for so many days, and returns its id. */
async function makeIdle(days: number) {
  const { id } = await createKey({ userId: newUser() })
  await age(id, days * day)
  return id
}

async function idleKey() {
  const key = await createKey({ userId: newUser() })
  await age(key.id, 30 * day)
  return key
}

describe('a key that is not used', () => {
  it('expires with the millisecond after so many days, for processes that have cached it and for others', async () => {
    const [one, other] = [createProcess(options), createProcess(options)]
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    const { createdAt } = await apiKeys.get(id)
    const end = createdAt.getTime() + 30 * day
    await one.apiKeys.verify(plainTextKey)
    const { lastUsedAt } = await one.apiKeys.get(id)
    const endOfUsed = Number(lastUsedAt?.getTime()) + 30 * day

    setClock(new Date(end - 1))
    expect(await other.apiKeys.explain(plainTextKey)).toMatchObject({
      conditions: expect.arrayContaining([
        expect.objectContaining({ because: expect.stringContaining('Without a further use') }),
      ]),
    })
    setClock(new Date(endOfUsed))
    expect(await one.apiKeys.verify(plainTextKey)).toEqual(expired)
    expect(await other.apiKeys.verify(plainTextKey)).toEqual(expired)
    await one.apiKeys.flush()
  })

  it('counts from its creation if it was never used, and the refusal is that of every bad key', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    await age(id, 30 * day - 60_000)
    const { id: idle, plainTextKey: idleKeyText } = await idleKey()

    expect(await apiKeys.verify(plainTextKey)).toMatchObject(valid)
    expect(await apiKeys.verify(idleKeyText)).toEqual(expired)
    await apiKeys.revoke(idle)
    const answers = [
      await http.with(idleKeyText).get('/graphs'),
      await http.with((await idleKey()).plainTextKey).get('/graphs'),
    ]
    expect(answers.map(({ status }) => status)).toEqual([401, 401])
    expect(answers[0]?.text).toBe(answers[1]?.text)
  })

  it('is never refused because another process used it, and that costs one look-up at the end', async () => {
    // The bound is long, so that no poll is late for it.
    const patient = { ...options, maxStalenessMs: 60_000 }
    const [user, bystander] = [createProcess(patient), createProcess(patient)]
    const { plainTextKey } = await createKey({ userId: newUser() })
    const [ofUser, ofBystander] = [
      await follow(user, plainTextKey, 60_000),
      await follow(bystander, plainTextKey, 60_000),
    ]

    for (let used = 0; used < 2; used++) {
      pass(20 * day)
      expect(await user.apiKeys.verify(plainTextKey)).toMatchObject(valid)
      await user.apiKeys.flush()
    }
    // The process of its uses knows them without a look-up, although its row is 40 days old.
    expect(user.statements.lookUps()).toHaveLength(ofUser)
    expect(bystander.statements.lookUps()).toHaveLength(ofBystander)
    for (let use = 0; use < 50; use++) {
      expect(await bystander.apiKeys.verify(plainTextKey)).toMatchObject(valid)
    }
    expect(bystander.statements.lookUps()).toHaveLength(ofBystander + 1)
  })

  it('costs one look-up for each bound while it is sent, not one for each request', async () => {
    const patient = createProcess({ ...options, maxStalenessMs: 60_000 })
    const { plainTextKey } = await idleKey()

    for (let request = 0; request < 200; request++) {
      expect(await patient.apiKeys.verify(plainTextKey)).toEqual(expired)
    }
    const { length } = patient.statements.lookUps()
    // A look-up may be sent once more because of a change of another key.
    expect(length).toBeLessThan(4)
    pass(61_000)
    expect(await patient.apiKeys.verify(plainTextKey)).toEqual(expired)
    expect(patient.statements.lookUps().length).toBeGreaterThan(length)
  })

  it('is in use by each of its secrets, written or not', async () => {
    const { id, plainTextKey: old } = await createKey({ userId: newUser() })
    // A process that has met other clocks may count the grace period by them.
    const process = createProcess({ ...options, lastUsedResolutionMs: day })
    const { plainTextKey } = await process.apiKeys.rotate(id, { gracePeriodSeconds: 2_592_000 })
    expect(await process.apiKeys.verify(plainTextKey)).toMatchObject(valid)
    await process.apiKeys.flush()
    pass(29 * day)
    expect(await process.apiKeys.verify(old)).toMatchObject(valid)
    pass(20 * day)

    expect(await process.apiKeys.verify(plainTextKey)).toMatchObject(valid)
  })

  it('is not refused because uses are noted late: it expires twice the resolution later', async () => {
    const rough = createProcess({ ...options, lastUsedResolutionMs: 3_600_000 })
    const { plainTextKey } = await createKey({ userId: newUser() })
    expect(await rough.apiKeys.verify(plainTextKey)).toMatchObject(valid)
    await rough.apiKeys.flush()
    const at = Date.now()
    pass(3_590_000)
    // This use is not noted, because the last one that was noted is less than an hour ago.
    expect(await rough.apiKeys.verify(plainTextKey)).toMatchObject(valid)

    setClock(new Date(at + 30 * day + 3_590_000))
    expect(await rough.apiKeys.verify(plainTextKey)).toMatchObject(valid)
  })

  it('expires by its expiresAt all the same, without a further look-up', async () => {
    const process = createProcess({ ...options, maxStalenessMs: 60_000 })
    const expiresAt = new Date(Date.now() + 10 * day)
    const { plainTextKey } = await createKey({ userId: newUser(), expiresAt })
    const length = await follow(process, plainTextKey, 60_000)

    setClock(expiresAt)
    expect(await process.apiKeys.verify(plainTextKey)).toEqual(expired)
    expect(process.statements.lookUps()).toHaveLength(length)
  })

  it('aborts the signal of a request that is open for so long, unless the key was used elsewhere', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    const { id: used, plainTextKey: usedKey } = await createKey({ userId: newUser() })
    await Promise.all([id, used].map((each) => age(each, 30 * day - 1_000)))
    const request = new EventEmitter()
    const [idle, busy] = await Promise.all(
      [plainTextKey, usedKey].map(async (key) => {
        const verdict = await apiKeys.verify(key, { until: request })
        if (!verdict.valid) throw new Error(verdict.code)
        return verdict.apiKey.signal
      }),
    )
    // The use of the first key was long ago, as if its request had been open for all of the time.
    await apiKeys.flush()
    await age(id, 30 * day)

    await until(async () => idle?.aborted === true)
    expect(busy?.aborted).toBe(false)
    expect(idle?.reason).toMatchObject({ code: 'invalid_api_key' })
    request.emit('close')
  })
})

describe('an idle key', () => {
  it('shows when it expires, and is found by isExpired', async () => {
    const userId = newUser()
    const { id } = await createKey({ userId })
    const { id: idle } = await createKey({ userId })
    const fresh = await apiKeys.get(id)
    expect(fresh.idleExpiresAt).toEqual(new Date(fresh.createdAt.getTime() + 30 * day))
    await age(idle, 30 * day)

    expect(await apiKeys.get(id)).toMatchObject({ isExpired: false })
    expect(await apiKeys.get(idle)).toMatchObject({
      isExpired: true,
      status: 'ACTIVE',
      expiresAt: null,
    })
    const listOf = async (isExpired: boolean) =>
      (await apiKeys.list({ userId, isExpired })).apiKeys.map((key) => key.id)
    expect([await listOf(true), await listOf(false)]).toEqual([[idle], [id]])
    expect((await http.as(userId).get(`/api-keys/${idle}`)).body).toMatchObject({
      isExpired: true,
      idleExpiresAt: expect.any(String),
    })
  })

  it('shows a use that is not written yet', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    await age(id, 29 * day)
    await apiKeys.verify(plainTextKey)

    const { lastUsedAt, idleExpiresAt } = await apiKeys.get(id)
    expect(idleExpiresAt?.getTime()).toBe(Number(lastUsedAt?.getTime()) + 30 * day)
  })

  it('is no living key for health', async () => {
    const before = await countLiving()
    await createKey({ userId: newUser() })
    await idleKey()

    expect(await countLiving()).toBe(before + 1)
  })

  it('gets no new secret, and works in all processes once it is reactivated', async () => {
    const other = createProcess(options).apiKeys
    const { id, plainTextKey } = await idleKey()
    expect(await other.verify(plainTextKey)).toEqual(expired)
    await expect(apiKeys.rotate(id)).rejects.toMatchObject({ code: 'api_key_expired' })

    const record = await apiKeys.reactivate(id, { reason: 'still needed' })

    expect(record).toMatchObject({ status: 'ACTIVE', isExpired: false })
    expect(record).toEqual(await apiKeys.get(id))
    expect(await apiKeys.verify(plainTextKey)).toMatchObject(valid)
    await until(async () => (await other.verify(plainTextKey)).valid)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({ action: 'reactivated', reason: 'still needed' })
    // A key that is not idle is not changed.
    expect(await apiKeys.reactivate(id)).toMatchObject({ updatedAt: record.updatedAt })
    expect((await apiKeys.events({ apiKeyId: id })).events).toHaveLength(events.length)
  })

  it('is no more idle after a rotation, or the end of a suspension', async () => {
    const { id } = await createKey({ userId: newUser() })
    await age(id, 29 * day)
    const { apiKey } = await apiKeys.rotate(id)
    expect(apiKey.idleExpiresAt?.getTime()).toBeGreaterThan(Date.now() + 29 * day)
    expect(apiKey).toEqual(await apiKeys.get(id))
    await age(id, 30 * day)
    await apiKeys.suspend(id)

    const record = await apiKeys.reactivate(id)

    expect(record).toMatchObject({ status: 'ACTIVE', isExpired: false })
    expect(record).toEqual(await apiKeys.get(id))
  })

  it('is not brought back by unrevoke', async () => {
    const undoing = createProcess({ ...options, undoMinutes: 10 }).apiKeys
    const { id } = await idleKey()
    await undoing.revoke(id)

    await expect(undoing.unrevoke(id)).rejects.toMatchObject({ code: 'api_key_revoked' })
  })

  it('counts as a key of its owner, because it may be reactivated', async () => {
    const strict = createProcess({ ...options, maxKeysPerOwner: 1 }).apiKeys
    const { userId } = await idleKey()

    await expect(
      strict.create({ userId, name: 'Second', permissions: ['READ_GRAPH'] }),
    ).rejects.toMatchObject({ code: 'too_many_api_keys' })
  })

  it('leaves an entry if its idleness is ended by hand, and the log reports that', async () => {
    const other = createProcess(options).apiKeys
    const { id, plainTextKey } = await idleKey()
    expect(await other.verify(plainTextKey)).toEqual(expired)
    await rows('UPDATE api_keys SET renewed_at = now() WHERE id = $1', [id])

    await until(async () => (await other.verify(plainTextKey)).valid)
    expect((await apiKeys.events({ apiKeyId: id })).events[0]).toMatchObject({
      action: 'updated',
      actorType: 'database',
    })
    // The clock of this process was set, which the trail finds as well.
    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults.filter(({ kind }) => kind === 'contradicted')).toEqual([])
  })

  it('without the option is no such key', async () => {
    const without = createProcess({ ...options, maxIdleDays: undefined }).apiKeys
    const { id, plainTextKey } = await idleKey()

    expect(await without.verify(plainTextKey)).toMatchObject(valid)
    const record = await without.get(id)
    expect(record).toMatchObject({ isExpired: false })
    expect(record).not.toHaveProperty('idleExpiresAt')
    expect((await without.reactivate(id)).updatedAt).toEqual(record.updatedAt)
  })
})

describe('expiring', () => {
  it('is reported before a key expires because it is idle, and not for keys in use', async () => {
    const { apiKeys: announcing } = createProcess(options)
    const weekly = createProcess({ ...options, maxIdleDays: 7 }).apiKeys
    const reported: [id: string, daysLeft: number][] = []
    announcing.on('expiring', ({ apiKey, daysLeft }) => reported.push([apiKey.id, daysLeft]))
    weekly.on('expiring', ({ apiKey, daysLeft }) => reported.push([apiKey.id, daysLeft]))
    await rows(`UPDATE api_keys SET renewed_at = now()`)
    const [week, last] = [await makeIdle(24), await makeIdle(29.5)]
    await makeIdle(20)
    await makeIdle(31)

    expect(await announcing.announceExpiring()).toBe(2)
    expect(reported.splice(0)).toEqual([
      [last, 1],
      [week, 7],
    ])
    expect(await announcing.announceExpiring()).toBe(0)

    await rows(`UPDATE api_keys SET renewed_at = now()`)
    // It is used each day, and so always less than 7 days from its end.
    await makeIdle(1)
    expect(await weekly.announceExpiring()).toBe(0)
    expect(reported).toEqual([])
  })
})
