import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect, type AddressInfo } from 'node:net'

import type { Express } from 'express'

interface HalfSent {
  body: string
  /** True to send the whole body, and not to wait for the answer. */
  isWhole?: boolean
  fields?: Record<string, string>
}

/** Sends a request without the end of its body, and goes away. Resolves once the app has noticed. */
export async function sendHalf(
  app: Express,
  path: string,
  { body, isWhole = false, fields = {} }: HalfSent,
) {
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const all = { Host: 'x', 'Content-Type': 'application/json', ...fields }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  const sent = isWhole ? body : body.slice(0, -9)
  const length = `Content-Length: ${Buffer.byteLength(body)}\r\n`
  socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('')}${length}\r\n${sent}`)
  const [request] = (await once(server, 'request')) as [IncomingMessage]
  request.on('error', () => {})
  if (isWhole && !request.complete) await once(request, 'end')
  const isOver = new Promise((resolve) => request.socket.once('close', resolve))
  socket.destroy()
  await isOver
  server.close()
  server.closeAllConnections()
}
