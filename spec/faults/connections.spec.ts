import { setTimeout as sleep } from 'node:timers/promises'

import type { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase } from '../support/database'
import { startFleet, type Fleet } from './fleet'
import { pgbouncerVersion, startPgbouncer } from './pgbouncer'
import { startProxy, type Proxy } from '../support/proxy'
import { rounds } from './rounds'
import { readOne } from './server'
import { expectHeld, startTrial } from './trial'
import { createCleanup, waitUntil } from './waiting'

const cleanup = createCleanup()

let url: string
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeAll(async () => {
  const database = await createDatabase()
  cleanup.defer(() => database.drop())
  url = database.url
  sequelize = database.connect()
  apiKeys = createTestApiKeys(database, { maxKeysPerOwner: Infinity })
  cleanup.defer(() => apiKeys.close())
})

afterAll(() => cleanup.run())

/** Ends the sessions of the database that meet the condition, except the sessions of this spec, and counts them. */
async function terminate(condition: string): Promise<number> {
  const { count } = await readOne<{ count: number }>(
    sequelize,
    `SELECT count(pg_terminate_backend(pid))::int AS count FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${condition}`,
  )
  return count
}

const listens = `query LIKE '%LISTEN %' AND application_name LIKE 'fleet%'`

describe.each(rounds)('the bound, round %i, holds', () => {
  describe('behind a network that fails', () => {
    let fleet: Fleet
    let proxy: Proxy

    beforeAll(async () => {
      proxy = await startProxy(Number(new URL(url).port))
      cleanup.defer(() => proxy.close())
      fleet = await startFleet({ url: `${proxy.through(url)}?application_name=fleet` })
      cleanup.defer(() => fleet.stop())
    })

    afterAll(() => fleet.stop())

    it('when the connections of the listener are killed', async () => {
      const trial = await startTrial({ fleet, apiKeys })
      await waitUntil('every listener is up', async () => (await listeners()).every(isUp))

      expect(await terminate(listens)).toBe(fleet.workers.length)
      await trial.end(
        () => apiKeys.revokeAll({ type: 'user', id: 'alice' }),
        [...trial.doomed, ...trial.good],
      )

      await expectHeld(trial)
      await waitUntil('every listener is up again', async () => (await listeners()).every(isUp))
    })

    async function listeners() {
      return Promise.all(fleet.workers.map((worker) => worker.call('health')))
    }

    it('when the listener is killed again and again', async () => {
      const trial = await startTrial({ fleet, apiKeys })

      for (let times = 0; times < 10; times++) {
        await terminate(listens)
        if (times === 5) await trial.end(() => sequelize.query(revoke(trial.doomed)))
        await sleep(100)
      }

      await expectHeld(trial)
    })

    it('when every session is killed', async () => {
      const trial = await startTrial({ fleet, apiKeys })

      await trial.outage(() => terminate(`application_name LIKE 'fleet%'`))
      await trial.end(() => sequelize.query(revoke(trial.doomed)))

      await expectHeld(trial)
    })

    it('when the network hangs, whatever becomes of its connections then', async () => {
      const outcomes = await Promise.allSettled(hangs.map((what) => hang(what)))

      expect(outcomes).toEqual(hangs.map(() => ({ status: 'fulfilled', value: undefined })))
    })

    it('when connections are refused for a while', async () => {
      const trial = await startTrial({ fleet, apiKeys })

      await trial.outage(async () => {
        proxy.refuse()
        await trial.end(() => sequelize.query(revoke(trial.doomed)))
        await sleep(3000)
        await proxy.accept()
      })

      await expectHeld(trial)
    })

    it(`when the app's pool is exhausted`, async () => {
      const trial = await startTrial({ fleet, apiKeys })
      await Promise.all(fleet.workers.map((worker) => worker.call('exhaustPool')))
      try {
        await trial.end(() => sequelize.query(revoke(trial.doomed)))

        await expectHeld(trial)
        const cold = await startTrial({ fleet, apiKeys })
        await expectHeld(cold)
      } finally {
        await Promise.all(fleet.workers.map((worker) => worker.call('releasePool')))
      }
    })
  })

  const behindPgbouncer = pgbouncerVersion === undefined ? describe.skip : describe
  if (pgbouncerVersion === undefined) {
    console.log('Left out, for want of the program pgbouncer: what holds behind PgBouncer')
  }

  behindPgbouncer('behind PgBouncer in transaction mode', () => {
    let bouncer: Awaited<ReturnType<typeof startPgbouncer>>

    beforeAll(async () => {
      bouncer = await startPgbouncer(url)
      cleanup.defer(() => bouncer.stop())
    })

    afterAll(() => bouncer.stop())

    it('with the options that it needs, and answers every call', async () => {
      const options = { preparedStatements: false, listen: false }
      const fleet = await startFleet({ url: bouncer.url, options })
      try {
        const trial = await startTrial({ fleet, apiKeys })

        const [first, ...others] = trial.doomed
        if (!first) throw new Error('there are two')
        await trial.end(() => sequelize.query(revoke([first])), [first])
        // A poll long after the first revocation reports the second.
        await sleep(1500)
        await trial.end(() => sequelize.query(revoke(others)), others)

        await expectHeld(trial)
      } finally {
        await fleet.stop()
      }
    })

    it('with the default options', async () => {
      const fleet = await startFleet({ url: bouncer.url })
      try {
        const trial = await startTrial({ fleet, apiKeys, isWarm: false })
        await sleep(2000)

        await trial.end(() => sequelize.query(revoke(trial.doomed)))

        await expectHeld(trial, { answers: 'any' })
        const healths = await Promise.all(fleet.workers.map((worker) => worker.call('health')))
        expect(healths.some(isUp)).toBe(false)
      } finally {
        await fleet.stop()
      }
    })
  })
})

/** The time for which the network hangs, and the state of its connections once it is back. */
const hangs = [
  { ms: 10_000, frozen: 'resumed' },
  { ms: 10_000, frozen: 'abandoned' },
  { ms: 10_000, frozen: 'abandoned with those begun since' },
  // Shorter, so that the driver has not given up any of these connections by then.
  { ms: 5_000, frozen: 'abandoned with those begun since' },
] as const

async function hang({ ms, frozen }: (typeof hangs)[number]) {
  const proxy = await startProxy(Number(new URL(url).port))
  const fleet = await startFleet({ url: proxy.through(url) })
  try {
    const trial = await startTrial({ fleet, apiKeys })

    await trial.outage(async () => {
      proxy.freeze()
      await trial.end(() => sequelize.query(revoke(trial.doomed)))
      await sleep(ms)
      proxy.thaw(frozen)
    })

    await expectHeld(trial).catch((error: unknown) => {
      throw new Error(`${frozen} after ${ms} ms: ${String(error)}`, { cause: error })
    })
  } finally {
    await fleet.stop()
    await proxy.close()
  }
}

function isUp(health: unknown): boolean {
  return (health as { listener?: string }).listener === 'up'
}

function revoke(keys: readonly { id: string }[]) {
  const ids = keys.map(({ id }) => `'${id}'`).join(', ')
  return `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE id IN (${ids})`
}
