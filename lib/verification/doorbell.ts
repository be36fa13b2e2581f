import { clearTimeout, type Background } from '../background'
import { abandon, type Client, type OpenClient } from './open-client'
import { within } from './time-limit'

interface DoorbellParts {
  background: Pick<Background, 'startTimer'>
  open: OpenClient
  /** What is listened to (LISTEN). */
  channel: string
  /** Called when there may be something new in the log. */
  ring(): void
}

/** How often the connection is tried out: one that is half open says nothing, for hours. */
const heartbeatMs = 5_000

/** How long opening a connection may take, hooks of the app included, before another one is tried. */
const openingLimitMs = 15_000

/** How long to wait before another connection: at first, and at most. */
const firstRestMs = 250
const longestRestMs = 5_000

/** Tells at once of changes in the log. It makes things faster, and nothing relies on it. */
export function createDoorbell({ background, open, channel, ring }: DoorbellParts) {
  let isWanted = false
  /** Which start it is: what an earlier one has opened is not wanted any more. */
  let turn = 0
  let client: Client | undefined
  let timer: NodeJS.Timeout | undefined
  let restMs = firstRestMs

  async function connect(ofTurn: number) {
    const controller = new AbortController()
    const opened = await within({ limitMs: openingLimitMs }, open(controller.signal)).catch(
      (error: unknown) => {
        controller.abort()
        throw error
      },
    )
    if (ofTurn !== turn) return abandon(opened)

    opened.on('end', () => lose(opened))
    opened.on('notification', ring)
    try {
      await within({ limitMs: heartbeatMs }, opened.query(`LISTEN ${channel}`))
    } catch (error) {
      abandon(opened)
      throw error
    }
    if (ofTurn !== turn) return abandon(opened)

    client = opened
    restMs = firstRestMs
    // Something may have been missed.
    ring()
    after(heartbeatMs, () => beat(opened))
  }

  function tryToConnect() {
    const thisTurn = turn
    connect(thisTurn).catch(() => {
      if (thisTurn !== turn) return
      after(restMs, tryToConnect)
      restMs = Math.min(restMs * 2, longestRestMs)
    })
  }

  function beat(opened: Client) {
    within({ limitMs: heartbeatMs }, opened.query('SELECT 1')).then(
      () => after(heartbeatMs, () => beat(opened)),
      () => lose(opened),
    )
  }

  function lose(lost: Client) {
    abandon(lost)
    if (client !== lost) return

    client = undefined
    after(restMs, tryToConnect)
  }

  function after(ms: number, work: () => void) {
    clearTimeout(timer)
    if (isWanted) timer = background.startTimer(work, ms)
  }

  return {
    start() {
      if (isWanted) return
      isWanted = true
      tryToConnect()
    },

    stop() {
      isWanted = false
      turn++
      clearTimeout(timer)
      if (client) abandon(client)
      client = undefined
    },

    get isUp() {
      return client !== undefined
    },
  }
}
