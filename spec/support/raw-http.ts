import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { connect, type AddressInfo } from 'node:net'

export interface RawAnswer {
  status: number
  /** The headers, by name in lower case. */
  headers: Record<string, string>
  /** Every byte after the head, read as latin1. */
  body: string
}

/**
 * Sends a request line, header lines and a body unchanged, in latin1. HTTP clients tidy up some requests or refuse to
 * send them, for example a header that comes twice.
 */
export async function sendRaw(
  app: RequestListener,
  lines: readonly string[],
  body: string | Buffer = '',
): Promise<RawAnswer> {
  const server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')

  try {
    const hasHost = lines.some((line) => /^host:/i.test(line))
    const head = [...lines, ...(hasHost ? [] : ['Host: localhost']), 'Connection: close', '', '']
    socket.write(head.join('\r\n'), 'latin1')
    socket.write(body)

    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    return parse(Buffer.concat(chunks).toString('latin1'))
  } finally {
    socket.destroy()
    server.close()
  }
}

function parse(answer: string): RawAnswer {
  const headEnd = answer.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = answer.slice(0, headEnd).split('\r\n')
  const headers = lines.map((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
  })

  return {
    status: Number(statusLine.split(' ')[1]),
    headers: Object.fromEntries(headers),
    body: answer.slice(headEnd + 4),
  }
}
