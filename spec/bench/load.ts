import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'

import { answerQuestions } from './processes'

/*
 * The process that sends the requests. It must cost less than the server that it measures, so it uses little of HTTP.
 * Requests are prepared as bytes, and only the status and the length of a response are read.
 */

export interface LoadQuestion {
  port: number
  tokens: TokenList
  expectedStatuses: readonly number[]
  until: LoadEnd
}

export interface TokenList {
  file: string
  /** True if the list may begin again from the start; otherwise a run that needs more fails. */
  isRepeatable: boolean
}

/** A run ends after a time, or after a number of requests. */
export type LoadEnd = { ms: number } | { requests: number }

export interface LoadAnswer {
  requests: number
  seconds: number
}

interface Connection {
  socket: Socket
  isWaiting: boolean
  onResponse: () => void
}

const connectionCount = 50

/** The connections, by port. All stay open, so that a short run does not begin with a handshake. */
const connectionsTo = new Map<number, Connection[]>()
/** The requests by file. Each list continues at the place of its last run, so that no key for one use is used twice. */
const lists = new Map<string, { requests: Buffer[]; next: number }>()
let expectedStatuses: readonly number[] = []
let failure: Error | undefined

answerQuestions(run)

async function run(question: LoadQuestion): Promise<LoadAnswer> {
  const { port, until, tokens } = question
  const connections = connectionsTo.get(port) ?? (await openAll(port))
  const list = listOf(tokens.file)
  expectedStatuses = question.expectedStatuses
  failure = undefined

  const begunAt = performance.now()
  const endsAt = 'ms' in until ? begunAt + until.ms : Infinity
  const limit = 'requests' in until ? until.requests : Infinity
  let sent = 0

  await new Promise<void>((resolve) => {
    let open = connections.length

    for (const connection of connections) {
      const sendNext = () => {
        if (failure || sent >= limit || performance.now() >= endsAt) {
          open -= 1
          if (open === 0) resolve()
          return
        }
        if (list.next === list.requests.length && tokens.isRepeatable) list.next = 0
        const request = list.requests[list.next++]
        if (!request) {
          failure = new Error(`no tokens are left in ${tokens.file}`)
          return sendNext()
        }
        sent += 1
        connection.isWaiting = true
        connection.socket.write(request)
      }
      connection.onResponse = sendNext
      sendNext()
    }
  })
  if (failure) throw failure

  return { requests: sent, seconds: (performance.now() - begunAt) / 1000 }
}

function listOf(file: string) {
  let list = lists.get(file)
  if (!list) {
    const tokens = readFileSync(file, 'latin1').trimEnd().split('\n')
    list = { requests: tokens.map(formatRequest), next: 0 }
    lists.set(file, list)
  }
  return list
}

function formatRequest(token: string): Buffer {
  return Buffer.from(
    [
      'GET /graphs/7 HTTP/1.1',
      'Host: 127.0.0.1',
      'User-Agent: bench',
      'Accept: application/json',
      `Authorization: Bearer ${token}`,
      '\r\n',
    ].join('\r\n'),
    'latin1',
  )
}

async function openAll(port: number): Promise<Connection[]> {
  const connections = await Promise.all(Array.from({ length: connectionCount }, () => open(port)))
  connectionsTo.set(port, connections)
  return connections
}

async function open(port: number): Promise<Connection> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  await new Promise((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })

  const connection = { socket, isWaiting: false, onResponse() {} }
  let rest: Buffer | undefined
  socket.on('data', (chunk) => {
    const bytes = rest ? Buffer.concat([rest, chunk]) : chunk
    const end = endOfResponse(bytes)
    if (end > bytes.length) {
      rest = bytes
      return
    }
    rest = undefined
    const status = statusOf(bytes)
    if (!expectedStatuses.includes(status) || end !== bytes.length) fail(bytes)
    connection.isWaiting = false
    connection.onResponse()
  })
  socket.on('error', (error) => {
    failure ??= error
  })
  socket.on('close', () => {
    connectionsTo.delete(port)
    // Between two runs, the server may end.
    if (!connection.isWaiting) return
    failure ??= new Error('the server closed a connection')
    connection.onResponse()
  })
  return connection
}

const blankLine = Buffer.from('\r\n\r\n')
const contentLength = Buffer.from('\r\nContent-Length: ')
const [zero, carriageReturn] = [48, 13]

/** Returns the end of the response at the start of these bytes; `Infinity` as long as it is unknown. */
function endOfResponse(bytes: Buffer): number {
  const headersEnd = bytes.indexOf(blankLine)
  if (headersEnd === -1) return Infinity
  const lengthAt = bytes.indexOf(contentLength)
  if (lengthAt === -1 || lengthAt > headersEnd) {
    fail(bytes)
    return bytes.length
  }

  let length = 0
  for (let at = lengthAt + contentLength.length; bytes[at] !== carriageReturn; at++) {
    length = length * 10 + (bytes[at] ?? zero) - zero
  }
  return headersEnd + blankLine.length + length
}

function statusOf(bytes: Buffer): number {
  const [hundreds = 0, tens = 0, ones = 0] = [bytes[9], bytes[10], bytes[11]]
  return (hundreds - zero) * 100 + (tens - zero) * 10 + ones - zero
}

function fail(bytes: Buffer) {
  failure ??= new Error(
    `expected one response with status ${expectedStatuses.join(' or ')}, got:\n${bytes.toString('latin1')}`,
  )
}
