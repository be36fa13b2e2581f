import { setTimeout as sleep } from 'node:timers/promises'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase } from '../support/database'
import { startFleet, type Fleet } from './fleet'
import { rounds } from './rounds'
import { boundMs, expectHeld, startTrial } from './trial'
import { createCleanup } from './waiting'

const cleanup = createCleanup()

let apiKeys: TestApiKeys
let fleet: Fleet

beforeAll(async () => {
  const database = await createDatabase()
  cleanup.defer(() => database.drop())
  apiKeys = createTestApiKeys(database, { maxKeysPerOwner: Infinity })
  cleanup.defer(() => apiKeys.close())
  fleet = await startFleet({ url: database.url })
  cleanup.defer(() => fleet.stop())
})

afterAll(() => cleanup.run())

describe.each(rounds)('the bound, round %i, holds for a process', () => {
  it('that stands still for longer than the bound', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    for (const worker of fleet.workers) worker.signal('SIGSTOP')
    try {
      await sleep(500)
      await trial.end(
        () => apiKeys.revokeAll({ type: 'user', id: 'alice' }),
        [...trial.doomed, ...trial.good],
      )
      await sleep(boundMs + 500)
    } finally {
      for (const worker of fleet.workers) worker.signal('SIGCONT')
    }

    await expectHeld(trial)
  })

  it('that stands still again and again, for about the bound', async () => {
    const trial = await startTrial({ fleet, apiKeys, doomed: 4 })

    for (const [number, key] of trial.doomed.entries()) {
      for (const worker of fleet.workers) worker.signal('SIGSTOP')
      try {
        await trial.end(() => apiKeys.revoke(key.id), [key])
        await sleep(boundMs + (number - 1) * 30)
      } finally {
        for (const worker of fleet.workers) worker.signal('SIGCONT')
      }
      await sleep(100)
    }

    await expectHeld(trial)
  })

  it('whose event loop is blocked for 3 s', async () => {
    const trial = await startTrial({ fleet, apiKeys })

    const blocked = Promise.all(fleet.workers.map((worker) => worker.call('block', 3000)))
    await sleep(200)
    await trial.end(
      () => apiKeys.revokeAll({ type: 'user', id: 'alice' }),
      [...trial.doomed, ...trial.good],
    )
    await blocked

    await expectHeld(trial)
  })
})
