/** A signal is kept until it closes: a response, a request, a socket, a WebSocket, or any other event emitter. */
export interface Closable {
  // `never` accepts emitters with events of any types.
  once(event: never, listener: never): unknown
  off(event: never, listener: never): unknown
}

/** An emitter of any kind, and the members by which some kinds report their own state. */
interface Emitter {
  once(event: string, listener: () => void): unknown
  off(event: string, listener: () => void): unknown
  /** True if a stream has closed. */
  readonly closed?: unknown
  /** True if a stream has written everything. */
  readonly writableFinished?: unknown
  /** Readable streams have this method, and writable streams the other. */
  readonly read?: unknown
  readonly write?: unknown
  /** True if a readable stream was read to its end. */
  readonly readableEnded?: unknown
  /** The state of a WebSocket, or of a connection of Socket.IO. */
  readonly readyState?: unknown
  /** True if a socket of Socket.IO is disconnected, or not connected yet: middleware of Socket.IO runs before. */
  readonly disconnected?: unknown
  /** The connection of a socket of Socket.IO, which other sockets may share. */
  readonly conn?: unknown
}

/** The states of a WebSocket, by number, and of a connection of Socket.IO, by name. */
const endStates = new Set<unknown>([2, 3, 'closing', 'closed'])

/** The parts of a request of HTTP/1 or HTTP/2 that end with it. */
interface EndingRequest {
  readonly httpVersionMajor: number
  readonly socket?: unknown
  readonly res?: unknown
}

export function isClosable(value: unknown): value is Closable {
  const { once, off } = (value ?? {}) as Partial<Closable>
  return typeof once === 'function' && typeof off === 'function'
}

/**
 * Returns the emitters of a request. The first that ends, ends the request. A response that no server sends, for
 * example behind an upgrade, never reports its end, but its socket does.
 */
export function closablesOfRequest(req: EndingRequest, res: unknown = req.res): Closable[] {
  // In HTTP/1 a request closes once its body is read. In HTTP/2 many requests share a socket.
  return [res, req.httpVersionMajor > 1 ? req : req.socket].filter(isClosable)
}

/** Returns the emitters of the object that a caller has named. */
export function closablesOf(given: Closable): Closable[] {
  if (isRequest(given)) return closablesOfRequest(given)

  // A socket of Socket.IO that middleware refuses reports no end, but its connection does.
  const { req, conn } = given as { req?: unknown; conn?: unknown }
  return isRequest(req) ? closablesOfRequest(req, given) : [given, conn].filter(isClosable)
}

/** True if one of them has ended. */
export function isOver(closables: readonly Closable[]): boolean {
  return closables.some((emitter: Emitter) => {
    const { closed, readyState, disconnected, conn, writableFinished } = emitter
    if (closed === true || endStates.has(readyState)) return true
    // With an open connection, a socket of Socket.IO may be about to connect.
    if (disconnected === true) return !isClosable(conn) || isOver([conn])
    return writableFinished === true && !isReadable(emitter)
  })
}

/** True if the client has stopped sending, and this side has not ended the connection yet. */
export function isHalfOpen(closables: readonly Closable[]): boolean {
  return closables.some(
    (emitter: Emitter) =>
      isReadable(emitter) && 'write' in emitter && emitter.readableEnded === true,
  )
}

/** Calls a function once the first of them ends. Returns the function that removes the listeners. */
export function whenOver(closables: readonly Closable[], listener: () => void): () => void {
  // An emitter takes any event name at run time, whatever its types say.
  const emitters: readonly Emitter[] = closables
  for (const emitter of emitters) {
    for (const event of endEventsOf(emitter)) emitter.once(event, listener)
  }

  return function stopListening() {
    for (const emitter of emitters) {
      for (const event of endEventsOf(emitter)) emitter.off(event, listener)
    }
  }
}

function endEventsOf(emitter: Emitter): readonly string[] {
  // Socket.IO emits whatever event its client names, but not this one: the client must not end the watch over its own key.
  if (typeof emitter.disconnected === 'boolean') return ['disconnect']
  // A connection that has finished writing may still receive.
  if (isReadable(emitter)) return ['close']
  return ['close', 'finish', 'disconnect']
}

function isReadable({ read }: Emitter): boolean {
  return typeof read === 'function'
}

function isRequest(value: unknown): value is EndingRequest {
  return typeof (value as Partial<EndingRequest> | undefined)?.httpVersionMajor === 'number'
}
