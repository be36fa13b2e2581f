import { clearTimeout, setTimeout, type Background } from './background'
import { ApiKeysError } from '../errors'
import { explain, sqlStateOf } from './failures'
import { momentOf, type Clock, type Moment } from './clock'
import {
  abandon,
  isRefusedForWantOfRoom,
  type Client,
  type OpenClient,
  type Statement,
} from './open-client'
import { tooLate, within } from './time-limit'

/** A row as the server wrote it: text, whatever parsers the app gave its driver. */
export type TextRow = Record<string, string | null>

export interface Answer {
  rows: TextRow[]
  /** When the statement was handed to the driver, on a connection that was open. */
  sentAt: Moment
}

/**
 * A connection of our own, beside the app's pool: an app whose pool is exhausted still verifies, and no statement of ours
 * becomes part of a transaction of the app. It is opened when it is needed, and again after it was lost.
 */
export interface Connection {
  /**
   * Runs one statement, or several in one text, of which the last that returns rows counts. Rejects with
   * `database_unavailable` if the connection cannot be opened, or the answer does not come, within the limit. Later answers
   * are ignored.
   */
  query(statement: Statement, limitMs: number): Promise<Answer>
  /** Has a function called with each client that is opened from now on, for its events. */
  onOpen(listener: (client: Client) => void): void
  /** Gives up the connection that there is, for another one. */
  reset(): void
  /** Leaves its place in the database to a connection that is needed more. Returns false if it has none. */
  giveWay(): boolean
  /** Gives up what is open and what is being opened. A query after that begins anew. */
  close(): void
}

/** How many openings may be under way; and with those that were given up, whose hooks may still hang. */
const maxOpenings = 3
const maxUnsettled = 10
const longestUnsettledMs = 30_000

/** How long no other opening is tried after one has failed. */
const defaultRestMs = 50

/** How long the server may take to free the place of a connection that has given way. */
const roomLimitMs = 1_000

interface ConnectionParts {
  background: Background
  open: OpenClient
  clock: Clock
  /** How long opening it may take before another opening is tried beside it. A query waits at least as long. */
  openingLimitMs: number
  /** Has a connection give way that is needed less. Returns false if there is none. */
  makeRoom(): boolean
  /** Called with what the server said when it had no place for the connection. */
  onRefused(message: string): void
  /**
   * How long no other opening is tried after the server had no place for the connection.
   *
   * @default 50
   */
  refusedRestMs?: number
}

interface Opening {
  client: Promise<Client>
  controller: AbortController
}

