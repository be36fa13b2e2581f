import { clearTimeout, type Background } from './background'
import type { Connection, TextRow } from './connection'
import { causeOf, sqlStateOf } from './failures'
import { within } from './time-limit'

/** A statement that the writer runs in a transaction of its own. A second run must have no further effect. */
export interface Write {
  sql: string
  onWritten?(rows: readonly TextRow[]): void
  onFailure?(): void
}

/** A part of the process that gathers entries in memory. */
export interface WriteSource {
  /** The number of entries that wait. */
  readonly size: number
  /** How many times the source must be asked until it has given all of them. */
  readonly rounds: number
  /** True if there is soon no room for further entries. */
  readonly isUrgent: boolean
  /** Gives the entries that are due, or all entries if a caller waits for them, as far as they fit into one statement. */
  take(isFlush: boolean): readonly Write[]
}

/** Writes in the background. */
export type Writer = ReturnType<typeof createWriter>

const writeEveryMs = 1_000

/** How long a statement in the background may take. */
export const writeLimitMs = 5_000

/** How long a statement waits for a lock before it is put off. */
const lockLimitMs = 100

/**
 * Makes the writer of the entries that gather in memory. It writes once a second, in the background, and at once for a
 * caller that waits.
 */
export function createWriter(parts: { background: Background; connection: Connection }) {
  const { background, connection } = parts
  const sources: WriteSource[] = []
  let writing: Promise<void> | undefined
  /** True if the last write failed, so that the next one waits its time. */
  let hasFailed = false
  /** The number of callers that wait until everything is written. */
  let flushes = 0
  let timer: NodeJS.Timeout | undefined

  function write(): Promise<void> {
    writing ??= background.run(writeOnce).finally(() => {
      writing = undefined
      if (sources.some(({ size }) => size > 0)) writeLater()
    })
    return writing
  }

  /** After an error of the server, the other statements follow, because a lock may hold up only one of them. */
  async function writeOnce() {
    const failures: unknown[] = []
    const writes = sources.flatMap((source) => source.take(flushes > 0))
    for (const { sql, onWritten, onFailure } of writes) {
      try {
        if (!failures.every(isAnswered)) throw failures[0]
        // A trigger of the app on the keys may need the search path of the session.
        const text = inTransaction(sql, lockLimitMs)
        const { rows } = await connection.query({ text }, writeLimitMs)
        onWritten?.(rows)
      } catch (error) {
        onFailure?.()
        failures.push(error)
      }
    }
    hasFailed = failures.length > 0
    if (hasFailed) throw failures[0]
  }

  /** Writes in a second; at once if room is about to run out, because no entry is dropped that can be written. */
  function writeLater() {
    // The end of each write calls this function again.
    if (writing) return
    if (!hasFailed && sources.some(({ isUrgent }) => isUrgent)) return writeNow()

    timer ??= background.startTimer(() => {
      timer = undefined
      writeNow()
    }, writeEveryMs)
  }

  /** A statement that fails waits for the next time. */
  function writeNow() {
    write().catch(() => {})
  }

  function stop() {
    clearTimeout(timer)
    timer = undefined
  }

  return {
    /** Writes the entries of a source from now on. */
    add(source: WriteSource) {
      sources.push(source)
    },

    get size() {
      return sources.reduce((sum, source) => sum + source.size, 0)
    },

    writeLater,

    /**
     * Resolves once everything gathered so far is in the database, but for rows that another transaction has locked: they
     * follow with the next write. Rejects if the database cannot be written to.
     */
    async flush() {
      stop()
      if (writing) await awaited(writing).catch(() => {})
      flushes++
      try {
        const rounds = Math.max(0, ...sources.map((source) => source.rounds))
        for (let left = rounds; left > 0; left--) await awaited(write())
        // Another caller's write may be under way.
        if (writing) await awaited(writing)
      } finally {
        flushes--
      }
    },

    /** Stops writing until there is a new entry. */
    stop,
  }
}

/**
 * Returns one text, so that the limits reach no further than the statements, and no lock is held while the server waits for this
 * process.
 */
export function inTransaction(sql: string, lockMs: number): string {
  return `
    START TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = ${lockMs};
    SET LOCAL statement_timeout = ${writeLimitMs};
    ${sql};
    COMMIT`
}

/** Keeps the process alive for a write that a caller waits for. */
function awaited(write: Promise<void>): Promise<void> {
  return within({ limitMs: 2 * writeLimitMs, isAwaited: true }, write)
}

/** True if the server answered with an error. */
function isAnswered(error: unknown): boolean {
  return sqlStateOf(causeOf(error)) !== ''
}
