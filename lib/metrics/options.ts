// These types are among the types of the package.

/** The options of `instrument`. */
export interface InstrumentOptions {
  /**
   * Also makes spans: a span of each look-up, in the trace of the request that waits for it, and a trace of each poll.
   *
   * @default false
   */
  spans?: boolean | undefined
}
