import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import type { ApiKeyNotices } from '../../lib'
import type { TestApiKeys } from '../support/app'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'dying-process.ts')

const day = 86_400_000

const world = useWorldForEach()

/** Makes a key of an age, which expires after a time, both in days. */
async function createOldKey({ bornDaysAgo = 30, expiresInDays = 0, revoked = false }) {
  const { id } = await world.createKey({ status: revoked ? 'REVOKED' : 'ACTIVE' })
  await world.rows(
    `UPDATE api_keys SET created_at = now() - $1 * interval '1 day',
                         expires_at = now() + $2 * interval '1 day' WHERE id = $3`,
    [bornDaysAgo, expiresInDays, id],
  )
  return id
}

/** Collects the keys that are reported, with the days that are left. */
function listen(keys: TestApiKeys) {
  const reported: [id: string, daysLeft: number][] = []
  keys.on('expiring', ({ apiKey, daysLeft }) => reported.push([apiKey.id, daysLeft]))
  return reported
}

describe('expiring', () => {
  it('is reported exactly twice, 7 days and 1 day before', async () => {
    await createOldKey({ expiresInDays: 7.1 })
    const week = await createOldKey({ expiresInDays: 6.9 })
    const oneDay = await createOldKey({ expiresInDays: 0.9 })
    await createOldKey({ expiresInDays: -0.1 })
    await createOldKey({ expiresInDays: 6, revoked: true })
    await world.createKey()
    const reported = listen(world.apiKeys)

    expect(await world.apiKeys.announceExpiring()).toBe(2)

    expect(reported).toEqual([
      [oneDay, 1],
      [week, 7],
    ])
  })

  it('is not reported for keys that were created after the time of the notice', async () => {
    await createOldKey({ bornDaysAgo: 1, expiresInDays: 5 })
    await createOldKey({ bornDaysAgo: 0, expiresInDays: 0.5 })
    const short = await createOldKey({ bornDaysAgo: 2, expiresInDays: 0.5 })
    const reported = listen(world.apiKeys)

    await world.apiKeys.announceExpiring()

    expect(reported).toEqual([[short, 1]])
  })

  it('is reported by one of all processes', async () => {
    const ids = []
    for (let number = 0; number < 20; number++) ids.push(await createOldKey({ expiresInDays: 3 }))
    const fleet = [1, 2, 3, 4].map(() => world.createProcess().apiKeys)
    const reported = fleet.map(listen)

    await Promise.all([...fleet, ...fleet].map((keys) => keys.announceExpiring()))

    expect(
      reported
        .flat()
        .map(([id]) => id)
        .toSorted(),
    ).toEqual(ids.toSorted())
  })

  it('waits for a listener', async () => {
    await createOldKey({ expiresInDays: 3 })

    expect(await world.apiKeys.announceExpiring()).toBe(0)

    const reported = listen(world.apiKeys)
    expect(await world.apiKeys.announceExpiring()).toBe(1)
    expect(reported).toHaveLength(1)
  })

  it('is reported again for a new expiry', async () => {
    const id = await createOldKey({ expiresInDays: 3 })
    const reported = listen(world.apiKeys)
    await world.apiKeys.announceExpiring()
    await world.apiKeys.announceExpiring()
    expect(reported).toEqual([[id, 7]])

    await world.apiKeys.update(id, { expiresAt: new Date(Date.now() + 4 * day) })
    await world.apiKeys.announceExpiring()

    expect(reported).toEqual([
      [id, 7],
      [id, 7],
    ])
  })

  it('is reported later if the database fails half-way', async () => {
    for (let number = 0; number < 3; number++) await createOldKey({ expiresInDays: 3 })
    const reported = listen(world.apiKeys)
    await world.rows('ALTER TABLE api_keys RENAME COLUMN description TO away')
    await expect(world.apiKeys.announceExpiring()).rejects.toThrow('description does not exist')
    await world.rows('ALTER TABLE api_keys RENAME COLUMN away TO description')
    expect(reported).toEqual([])

    expect(await world.apiKeys.announceExpiring()).toBe(3)

    expect(reported).toHaveLength(3)
  })

  it('is reported again until all listeners have succeeded', async () => {
    const failing = await createOldKey({ expiresInDays: 2 })
    const taken = await createOldKey({ expiresInDays: 3 })
    const reported = listen(world.apiKeys)
    const failures: unknown[] = []
    world.apiKeys.on('error', (failure) => failures.push(failure))
    const away = new Error('the mail server is away')
    const off = world.apiKeys.on('expiring', async ({ apiKey }) => {
      if (apiKey.id === failing) throw away
    })

    expect(await world.apiKeys.announceExpiring()).toBe(1)
    expect(await world.apiKeys.announceExpiring()).toBe(0)
    off()
    expect(await world.apiKeys.announceExpiring()).toBe(1)
    expect(await world.apiKeys.announceExpiring()).toBe(0)

    expect(reported.map(([id]) => id)).toEqual([failing, taken, failing, failing])
    expect(failures).toEqual([1, 2].map(() => ({ error: away, notice: 'expiring' })))
  })

  it('is reported again if the process that reported it was killed', async () => {
    const id = await createOldKey({ expiresInDays: 3 })
    const dying = fork(program, [world.database.url], { execArgv: ['--require', register] })
    expect(await once(dying, 'exit')).toEqual([null, 'SIGKILL'])
    const reported = listen(world.apiKeys)

    expect(await world.apiKeys.announceExpiring()).toBe(1)

    expect(reported).toEqual([[id, 7]])
  })

  it('is not reported twice, however long a listener takes', async () => {
    await createOldKey({ expiresInDays: 3 })
    const reported = listen(world.apiKeys)
    const working: (() => void)[] = []
    world.apiKeys.on('expiring', () => new Promise<void>((resolve) => working.push(resolve)))
    const other = world.createProcess().apiKeys
    const reportedByOther = listen(other)
    const announcing = world.apiKeys.announceExpiring()
    await until(() => reported.length > 0)

    // Longer than a claim lasts without a renewal.
    expect(await other.announceExpiring()).toBe(0)
    for (const finish of working) finish()

    expect(await announcing).toBe(1)
    expect(await other.announceExpiring()).toBe(0)
    expect(reportedByOther).toEqual([])
  })

  it('is reported without a call while there is a listener', async () => {
    const id = await createOldKey({ expiresInDays: 3 })

    const { apiKey, daysLeft } = await new Promise<ApiKeyNotices['expiring']>((resolve) => {
      world.apiKeys.on('expiring', resolve)
    })

    expect([apiKey.id, daysLeft]).toEqual([id, 7])
    expect(apiKey).not.toHaveProperty('hash')
  })
})
