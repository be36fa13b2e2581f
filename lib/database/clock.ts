import { performance } from 'node:perf_hooks'

/** Two clocks: a monotonic clock may stand still while the machine sleeps, a wall clock may be set. */
export interface Clock {
  /** Milliseconds since some moment of the past. Never goes back. */
  monotonic(): number
  /** Milliseconds since 1970, UTC. */
  wall(): number
}

/** The length of an hour. */
export const hourMs = 3_600_000
/** The length of a day. */
export const dayMs = 24 * hourMs

/** The clocks of the system. Fake timers of an app may replace `Date`, by which keys expire, but not the monotonic clock. */
export const systemClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
}

/** The clock of the server, measured by polls. */
export type ServerClock = ReturnType<typeof createServerClock>

/** Creates the clock of the server. Until a poll has measured how far it is ahead, it is the clock of the process. */
export function createServerClock() {
  let offsetMs = 0

  return {
    /** Whole milliseconds since 1970. */
    now: () => Math.round(Date.now() + offsetMs),

    /** Notes how far the clock of the server is ahead. */
    set(aheadMs: number) {
      offsetMs = aheadMs
    },
  }
}

/** A moment by both clocks. */
export interface Moment {
  readonly monotonic: number
  readonly wall: number
}

/** Returns the present moment by both clocks. */
export function momentOf(clock: Clock): Moment {
  return { monotonic: clock.monotonic(), wall: clock.wall() }
}

/** True if both clocks agree that less than `limitMs` has passed. A wall clock that was set back does not agree. */
export function isWithin(since: Moment, limitMs: number, monotonic: number, wall: number): boolean {
  return monotonic - since.monotonic < limitMs && wall - since.wall < limitMs && wall >= since.wall
}
