/** Sets the clock of this process, and no timers. `jest.useRealTimers()` sets it right again. */
export function setClock(now: Date) {
  jest.useFakeTimers({
    now,
    doNotFake: [
      'clearImmediate',
      'clearInterval',
      'clearTimeout',
      'hrtime',
      'nextTick',
      'performance',
      'queueMicrotask',
      'setImmediate',
      'setInterval',
      'setTimeout',
    ],
  })
}
