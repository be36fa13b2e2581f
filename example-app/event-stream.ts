import type { Response } from 'express'

import type { Json } from './json'

/** Begins to answer with server-sent events, and returns what sends one. */
export function openEventStream(res: Response): (event: string, data: Json) => void {
  res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).flushHeaders()

  return function send(event, data) {
    res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }
}