export function createConnection(parts: ConnectionParts): Connection {
  const { background, open, clock, openingLimitMs, makeRoom, onRefused } = parts
  const { refusedRestMs = defaultRestMs } = parts
  let current: Client | undefined
  let reportOpen: ((client: Client) => void) | undefined
  /** Under way, the oldest first. One that hangs goes on beside the next: the first that is open is taken. */
  let openings: Opening[] = []
  const unsettled = new Set<Opening>()
  let startedAt = -Infinity
  let failure: { error: unknown; endsAt: number } | undefined
  /** Until when the server may be freeing a place for this connection. */
  let roomUntil = -Infinity
  let closing = new AbortController()

  function startOpening() {
    const controller = new AbortController()
    const opening: Opening = { client: background.run(() => open(controller.signal)), controller }
    startedAt = clock.monotonic()
    openings.push(opening)
    unsettled.add(opening)
    // A hook that hangs for ever holds its place only for so long.
    const timer = background.startTimer(() => unsettled.delete(opening), longestUnsettledMs)
    const settle = () => {
      clearTimeout(timer)
      unsettled.delete(opening)
    }
    opening.client.then(
      (client) => {
        settle()
        if (!forget(opening) || current) return abandon(client)
        current = client
        // It can be lost at any time.
        client.on('end', () => discard(client))
        reportOpen?.(client)
      },
      (error: unknown) => {
        settle()
        if (forget(opening)) noteFailure(error)
      },
    )
  }

  function noteFailure(error: unknown) {
    const now = clock.monotonic()
    const isRefused = isRefusedForWantOfRoom(error)
    if (isRefused) {
      onRefused((error as Error).message)
      if (makeRoom()) roomUntil = now + roomLimitMs
    }
    const restMs = isRefused && now >= roomUntil ? refusedRestMs : defaultRestMs
    failure = { error, endsAt: now + restMs }
  }

  /** Whether it was still wanted. */
  function forget(opening: Opening): boolean {
    const isWanted = openings.includes(opening)
    openings = openings.filter((other) => other !== opening)
    return isWanted
  }

  function giveUp(opening: Opening | undefined) {
    if (opening && forget(opening)) opening.controller.abort()
  }

  function startOpeningIfDue() {
    const now = clock.monotonic()
    if (openings.length === 0 && failure && now < failure.endsAt) throw failure.error

    const isDue = openings.length === 0 || now - startedAt >= openingLimitMs
    if (!isDue || unsettled.size >= maxUnsettled) return

    // Keep the oldest: it may just be slow. Drop the second: its packets were probably lost.
    if (openings.length === maxOpenings) giveUp(openings[1])
    startOpening()
  }

  function untilNextOpening(): number {
    const ms = startedAt + openingLimitMs - clock.monotonic()
    // It may be due, and too many under way.
    return ms > 0 ? ms : openingLimitMs
  }

  /** Waits for a connection. While it does not open, others are tried beside it, and the first that is open is used. */
  async function connect(limitMs: number): Promise<Client> {
    const endsAt = clock.monotonic() + limitMs
    const { signal } = closing
    for (;;) {
      if (current) return current

      const leftMs = Math.max(endsAt - clock.monotonic(), 0)
      try {
        startOpeningIfDue()
        const anyClient = Promise.any(openings.map(({ client }) => client))
        const client = await within({ limitMs: Math.min(leftMs, untilNextOpening()) }, anyClient)
        // Another one may have been quicker meanwhile.
        return current ?? client
      } catch (error) {
        const now = clock.monotonic()
        const isPending = openings.length > 0
        if (isPending && now >= endsAt) throw tooLate(limitMs)
        if (signal.aborted || now >= endsAt || (!isPending && now >= roomUntil)) throw error
        // A pooler that has no place for a connection may let it wait instead of refusing it.
        if (isPending) makeRoom()
        else await rest()
      }
    }
  }

  function discard(client: Client) {
    if (current === client) current = undefined
    abandon(client)
  }

  function reset() {
    if (current) discard(current)
  }

  return {
    async query(statement, limitMs) {
      const client = await connect(Math.max(limitMs, openingLimitMs)).catch(refuse)
      const sentAt = momentOf(clock)
      try {
        const result = await within({ limitMs }, client.query(statement))
        return { rows: rowsOf(result), sentAt }
      } catch (error) {
        // Whatever it was: nothing is left half done in the session, nor is a late answer taken for another's.
        discard(client)
        throw refusalOf(error)
      }
    },

    onOpen(listener) {
      reportOpen = listener
    },

    reset,

    giveWay() {
      if (!current) return false
      reset()
      const error = new Error('the connection has given way to one that is needed more')
      failure = { error, endsAt: clock.monotonic() + refusedRestMs }
      return true
    },

    close() {
      closing.abort()
      closing = new AbortController()
      reset()
      for (const opening of openings) giveUp(opening)
    },
  }
}

function rest(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, defaultRestMs).unref()
  })
}

/** That there is no connection is an outage, whatever kept it from opening. */
function refuse(error: unknown): never {
  if (error instanceof ApiKeysError) throw error
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error
  throw new ApiKeysError('database_unavailable', { cause })
}

/** What the server said is explained; that it said nothing is an outage. */
function refusalOf(error: unknown): unknown {
  if (error instanceof ApiKeysError) return error
  return sqlStateOf(error) === ''
    ? new ApiKeysError('database_unavailable', { cause: error })
    : explain(error)
}

/** Several statements in one text have several results. */
function rowsOf(result: unknown): TextRow[] {
  const results = [result].flat() as { rows: TextRow[] }[]
  return results.findLast(({ rows }) => rows.length > 0)?.rows ?? []
}
