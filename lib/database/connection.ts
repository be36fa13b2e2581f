import { ApiKeysError } from '../errors'
import { clearTimeout, type Background } from './background'
import { momentOf, type Clock } from './clock'
import { explain, sqlStateOf } from './failures'
import {
  abandon,
  isRefusedForWantOfRoom,
  type Client,
  type createOpenClient,
  type Statement,
} from './open-client'
import { onPrimary, systemNamesOnly } from './query'
import { tooLate, within } from './time-limit'

/** A row with the text of the server, whatever parsers the app gave its driver. */
export type TextRow = Record<string, string | null>

/** A connection of our own. */
export type Connection = ReturnType<typeof createConnection>

/** Why a connection needs room: the server has refused it, or it does not open. */
export type Need = 'refused' | 'waiting'

interface ConnectionParts {
  background: Background
  open: ReturnType<typeof createOpenClient>
  clock: Clock
  /** How long opening it may take before another opening is tried beside it. A query waits at least as long. */
  openingLimitMs: number
  /** Makes a connection give way that is needed less. Returns false if there is none. */
  makeRoom(need: Need): boolean
  /** Called with the words of the server when it had no place for the connection. */
  onRefused(message: string): void
  /** How long no other opening is tried after the server had no place for the connection. */
  refusedRestMs: number
}

interface Opening {
  client: Promise<Client>
  controller: AbortController
}

interface State extends ConnectionParts {
  current?: Client | undefined
  onOpen?: (client: Client) => void
  /** Under way, the oldest first. An opening that hangs goes on beside the next: the first client that is open is used. */
  openings: Opening[]
  /** The openings under way, and the openings that were given up and whose hooks may still hang. */
  unsettled: Set<Opening>
  startedAt: number
  failure?: { error: unknown; endsAt: number }
  /** Until when the server may be freeing a place for this connection. */
  roomUntil: number
  closing: AbortController
}

/** The number of openings that may be under way. */
const maxOpenings = 3

/** The number of openings that may be unsettled. After the time below, an opening no longer counts as unsettled. */
const maxUnsettled = 10
const longestUnsettledMs = 30_000

/** How long no other opening is tried after an opening has failed. */
export const defaultRestMs = 50

/** How long the server may take to free the place of a connection that has given way. */
const roomLimitMs = 1_000

/**
 * Makes a connection beside the app's pool. It is opened when it is needed, and again after it was lost.
 */
export function createConnection(parts: ConnectionParts) {
  const state: State = {
    ...parts,
    openings: [],
    unsettled: new Set(),
    startedAt: -Infinity,
    roomUntil: -Infinity,
    closing: new AbortController(),
  }
  const { clock, openingLimitMs, refusedRestMs } = parts

  return {
    /**
     * Runs a statement, or several in one text, and returns the rows of the last that has any. Rejects with
     * `database_unavailable` if the connection cannot be opened, or the answer does not come, within the limit. Later answers
     * are ignored. `sentAt` is when the statement was handed to the driver, on a connection that was open. In a plain text, no schema of
     * the session's search path can replace a function or an operator of Postgres.
     */
    async query(statement: Statement, limitMs: number) {
      const client = await connect(state, Math.max(limitMs, openingLimitMs)).catch(refuse)
      const sentAt = momentOf(clock)
      try {
        const result = await within({ limitMs }, client.query(pinned(statement)))
        return { rows: rowsOf(result), sentAt }
      } catch (error) {
        // After any error: nothing is left half done in the session, and no late answer is taken for the next answer.
        discard(state, client)
        throw refusalOf(error)
      }
    },

    /** Calls a function with each client that is opened, for its events. */
    onOpen(listener: (client: Client) => void) {
      state.onOpen = listener
    },

    /** Gives up the client that is open. The next query opens another client. */
    reset: () => discard(state, state.current),

    /** Leaves its place in the database to a connection that is needed more. Returns false if it has no place. */
    giveWay(need: Need): boolean {
      // If the server refuses connections, an opening may have its place there already. If the server is only slow, openings go on.
      const openings = need === 'refused' ? state.openings : []
      if (!state.current && openings.length === 0) return false
      discard(state, state.current)
      for (const opening of openings) giveUp(state, opening)
      const error = new Error('the connection has given way to a connection that is needed more')
      state.failure = { error, endsAt: clock.monotonic() + refusedRestMs }
      return true
    },

    /** Gives up the open client and the openings under way. The next query opens a client again. */
    close() {
      state.closing.abort()
      state.closing = new AbortController()
      discard(state, state.current)
      for (const opening of state.openings) giveUp(state, opening)
    },
  }
}

