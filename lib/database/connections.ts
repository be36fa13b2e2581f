import { warn } from '../../models/warnings'
import type { Background } from './background'
import type { Clock } from './clock'
import { createConnection } from './connection'
import type { OpenClient } from './open-client'
import { openingLimitMs } from './time-limit'

interface ConnectionsParts {
  background: Background
  open: OpenClient
  clock: Clock
  maxStalenessMs: number
}

/** How long usage is not written after the database had no place for its connection. */
const usageRestMs = 5_000

/**
 * The connections of a process beside the one that listens. They are apart, so that a table that is locked holds up look-ups and
 * not the polls, and a slow write holds up neither. If the database has too few, verification comes first: the connection that
 * listens gives way, then that of usage.
 */
export function createConnections(parts: ConnectionsParts) {
  const { background, open, clock } = parts
  /** Gives up the connection that listens. Returns false if there is none. */
  let stopListening = hasNone
  const shared = {
    background,
    open,
    clock,
    openingLimitMs: openingLimitMs(parts.maxStalenessMs),
    onRefused,
  }
  const usage = createConnection({
    ...shared,
    makeRoom: () => stopListening(),
    refusedRestMs: usageRestMs,
  })
  const makeRoom = () => stopListening() || usage.giveWay()
  const polls = createConnection({ ...shared, makeRoom })
  const lookUps = createConnection({ ...shared, makeRoom })

  return {
    polls,
    lookUps,
    usage,

    /** Notes how the connection that listens is given up if the database has too few. It returns false if there is none. */
    giveUpFirst(giveWay: () => boolean) {
      stopListening = giveWay
    },

    /** Gives up the connections on which requests wait, for others. */
    reset() {
      polls.reset()
      lookUps.reset()
    },

    close() {
      polls.close()
      lookUps.close()
      usage.close()
    },
  }
}

function onRefused(message: string) {
  warn(
    'API_KEYS_TOO_FEW_CONNECTIONS',
    `The database has no place for another connection: ${message}. Each process needs up to four beside your pool. With ` +
      'fewer, LISTEN and the writes of usage give way to verification: changes take up to maxStalenessMs, and uses wait in ' +
      'memory. Allow more connections, make pools smaller, or set listen: false.',
  )
}

function hasNone() {
  return false
}
