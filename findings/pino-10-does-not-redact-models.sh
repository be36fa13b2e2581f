#!/usr/bin/env bash
# pino 10.4.0 (9.14.0 alike), beside pino 9.7.0, with sequelize 6.37.8
#
# Expected: `redact: ['key.hash']` keeps `key.hash` out of what is logged, whatever `key` is: an object, or an instance of a model.
# Happens: since pino 9 left fast-redact for @pinojs/redact, it copies the object and replaces the value in the copy. An instance of a
#   model has no `hash` of its own, only an accessor on its prototype and a `toJSON` that reads another object. Both work on in the copy,
#   and the line has the hash. Nothing is reported. Before, pino set the property on the instance itself while it wrote, which reaches
#   what `toJSON` reads, and set it back.
# Seen, of keys as plain objects and as instances of Sequelize, by the rules key.hash and keys[*].hash:
#   pino 9.7, objects: key [Redacted], keys [Redacted]
#   pino 9.7, instances: key [Redacted], keys [Redacted]
#   pino 10, objects: key [Redacted], keys [Redacted]
#   pino 10, instances: key a-hash, keys a-hash
# Why it matters for API keys: what a guard finds is an instance, and `log.info({ key }, 'used')` is the line that is written about it.
#   Rules that have held for years are in place and tested with plain objects, and an update of the logger, even a minor one, writes each
#   hash to the log. Give the logger a serializer for `key`, which runs before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pino@10.4.0 pino-9@npm:pino@9.7.0 sequelize@6.37.8 pg@8.23.1 >/dev/null

cat >redact.cjs <<'PROGRAM'
const { Writable } = require('node:stream')
const { DataTypes, Sequelize } = require('sequelize')

const versions = { 'pino 9.7': require('pino-9'), 'pino 10': require('pino') }
const Key = new Sequelize('postgres://127.0.0.1/none').define('key', { hash: DataTypes.TEXT })
const kinds = { objects: () => ({ hash: 'a-hash' }), instances: () => Key.build({ hash: 'a-hash' }) }

const seen = []
for (const [version, pino] of Object.entries(versions)) {
  for (const [kind, create] of Object.entries(kinds)) {
    const log = (path, values) => {
      let line = ''
      const stream = new Writable({
        write(chunk, encoding, next) {
          line += chunk
          next()
        },
      })
      pino({ redact: [path] }, stream).info(values, 'used')
      return JSON.parse(line)
    }
    const { key } = log('key.hash', { key: create() })
    const { keys } = log('keys[*].hash', { keys: [create()] })
    seen.push(`key ${key.hash}, keys ${keys[0].hash}`)
    console.log(`${version}, ${kind}: ${seen.at(-1)}`)
  }
}
const redacted = 'key [Redacted], keys [Redacted]'
process.exit(seen.join('; ') === [redacted, redacted, redacted, 'key a-hash, keys a-hash'].join('; ') ? 0 : 1)
PROGRAM
node redact.cjs
