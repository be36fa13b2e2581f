import { performance } from 'node:perf_hooks'

/** The time, told twice: a monotonic clock may stand still while the machine sleeps, a wall clock may be set. */
export interface Clock {
  /** Milliseconds since some moment of the past. Never goes back. */
  monotonic(): number
  /** Milliseconds since 1970, UTC. */
  wall(): number
}

export const hourMs = 3_600_000
export const dayMs = 24 * hourMs

/** Fake timers of an app may replace `Date`, and keys expire by that, but not what measures how old an answer is. */
export const systemClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
}

/** A moment as both clocks told it. */
export interface Moment {
  readonly monotonic: number
  readonly wall: number
}

export function momentOf(clock: Clock): Moment {
  return { monotonic: clock.monotonic(), wall: clock.wall() }
}

/** Whether both clocks agree that less than `limitMs` has passed. A wall clock that was set back does not. */
export function isWithin(since: Moment, limitMs: number, monotonic: number, wall: number): boolean {
  return monotonic - since.monotonic < limitMs && wall - since.wall < limitMs && wall >= since.wall
}
