import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from 'pg'
import { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { startFleet, type Fleet } from './fleet'
import { startProxy, type Proxy } from '../support/proxy'
import { rounds } from './rounds'
import { readOne, startServer, waitForReplay, type Server } from './server'
import { boundMs, createKeys, expectHeld, type IssuedKey, startTrial, watchTrial } from './trial'
import { createCleanup, monotonicMs, waitUntil } from './waiting'

const cleanup = createCleanup()

afterEach(() => cleanup.run())

/** A server, its keys, and processes that reach it over a network that the spec controls. */
async function setUp(settings: Record<string, string> = {}) {
  const server = await startServer(settings)
  cleanup.defer(() => server.remove())
  const proxy = await startProxy(server.port)
  cleanup.defer(() => proxy.close())
  const apiKeys = manage(server)
  await apiKeys.migrate()
  return { server, proxy, apiKeys }
}

async function startFleetThrough(proxy: Proxy, server: Server): Promise<Fleet> {
  const fleet = await startFleet({ url: proxy.through(server.url) })
  cleanup.defer(() => fleet.stop())
  return fleet
}

/** The keys of the server that runs now. */
function manage(server: Server): TestApiKeys {
  return createTestApiKeys({ connect: () => server.connect() })
}

function connectThrough(proxy: Proxy, server: Server): Sequelize {
  const sequelize = new Sequelize(proxy.through(server.url), { logging: false })
  cleanup.defer(() => sequelize.close())
  return sequelize
}

/** Writes everything that a process writes before it verifies, because a standby would refuse that. */
async function relyOn(apiKeys: TestApiKeys, keys: readonly IssuedKey[]) {
  for (const { plainTextKey } of keys) await apiKeys.verify(plainTextKey)
  await apiKeys.close()
}

function revokeBySql(sequelize: Sequelize, keys: readonly IssuedKey[]) {
  const ids = keys.map(({ id }) => `'${id}'`).join(', ')
  return sequelize.query(
    `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE id IN (${ids})`,
  )
}

/**
 * Keeps entries of the audit trail from being sealed until the server ends. A seal survives a crash with all commits
 * before it, whatever the settings.
 */
async function holdSealing(server: Server) {
  const client = new Client(server.url)
  client.on('error', () => {})
  await client.connect()
  await client.query('BEGIN; SELECT FROM api_key_audit_head FOR UPDATE')
}

/** Stops the process that soon makes commits survive a crash although nobody waits for that. */
async function stopWalWriter(sequelize: Sequelize) {
  const { pid } = await readOne<{ pid: number }>(
    sequelize,
    `SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'`,
  )
  process.kill(pid, 'SIGSTOP')
}

async function newestRevision(sequelize: Sequelize): Promise<number> {
  const { newest } = await readOne<{ newest: number }>(
    sequelize,
    'SELECT max(revision)::float8 AS newest FROM api_key_revisions',
  )
  return newest
}

describe.each(rounds)('the bound, round %i, holds when the server', () => {
  it('is restarted', async () => {
    const { server, proxy, apiKeys } = await setUp()
    const fleet = await startFleetThrough(proxy, server)
    const trial = await startTrial({ fleet, apiKeys, doomed: 4 })

    await trial.end(() => apiKeys.revoke(firstOf(trial.doomed).id), trial.doomed.slice(0, 1))
    await apiKeys.close()
    await trial.outage(async () => {
      await server.stop()
      await sleep(boundMs + 500)
      await server.start()
      proxy.pointAt(server.port)
    })
    await trial.end(() => revokeBySql(server.connect(), trial.doomed), trial.doomed.slice(1))

    await expectHeld(trial)
  })

  it('crashes, with synchronous_commit off', async () => {
    const { server, proxy, apiKeys } = await setUp({ synchronous_commit: 'off' })
    const fleet = await startFleetThrough(proxy, server)
    const trial = await startTrial({ fleet, apiKeys })
    const sequelize = server.connect()
    await sequelize.query('CREATE TABLE lost (number int)')
    await holdSealing(server)
    await stopWalWriter(sequelize)
    await sequelize.query('CHECKPOINT')

    await trial.outage(async () => {
      await trial.end(() => revokeBySql(sequelize, trial.doomed))
      // Only the crash itself proves that this server loses commits.
      await sequelize.query('INSERT INTO lost VALUES (1)')
      await server.crash()
      await server.start()
      proxy.pointAt(server.port)
    })

    const { count } = await readOne<{ count: number }>(
      server.connect(),
      'SELECT count(*)::int AS count FROM lost',
    )
    expect(count).toBe(0)
    await expectHeld(trial)
  })

  it('fails over to a standby that missed the last changes', async () => {
    const { server: primary, proxy, apiKeys } = await setUp()
    const good = await createKeys(apiKeys, 8)
    const doomed = await createKeys(apiKeys, 60)
    const undone = await createKeys(apiKeys, 60)
    await apiKeys.close()
    let replication: Proxy | undefined
    const standby = await primary.copyAsStandby(async (port) => {
      replication = await startProxy(port)
      return replication.port
    })
    cleanup.defer(() => standby.remove())
    cleanup.defer(() => replication?.close())
    proxy.pointAt(primary.port)
    const fleet = await startFleetThrough(proxy, primary)
    const [onPrimary, onStandby] = [primary.connect(), standby.connect()]
    const trial = await watchTrial({ fleet, good, doomed: [...doomed, ...undone] })
    await waitForReplay(onPrimary, onStandby)

    // The standby no longer gets any changes. Every process follows the primary to a number that it alone knows.
    replication?.refuse()
    trial.exclude(undone)
    for (const key of undone) await revokeBySql(onPrimary, [key])
    const lastOfPrimary = await newestRevision(onPrimary)
    await sleep(500)

    const failover = trial.outage(async () => {
      proxy.refuse()
      await primary.stop()
      await onStandby.query('SELECT pg_promote(true, 30)')
      const ends = trial.end(async () => {
        for (const key of doomed) await revokeBySql(onStandby, [key])
        const missing = lastOfPrimary - (await newestRevision(onStandby))
        expect(missing).toBeLessThanOrEqual(0)
      }, doomed)
      await ends
      proxy.pointAt(standby.port)
      await proxy.accept()
    })
    await failover

    await expectHeld(trial)
  })

  it('fails over to a standby that missed new keys, which only the change of servers shows', async () => {
    const { server: primary, proxy, apiKeys } = await setUp()
    await relyOn(apiKeys, await createKeys(apiKeys, 1))
    let replication: Proxy | undefined
    const standby = await primary.copyAsStandby(async (port) => {
      replication = await startProxy(port)
      return replication.port
    })
    cleanup.defer(() => standby.remove())
    cleanup.defer(() => replication?.close())
    proxy.pointAt(primary.port)
    const [onPrimary, onStandby] = [primary.connect(), standby.connect()]
    await waitForReplay(onPrimary, onStandby)
    replication?.refuse()
    const { plainTextKey } = firstOf(await createKeys(manage(primary), 1))
    const user = createTestApiKeys({ connect: () => connectThrough(proxy, primary) })
    expect(await user.verify(plainTextKey)).toMatchObject({ valid: true })
    const newest = await newestRevision(onPrimary)

    proxy.refuse()
    await primary.stop()
    await onStandby.query('SELECT pg_promote(true, 30)')
    expect(await newestRevision(onStandby)).toBe(newest)
    proxy.pointAt(standby.port)
    await proxy.accept()

    await waitUntil('the lost key is unknown', async () => {
      const verdict = await user.verify(plainTextKey).catch(() => undefined)
      return verdict?.valid === false && verdict.code === 'unknown'
    })
    await user.close()
  })

  it('is suddenly a standby that lags behind', async () => {
    const { server: primary, proxy, apiKeys } = await setUp()
    const good = await createKeys(apiKeys, 8)
    const doomed = await createKeys(apiKeys, 2)
    await relyOn(apiKeys, good)
    const standby = await primary.copyAsStandby((port) => port)
    cleanup.defer(() => standby.remove())
    proxy.pointAt(primary.port)
    const fleet = await startFleetThrough(proxy, primary)
    const [onPrimary, onStandby] = [primary.connect(), standby.connect()]
    await waitForReplay(onPrimary, onStandby)
    await onStandby.query('SELECT pg_wal_replay_pause()')
    const recent = await createKeys(manage(primary), 2)
    const trial = await watchTrial({ fleet, good: [...good, ...recent], doomed })

    let acceptedLate = 0
    await trial.outage(async () => {
      await trial.end(() => revokeBySql(onPrimary, doomed))
      proxy.pointAt(standby.port)
      proxy.cut()
      const cutAt = monotonicMs()
      await sleep(3000)
      for (const { sightings } of await fleet.reports()) {
        for (const { lastAcceptedAt } of sightings) {
          acceptedLate = Math.max(acceptedLate, lastAcceptedAt - cutAt)
        }
      }
      proxy.pointAt(primary.port)
      proxy.cut()
    })

    // Good keys are not accepted either, because a standby may be behind.
    expect(acceptedLate).toBeLessThanOrEqual(boundMs)
    await expectHeld(trial)
  })

  it('is first met as a standby, by a process that has just begun', async () => {
    const { server: primary, proxy, apiKeys } = await setUp()
    const good = await createKeys(apiKeys, 2)
    await relyOn(apiKeys, good)
    const standby = await primary.copyAsStandby((port) => port)
    cleanup.defer(() => standby.remove())
    const [onPrimary, onStandby] = [primary.connect(), standby.connect()]
    await waitForReplay(onPrimary, onStandby)
    await onStandby.query('SELECT pg_wal_replay_pause()')
    const recent = await createKeys(manage(primary), 2)
    proxy.pointAt(standby.port)
    const fleet = await startFleetThrough(proxy, standby)
    const trial = await watchTrial({ fleet, good: [...good, ...recent], doomed: [], isWarm: false })

    await trial.outage(async () => {
      await sleep(1500)
      const reports = await fleet.reports()
      expect(reports.flatMap(({ sightings }) => sightings.map(({ accepted }) => accepted))).toEqual(
        reports.flatMap(({ sightings }) => sightings.map(() => 0)),
      )
      proxy.pointAt(primary.port)
      proxy.cut()
    })

    await expectHeld(trial)
  })
})

function firstOf<Item>(items: readonly Item[]): Item {
  const [first] = items
  if (first === undefined) throw new Error('there is none')
  return first
}
