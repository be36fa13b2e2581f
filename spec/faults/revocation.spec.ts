import { setTimeout as sleep } from 'node:timers/promises'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { heavyLoad, startFleet, type Fleet } from './fleet'
import { roundCount } from './rounds'
import { boundMs, expectHeld, latencies, startTrial } from './trial'

const size = 8
const revocationsPerBatch = 20
const batches = 3 * roundCount

let database: Database
let apiKeys: TestApiKeys
let fleet: Fleet

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, { maxKeysPerOwner: Infinity })
  fleet = await startFleet({ size, url: database.url })
})

afterAll(async () => {
  await fleet.stop()
  await apiKeys.close()
  await database.drop()
})

describe(`a revocation, seen by ${size} processes under load`, () => {
  it(
    'is known everywhere within the bound',
    async () => {
      const all: number[] = []

      for (let batch = 0; batch < batches; batch++) {
        const load = heavyLoad
        const trial = await startTrial({
          fleet,
          apiKeys,
          good: 4,
          doomed: revocationsPerBatch,
          load,
        })
        const ends = []
        for (const [number, key] of trial.doomed.entries()) {
          // The revocations lie at every point of the time between two polls.
          await sleep(Math.random() * 40)
          const end = await trial.end(() => apiKeys.revoke(key.id), [key])
          ends.push({ index: trial.good.length + number, end })
        }
        all.push(...latencies(await expectHeld(trial), ends))
      }

      const sorted = all.toSorted((a, b) => a - b)
      const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? NaN
      const shown = Object.entries({ median: at(0.5), p99: at(0.99), maximum: at(1) })
        .map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`)
        .join(', ')
      console.log(
        `${all.length} revocations, ${size} processes, from the answer to the last acceptance: ${shown}`,
      )
      expect(at(1)).toBeLessThanOrEqual(boundMs)
    },
    30_000 + batches * 10_000,
  )
})
