import { setTimeout as sleep } from 'node:timers/promises'

import { createWatch } from '../../lib/audit/watch'
import { createBackground } from '../../lib/database/background'
import { systemClock } from '../../lib/database/clock'
import { tablesOf } from '../../models/tables'
import { until } from '../support/until'

/** Starts a watch whose looks, behind the first, are answered by `answer()`. */
function startWatch() {
  let looks = 0
  let answer: (() => void) | undefined
  const watch = createWatch(
    {
      background: createBackground(),
      clock: systemClock,
      connection: {
        query() {
          looks += 1
          return new Promise((resolve) => {
            answer = () => resolve({ rows: [], sentAt: { monotonic: 0, wall: 0 } })
          })
        },
      },
      tables: tablesOf('public'),
    },
    {
      look: { isForced: false, hash: '', from: '0' },
      isBusy: () => false,
      seal: async () => {},
    },
  )
  watch.start()
  return { watch, countLooks: () => looks, answer: () => answer?.() }
}

describe('the watch for entries without a seal', () => {
  it('looks once at a time, however long a look takes, and looks again after it', async () => {
    const { watch, countLooks, answer } = startWatch()
    await until(() => countLooks() === 1)

    // Nothing reports that it does not look. The time is that of two looks and more.
    await sleep(2_000)
    expect(countLooks()).toBe(1)

    answer()
    await until(() => countLooks() === 2)
    watch.stop()
  })

  it('does not look again if it is stopped during a look', async () => {
    const { watch, countLooks, answer } = startWatch()
    await until(() => countLooks() === 1)

    watch.stop()
    answer()

    await sleep(1_000)
    expect(countLooks()).toBe(1)
  })
})