/** Waits for a client. While it does not open, other clients are opened beside it. The first client that is open is used. */
async function connect(state: State, limitMs: number): Promise<Client> {
  const { background, clock } = state
  const endsAt = clock.monotonic() + limitMs
  const { signal } = state.closing
  for (;;) {
    if (state.current) return state.current

    const leftMs = Math.max(endsAt - clock.monotonic(), 0)
    try {
      startOpeningIfDue(state)
      const anyClient = Promise.any(state.openings.map(({ client }) => client))
      const client = await within({ limitMs: Math.min(leftMs, untilNextOpening(state)) }, anyClient)
      // Another client may have been quicker.
      return state.current ?? client
    } catch (error) {
      const now = clock.monotonic()
      const isPending = state.openings.length > 0
      if (isPending && now >= endsAt) throw tooLate(limitMs)
      if (signal.aborted || now >= endsAt || (!isPending && now >= state.roomUntil)) throw error
      // A pooler that has no place for a connection may let it wait instead of refusing it.
      if (isPending) state.makeRoom('waiting')
      else await new Promise<void>((resolve) => void background.startTimer(resolve, defaultRestMs))
    }
  }
}

function startOpeningIfDue(state: State) {
  const { openings, failure } = state
  const now = state.clock.monotonic()
  if (openings.length === 0 && failure && now < failure.endsAt) throw failure.error

  const isDue = openings.length === 0 || now - state.startedAt >= state.openingLimitMs
  if (!isDue || state.unsettled.size >= maxUnsettled) return

  // Keep the oldest: it may just be slow. Drop the second: its packets were probably lost.
  if (openings.length === maxOpenings) giveUp(state, openings[1])
  startOpening(state)
}

function startOpening(state: State) {
  const { background, clock, unsettled } = state
  const controller = new AbortController()
  const client = background.run(() => state.open(controller.signal))
  const opening: Opening = { client, controller }
  state.startedAt = clock.monotonic()
  state.openings.push(opening)
  unsettled.add(opening)
  // A hook that never returns holds its place only for this time.
  const timer = background.startTimer(() => unsettled.delete(opening), longestUnsettledMs)
  const settle = () => {
    clearTimeout(timer)
    unsettled.delete(opening)
    return remove(state, opening)
  }
  client.then(
    (client) => {
      if (!settle() || state.current) return abandon(client)
      state.current = client
      // A client can be lost at any time.
      client.on('end', () => discard(state, client))
      state.onOpen?.(client)
    },
    (error: unknown) => {
      if (settle()) noteFailure(state, error)
    },
  )
}

function noteFailure(state: State, error: unknown) {
  const now = state.clock.monotonic()
  const isRefused = isRefusedForWantOfRoom(error)
  if (isRefused) {
    state.onRefused((error as Error).message)
    if (state.makeRoom('refused')) state.roomUntil = now + roomLimitMs
  }
  const restMs = isRefused && now >= state.roomUntil ? state.refusedRestMs : defaultRestMs
  state.failure = { error, endsAt: now + restMs }
}

/** Takes an opening off the list. Returns true if it was still wanted. */
function remove(state: State, opening: Opening): boolean {
  const isWanted = state.openings.includes(opening)
  state.openings = state.openings.filter((other) => other !== opening)
  return isWanted
}

function giveUp(state: State, opening: Opening | undefined) {
  if (opening && remove(state, opening)) opening.controller.abort()
}

function untilNextOpening({ startedAt, openingLimitMs, clock }: State): number {
  const ms = startedAt + openingLimitMs - clock.monotonic()
  // An opening may be due while too many are unsettled.
  return ms > 0 ? ms : openingLimitMs
}

function discard(state: State, client: Client | undefined) {
  if (!client) return
  if (state.current === client) state.current = undefined
  abandon(client)
}

/** If there is no connection, it is an outage, whatever kept it from opening. */
function refuse(error: unknown): never {
  if (error instanceof ApiKeysError) throw error
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error
  throw new ApiKeysError('database_unavailable', { cause })
}

/** Explains an error of the server. If the server said nothing, it is an outage. */
function refusalOf(error: unknown): unknown {
  if (error instanceof ApiKeysError) return error
  return sqlStateOf(error) === ''
    ? new ApiKeysError('database_unavailable', { cause: error })
    : explain(error)
}

/** One text is one transaction, for which the search path is fixed. */
function pinned(statement: Statement): Statement {
  return typeof statement === 'string' ? `${onPrimary} ${systemNamesOnly}; ${statement}` : statement
}

/** Several statements in one text have several results. */
function rowsOf(result: unknown): TextRow[] {
  const results = [result].flat() as { rows: TextRow[] }[]
  return results.findLast(({ rows }) => rows.length > 0)?.rows ?? []
}
