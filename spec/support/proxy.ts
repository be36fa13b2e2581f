import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** A network between processes and their Postgres that can be made to fail. */
export interface Proxy {
  port: number
  /** Rewrites the address of a server into that of the proxy. */
  through(url: string): string
  /** The server to which new connections lead from now on. */
  pointAt(port: number): void
  /** Ends every connection, like a server that goes down. New connections are let through. */
  cut(): void
  /** Keeps every connection and forwards nothing. New connections are accepted and hang. Neither end notices it. */
  freeze(): void
  /** Lets new connections through. The connections that hung go on, or stay silent for good. */
  thaw(frozen: Frozen): void
  /** Ends every connection and refuses new connections. */
  refuse(): void
  /** Lets new connections through, also after `refuse()`. */
  accept(): Promise<void>
  close(): Promise<void>
}

/** The state of connections after the network hung: they go on, or no end receives anything from the other end. */
export type Frozen = 'resumed' | 'abandoned' | 'abandoned with those begun since'

interface Link {
  client: Socket
  /** Absent while the network hangs. */
  server?: Socket
  isFrozen: boolean
}

export async function startProxy(targetPort: number): Promise<Proxy> {
  let target = targetPort
  let isFrozen = false
  const links = new Set<Link>()
  const listener = createServer({ allowHalfOpen: false }, (client) => {
    const link: Link = { client, isFrozen }
    links.add(link)
    client.on('error', () => {})
    client.once('close', () => {
      // An abandoned end receives nothing from the other end.
      if (!link.isFrozen) link.server?.destroy()
      if (!link.isFrozen || !link.server) links.delete(link)
    })
    if (isFrozen) client.pause()
    else join(link)
  })
  const port = await listen(0)

  async function listen(wanted: number) {
    listener.listen(wanted, '127.0.0.1')
    await once(listener, 'listening')
    // The address of a TCP server is never the string of a pipe.
    return (listener.address() as AddressInfo).port
  }

  function join(link: Link) {
    const server = connect(target, '127.0.0.1')
    link.server = server
    link.client.setNoDelay(true)
    server.setNoDelay(true)
    server.on('error', () => {})
    server.once('close', () => {
      if (!link.isFrozen) link.client.destroy()
      links.delete(link)
    })
    link.client.pipe(server)
    server.pipe(link.client)
  }

  function cut() {
    for (const { client, server } of links) {
      client.destroy()
      server?.destroy()
    }
    links.clear()
  }

  return {
    port,
    through(url) {
      const address = new URL(url)
      address.port = String(port)
      return address.href
    },
    pointAt(newPort) {
      target = newPort
    },
    cut,
    freeze() {
      isFrozen = true
      for (const link of links) {
        link.isFrozen = true
        link.client.unpipe()
        link.server?.unpipe()
        link.client.pause()
        link.server?.pause()
      }
    },
    thaw(frozen) {
      isFrozen = false
      for (const link of links) {
        const isAbandoned =
          frozen === 'abandoned with those begun since' || (frozen === 'abandoned' && link.server)
        if (!link.isFrozen || isAbandoned) continue
        link.isFrozen = false
        if (link.client.destroyed || link.server?.destroyed) {
          link.client.destroy()
          link.server?.destroy()
          links.delete(link)
        } else if (link.server) {
          link.client.pipe(link.server)
          link.server.pipe(link.client)
        } else join(link)
      }
    },
    refuse() {
      listener.close()
      cut()
    },
    async accept() {
      if (!listener.listening) await listen(port)
    },
    async close() {
      cut()
      if (!listener.listening) return
      listener.close()
      await once(listener, 'close')
    },
  }
}
