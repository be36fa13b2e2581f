import { setImmediate as nextTurn } from 'node:timers/promises'

import { createWatch } from '../../lib/audit/watch'
import { createBackground } from '../../lib/database/background'
import { systemClock } from '../../lib/database/clock'
import { tablesOf } from '../../models/tables'

/** Starts a watch whose looks, behind the first, are answered by `answer()`, and whose timers end by `endTimer()`. */
function startWatch() {
  let looks = 0
  let answer: (() => void) | undefined
  const timers: (() => void)[] = []
  const watch = createWatch(
    {
      background: {
        ...createBackground(),
        startTimer(work) {
          timers.push(work)
          return setTimeout(() => {}).unref()
        },
      },
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
      look: { from: '0' },
      isBusy: () => false,
      seal: async () => {},
    },
  )
  watch.start()

  return {
    watch,
    countLooks: () => looks,
    countTimers: () => timers.length,
    async endTimer() {
      timers.shift()?.()
      await nextTurn()
    },
    async answer() {
      answer?.()
      await nextTurn()
    },
  }
}

describe('the watch for entries without a seal', () => {
  it('looks once at a time, however long a look takes, and looks again after it', async () => {
    const { watch, countLooks, countTimers, endTimer, answer } = startWatch()
    await endTimer()
    expect(countLooks()).toBe(1)

    // Only a timer begins a look.
    expect(countTimers()).toBe(0)

    await answer()
    expect(countTimers()).toBe(1)
    await endTimer()
    expect(countLooks()).toBe(2)
    watch.stop()
  })

  it('does not look again if it is stopped during a look', async () => {
    const { watch, countLooks, countTimers, endTimer, answer } = startWatch()
    await endTimer()
    expect(countLooks()).toBe(1)

    watch.stop()
    await answer()

    expect(countTimers()).toBe(0)
  })
})
