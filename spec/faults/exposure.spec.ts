import { setTimeout as sleep } from 'node:timers/promises'

import express from 'express'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createHttp } from '../support/http'
import { heavyLoad, startFleet, type Fleet } from './fleet'
import { roundCount } from './rounds'
import { createKeys, expectHeld, latencies, startTrial, type IssuedKey } from './trial'
import { monotonicMs } from './waiting'

const size = 8
const reportsPerBatch = 20
const batches = 3 * roundCount

let database: Database
let apiKeys: TestApiKeys
let fleet: Fleet

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, {
    maxKeysPerOwner: Infinity,
    maxExposedPerMinute: Infinity,
  })
  fleet = await startFleet({ size, url: database.url })
})

afterAll(async () => {
  await fleet.stop()
  await apiKeys.close()
  await database.drop()
})

/** Makes the function that reports keys over HTTP, each call from another address. */
function createReporter() {
  const app = express().set('trust proxy', 'loopback')
  app.use('/leaks', apiKeys.leakRouter({ reports: true }))
  let calls = 0

  return async function report(keys: readonly IssuedKey[]) {
    const address = `203.0.${Math.floor(++calls / 250)}.${calls % 250}`
    const credentials = keys.map(({ plainTextKey }) => plainTextKey)
    const http = createHttp(() => app).set({ 'X-Forwarded-For': address })
    await http.post('/leaks/reports', { credentials }).expect(202)
  }
}

describe(`a report of an exposed key, seen by ${size} processes under load`, () => {
  it(
    'has the key refused everywhere within the bound',
    async () => {
      const report = createReporter()
      const all: number[] = []
      // The first report opens connections.
      await report(await createKeys(apiKeys, 1))

      for (let batch = 0; batch < batches; batch++) {
        const trial = await startTrial({
          fleet,
          apiKeys,
          good: 4,
          doomed: reportsPerBatch,
          load: heavyLoad,
        })
        const ends = []
        for (const [number, key] of trial.doomed.entries()) {
          // The reports come at every point of the time between two polls.
          await sleep(Math.random() * 40)
          const end = await trial.end(() => report([key]), [key])
          // Counted from the receipt of the report.
          const received = { ...end, committedAt: end.begunAt }
          ends.push({ index: trial.good.length + number, end: received })
        }
        all.push(...latencies(await expectHeld(trial), ends))
      }

      const sorted = all.toSorted((a, b) => a - b)
      const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? NaN
      const shown = Object.entries({ median: at(0.5), p99: at(0.99), maximum: at(1) })
        .map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`)
        .join(', ')
      console.log(
        `${all.length} reports, ${size} processes, from the receipt to the last acceptance: ${shown}`,
      )
      expect(sorted).toHaveLength(batches * reportsPerBatch)
    },
    30_000 + batches * 10_000,
  )

  it('has all 1,000 keys of a call refused everywhere within the bound', async () => {
    const report = createReporter()
    const others = await createKeys(apiKeys, 980)
    const trial = await startTrial({ fleet, apiKeys, good: 4, doomed: 20, load: heavyLoad })

    const begunAt = monotonicMs()
    await trial.end(() => report([...trial.doomed, ...others]))
    const tookMs = monotonicMs() - begunAt

    await expectHeld(trial)
    console.log(`1,000 keys in one report: answered after ${tookMs.toFixed(0)} ms`)
    expect((await apiKeys.countRevocable({ type: 'user', id: 'alice' })).keys).toBeLessThan(100)
  }, 120_000)
})
