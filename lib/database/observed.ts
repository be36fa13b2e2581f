/** The kinds of work whose duration is observed. */
export type Work = 'lookup' | 'poll'

/** Runs work, and observes how long it takes. */
export type Observe = <Result>(work: Work, run: () => Promise<Result>) => Promise<Result>

/** Runs the work that an observer may watch. */
export type Observed = ReturnType<typeof createObserved>

/** Makes the function that runs work, observed by an observer if there is one. */
export function createObserved() {
  let observe: Observe | undefined

  return {
    run: <Result>(work: Work, run: () => Promise<Result>): Promise<Result> =>
      observe ? observe(work, run) : run(),

    /** True if there is an observer. */
    get hasObserver() {
      return observe !== undefined
    },

    /** Lets an observer watch all work from now on; `undefined` for none. */
    letWatch(observer: Observe | undefined) {
      observe = observer
    },
  }
}
