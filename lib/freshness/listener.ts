import { randomBytes } from 'node:crypto'

import { clearTimeout, type Background } from '../database/background'
import type { Connection } from '../database/connection'
import { abandon, type Client, type Notification, type OpenClient } from '../database/open-client'
import { within } from '../database/time-limit'

interface DoorbellParts {
  background: Pick<Background, 'startTimer'>
  open: OpenClient
  /**
   * Sends the notes that prove that notifications arrive. Another connection than the one that listens, and not that of the
   * polls: NOTIFY waits for other transactions that notify, such as one whose COMMIT waits for a standby.
   */
  sender: Pick<Connection, 'query'>
  /** What is listened to (LISTEN). */
  channel: string
  /** Called when there may be something new in the log. */
  ring(): void
  /** Called if LISTEN succeeds and yet nothing arrives. */
  onDeaf(): void
}

export type Doorbell = ReturnType<typeof createDoorbell>

/** How often the connection is tried out: one that is half open says nothing, for hours. */
const heartbeatMs = 5_000

/** How long opening a connection may take, hooks of the app included, before another one is tried. */
const openingLimitMs = 15_000

/** How long to wait before another connection: at first, and at most. */
const firstRestMs = 250
const longestRestMs = 5_000

/** How long to do without: after nothing was heard, and after the place was left to another connection. */
const deafRestMs = 60_000
const yieldRestMs = 10_000

/**
 * Reports changes in the log at once. It makes things faster, and nothing relies on it. It is up if a note arrives that another
 * connection of this process sends: behind a pooler in transaction mode LISTEN succeeds, and nothing is ever heard.
 */
export function createDoorbell(parts: DoorbellParts) {
  const { background, open, sender, channel, ring, onDeaf } = parts
  const ownChannel = `${channel}_${randomBytes(8).toString('hex')}`
  let isWanted = false
  /** Which start it is: what an earlier one has opened is not wanted any more. */
  let turn = 0
  /** Open, whether or not it is known to hear anything. */
  let client: Client | undefined
  let isUp = false
  let onNote: (() => void) | undefined
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

    client = opened
    opened.on('end', () => lose(opened))
    opened.on('notification', hear)
    await within({ limitMs: heartbeatMs }, opened.query(`LISTEN ${channel}; LISTEN ${ownChannel}`))
    await proveHearing(opened)
  }

  function hear(notification: Notification) {
    if (notification.channel === ownChannel) onNote?.()
    else ring()
  }

  function tryToConnect() {
    const thisTurn = turn
    connect(thisTurn).catch(() => {
      if (thisTurn !== turn) return
      if (client) lose(client)
      else retryLater()
    })
  }

  async function beat(opened: Client) {
    await within({ limitMs: heartbeatMs }, opened.query('SELECT 1'))
    await proveHearing(opened)
  }

  /** Finds out whether notifications arrive on a connection, and again later. */
  async function proveHearing(opened: Client) {
    const isHeard = await sendNote()
    if (client !== opened) return
    if (isHeard === false) {
      lose(opened, deafRestMs)
      return onDeaf()
    }

    restMs = firstRestMs
    if (isHeard === true && !isUp) {
      isUp = true
      // Something may have been missed.
      ring()
    }
    after(heartbeatMs, () => {
      beat(opened).catch(() => lose(opened))
    })
  }

  /** Sends a note to this process. Returns `undefined` if the note could not be sent, which proves nothing. */
  async function sendNote(): Promise<boolean | undefined> {
    const heard = new Promise<void>((resolve) => {
      onNote = resolve
    })
    try {
      // A statement of its own kind, which proxies that balance loads send to the primary.
      await sender.query(`NOTIFY ${ownChannel}`, heartbeatMs)
    } catch {
      return undefined
    }
    return within({ limitMs: heartbeatMs }, heard).then(
      () => true,
      () => false,
    )
  }

  function lose(lost: Client, ms?: number) {
    abandon(lost)
    if (client !== lost) return

    letGo()
    retryLater(ms)
  }

  function retryLater(ms?: number) {
    after(ms ?? restMs, tryToConnect)
    restMs = Math.min(restMs * 2, longestRestMs)
  }

  function letGo() {
    turn++
    clearTimeout(timer)
    if (client) abandon(client)
    client = undefined
    isUp = false
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
      letGo()
    },

    /** Leaves its place in the database to a connection that is needed more. Returns false if it has none. */
    giveWay(): boolean {
      if (!client) return false
      letGo()
      retryLater(yieldRestMs)
      return true
    },

    /** True if notifications arrive. */
    get isUp() {
      return isUp
    },
  }
}
