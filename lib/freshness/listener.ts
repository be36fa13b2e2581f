import { randomBytes } from 'node:crypto'

import { clearTimeout, type Background } from '../database/background'
import type { Connection } from '../database/connection'
import type { Client } from '../database/open-client'
import { within } from '../database/time-limit'

interface ListenerParts {
  background: Pick<Background, 'startTimer'>
  /** Listens (LISTEN), and does nothing else. */
  connection: Connection
  /**
   * Sends the notes that prove that notifications arrive. It is not the connection of the polls, because NOTIFY waits for other
   * transactions that notify, such as a transaction whose COMMIT waits for a standby.
   */
  sender: Pick<Connection, 'query'>
  channel: string
  /** Called when there may be something new in the log. */
  onNotification(): void
  /** Called if LISTEN succeeds and no notification arrives. */
  onUnheard(): void
}

/** Listens for new entries of the log. */
export type Listener = ReturnType<typeof createListener>

/** How often the connection is tried out: a connection that is half open is silent for hours. */
const heartbeatMs = 5_000

/** How long to wait before the next try: at first, and at most. */
const firstRestMs = 250
const longestRestMs = 5_000

/** How long to wait after no notification arrived. */
const unheardRestMs = 60_000

/**
 * Reports new entries of the log at once. It makes the feed faster, and nothing relies on it. It is up if a note
 * arrives that another connection of this process sends. Behind a pooler in transaction mode, LISTEN succeeds, and no
 * notification arrives.
 */
export function createListener(parts: ListenerParts) {
  const { background, connection, sender, channel, onNotification, onUnheard } = parts
  const ownChannel = `${channel}_${randomBytes(8).toString('hex')}`
  let isWanted = false
  let isUp = false
  /** The connection that is open. */
  let client: Client | undefined
  /** The number of the last try. The outcome of earlier tries is ignored. */
  let lastTry = 0
  let onNote: (() => void) | undefined
  let timer: NodeJS.Timeout | undefined
  let restMs = firstRestMs

  connection.onOpen((opened) => {
    client = opened
    opened.on('notification', (notification) => {
      if (notification.channel === ownChannel) onNote?.()
      else onNotification()
    })
    opened.on('end', () => {
      if (client === opened) retryLater()
    })
  })

  function tryToListen() {
    const thisTry = ++lastTry
    listen(thisTry).catch(() => {
      if (thisTry === lastTry) retryLater()
    })
  }

  async function listen(thisTry: number) {
    // Sent each time, because the connection may be a new one.
    await connection.query(`LISTEN ${channel}; LISTEN ${ownChannel}`, heartbeatMs)
    const isHeard = await sendNote()
    if (thisTry !== lastTry) return
    if (isHeard === false) {
      letGo()
      connection.reset()
      tryAfter(unheardRestMs)
      return onUnheard()
    }

    restMs = firstRestMs
    tryAfter(heartbeatMs)
    if (isUp || isHeard === undefined) return
    isUp = true
    // A notification may have been missed.
    onNotification()
  }

  /** Sends a note. Returns true if it arrives; `undefined` if the note could not be sent, which proves nothing. */
  async function sendNote(): Promise<boolean | undefined> {
    const heard = new Promise<true>((resolve) => {
      onNote = () => resolve(true)
    })
    // A statement of its own kind, which proxies that balance loads send to the primary.
    const sent = sender.query(`NOTIFY ${ownChannel}`, heartbeatMs)
    return sent.then(
      () => within({ limitMs: heartbeatMs }, heard).catch(() => false),
      () => undefined,
    )
  }

  function retryLater() {
    letGo()
    tryAfter(restMs)
    restMs = Math.min(restMs * 2, longestRestMs)
  }

  function letGo() {
    lastTry++
    client = undefined
    isUp = false
    clearTimeout(timer)
  }

  function tryAfter(ms: number) {
    if (isWanted) timer = background.startTimer(tryToListen, ms)
  }

  return {
    start() {
      isWanted = true
      tryToListen()
    },

    /** Stops listening. The connection is closed together with the other connections. */
    stop() {
      isWanted = false
      letGo()
    },

    /** True if notifications arrive. */
    get isUp() {
      return isUp
    },
  }
}
