import { clearTimeout, type Background } from '../background'
import { ApiKeysError } from '../errors'
import { explain, sqlStateOf } from '../keys/database'
import { momentOf, type Clock, type Moment } from './clock'
import { abandon, type Client, type OpenClient, type Statement } from './open-client'
import { within } from './time-limit'

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
  /** Gives up the connection that there is, for another one. */
  reset(): void
  /** The same, and gives up what is being opened. A query after that begins anew. */
  close(): void
}

/** How many openings may be under way; and with those that were given up, whose hooks may still hang. */
const maxOpenings = 3
const maxUnsettled = 10
const longestUnsettledMs = 30_000

/** How long nobody is let try again after a connection could not be opened. */
const restMs = 50

interface ConnectionParts {
  background: Background
  open: OpenClient
  clock: Clock
  /** How long opening it may take before another opening is tried beside it. A query waits at least as long. */
  openingLimitMs: number
}

interface Opening {
  client: Promise<Client>
  controller: AbortController
}

export function createConnection(parts: ConnectionParts): Connection {
  const { background, open, clock, openingLimitMs } = parts
  let current: Client | undefined
  /** Under way, the oldest first. One that hangs goes on beside the next: the first that is open is taken. */
  let openings: Opening[] = []
  const unsettled = new Set<Opening>()
  let startedAt = -Infinity
  let failure: { error: unknown; at: number } | undefined
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
      },
      (error: unknown) => {
        settle()
        if (forget(opening)) failure = { error, at: clock.monotonic() }
      },
    )
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
    if (openings.length === 0 && failure && now - failure.at < restMs) throw failure.error

    const isDue = openings.length === 0 || now - startedAt >= openingLimitMs
    if (!isDue || unsettled.size >= maxUnsettled) return

    // Keep the oldest: it may just be slow. Drop the second: its packets were probably lost.
    if (openings.length === maxOpenings) giveUp(openings[1])
    startOpening()
  }

  /** Waits for a connection. While it does not open, others are tried beside it, and the first that is open is used. */
  async function connect(limitMs: number): Promise<Client> {
    const endsAt = clock.monotonic() + limitMs
    const { signal } = closing
    for (;;) {
      if (current) return current

      startOpeningIfDue()
      const leftMs = Math.max(endsAt - clock.monotonic(), 0)
      try {
        const anyClient = Promise.any(openings.map(({ client }) => client))
        const client = await within({ limitMs: Math.min(leftMs, openingLimitMs) }, anyClient)
        // Another one may have been quicker meanwhile.
        return current ?? client
      } catch (error) {
        const isPending = openings.length > 0
        if (!isPending || signal.aborted || clock.monotonic() >= endsAt) throw error
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

    reset,

    close() {
      closing.abort()
      closing = new AbortController()
      reset()
      for (const opening of openings) giveUp(opening)
    },
  }
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
