import type { Sequelize } from 'sequelize'

import { warn } from '../../models/warnings'
import type { Background } from './background'
import type { Clock } from './clock'
import { createConnection, defaultRestMs, type Need } from './connection'
import { oneByOne } from './one-by-one'
import { createOpenClient } from './open-client'
import { openingLimitMs } from './time-limit'

/** The connections of a process. */
export type Connections = ReturnType<typeof createConnections>

interface ConnectionsParts {
  /** The app's Sequelize. The connections have its settings. */
  appSequelize: Sequelize
  background: Background
  clock: Clock
  maxStalenessMs: number
  /** True to listen, or the address to listen at. */
  listen: boolean | string
}

/** How long the connections that are needed least are not opened after the database had no place for them. */
const usageRestMs = 5_000
const listeningRestMs = 10_000

/** How long opening the connection that listens may take, hooks of the app included, before another opening is tried. */
const listeningLimitMs = 15_000

/**
 * The connections of a process. They are separate. So a locked table holds up look-ups but no polls, and a slow write
 * holds up neither. If the database has too few, verification comes first: the connection that listens gives way, then
 * the connection of usage.
 */
export function createConnections(parts: ConnectionsParts) {
  const { appSequelize, listen } = parts
  const shared = {
    ...parts,
    open: createOpenClient(appSequelize),
    openingLimitMs: openingLimitMs(parts.maxStalenessMs),
    onRefused,
    refusedRestMs: defaultRestMs,
  }
  const listening =
    listen === false
      ? undefined
      : createConnection({
          ...shared,
          ...(typeof listen === 'string' && { open: createOpenClient(appSequelize, listen) }),
          openingLimitMs: listeningLimitMs,
          makeRoom: () => false,
          onRefused: () => {},
          refusedRestMs: listeningRestMs,
        })
  const stopListening = (need: Need) => listening?.giveWay(need) === true
  const usage = oneByOne(
    createConnection({
      ...shared,
      makeRoom: stopListening,
      refusedRestMs: usageRestMs,
    }),
  )
  const makeRoom = (need: Need) => stopListening(need) || usage.giveWay(need)
  const polls = createConnection({ ...shared, makeRoom })
  const lookUps = createConnection({ ...shared, makeRoom })

  return {
    polls,
    lookUps,
    usage,
    /** Notifications arrive here, if the app wants any. */
    listening,

    /** Gives up the connections on which requests wait. The next requests open other connections. */
    reset() {
      polls.reset()
      lookUps.reset()
    },

    /** Closes the connections of a process that verifies no keys any more, which may still seal entries or erase an owner. */
    rest() {
      for (const connection of [polls, lookUps, listening]) connection?.close()
      usage.closeIdle()
    },

    close() {
      for (const connection of [polls, lookUps, usage, listening]) connection?.close()
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
