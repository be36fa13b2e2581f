#!/usr/bin/env bash
# eventsource 4.1.1 and the EventSource of undici 7.30.2
#
# Expected: an EventSource that lost its connection tries again until it succeeds, as it promises. A 503 or a 429 with `Retry-After: 1`
#   among its attempts makes it wait.
# Happens: it tries again after a connection that broke or was refused, without end, but the first answer that is not a 200 ends it, as
#   the standard of HTML demands (9.2.3), also for browsers. `Retry-After` is not read. A server that is gone is better than one that
#   says "try again shortly".
# Seen, of a stream that breaks after its first event, where the next attempt gets another answer and all later ones a stream:
#   eventsource, connection closed: 3 requests, open again
#   eventsource, 503: 2 requests, closed for ever
#   eventsource, 429: 2 requests, closed for ever
#   undici, connection closed: 3 requests, open again
#   undici, 503: 2 requests, closed for ever
#   undici, 429: 2 requests, closed for ever
# Why it matters for API keys: a guard that cannot ask its database answers 503, which HTTP clients take for a matter of seconds. If
#   streams break in that moment (a deployment, a failover), all of them end for good, in clients whose authors rely on reconnection.
#   Clients need a loop of their own around `readyState` CLOSED. A server can close the connection without an answer, and the clients
#   return.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts eventsource@4.1.1 undici@7.30.2 >/dev/null

cat >events.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { EventSource } from 'eventsource'
import { EventSource as OfUndici } from 'undici'

let requests = 0
let trouble
const server = createServer((req, res) => {
  requests++
  if (requests === 2 && trouble === 'connection closed') return res.destroy()
  if (requests === 2) return res.writeHead(trouble, { 'Retry-After': '1' }).end()
  res.writeHead(200, { 'Content-Type': 'text/event-stream' })
  res.write('retry: 50\n\ndata: hello\n\n')
  if (requests === 1) setTimeout(() => res.destroy(), 100)
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const seen = []
for (const [name, Source] of [
  ['eventsource', EventSource],
  ['undici', OfUndici],
]) {
  for (trouble of ['connection closed', 503, 429]) {
    requests = 0
    const source = new Source(url)
    await wait(2500)
    const state = { [Source.OPEN]: 'open again', [Source.CLOSED]: 'closed for ever' }[source.readyState]
    source.close()
    seen.push(`${requests} requests, ${state}`)
    console.log(`${name}, ${trouble}: ${seen.at(-1)}`)
  }
}
const [again, ended] = ['3 requests, open again', '2 requests, closed for ever']
process.exit(seen.join() === [again, ended, ended, again, ended, ended].join() ? 0 : 1)
PROGRAM
node --no-warnings events.mjs
