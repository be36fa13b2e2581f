#!/usr/bin/env bash
# dotenv 18.0.10, dotenv-expand 1000.0.0, @next/env 16.4.6 and the parser of Node 20, beside bash
#
# Expected: a line `KEY=value` of an .env file gives all readers the same value, most of all if it is in single quotes.
# Happens: a "#" ends an unquoted value, without a space before it, also where a shell would go on. dotenv-expand and Next.js take "$" and
#   what follows for a variable, in single quotes, too, and put nothing in its place. The shell keeps single quotes and does so to the
#   rest.
# Seen, of ak_1#2, ak_1$x and 'ak_1$x':
#   dotenv: ak_1, ak_1$x, ak_1$x
#   node: ak_1, ak_1$x, ak_1$x
#   dotenv-expand: ak_1, ak_1, ak_1
#   next: ak_1, ak_1, ak_1
#   bash: ak_1#2, ak_1, ak_1$x
# Why it matters for API keys: keys, and secrets for hashing and signing, are what these files are for. A generator that uses all
#   printable signs makes keys that are cut in some tools and whole in others. There is no error: with a shorter key it is a 401, and with
#   a shorter secret, hashes and signatures that no other service finds right. The alphabet of keys should be letters, digits, dash and
#   underscore.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  dotenv@18.0.10 dotenv-expand@1000.0.0 @next/env@16.4.6 >/dev/null

cat >files.mjs <<'PROGRAM'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import next from '@next/env'
import { parse } from 'dotenv'
import { expand } from 'dotenv-expand'

writeFileSync('.env', ['KEY_A=ak_1#2', 'KEY_B=ak_1$x', "KEY_C='ak_1$x'"].join('\n'))
const text = readFileSync('.env', 'utf8')
const names = ['KEY_A', 'KEY_B', 'KEY_C']
const readers = {
  dotenv: () => parse(text),
  node: () => parseEnv(text),
  'dotenv-expand': () => expand({ parsed: parse(text), processEnv: {} }).parsed,
  next: () => next.loadEnvConfig(process.cwd(), false, { info() {}, error() {} }).combinedEnv,
  bash: () => {
    const script = `set -a; . ./.env; exec node -p 'JSON.stringify(process.env)'`
    return JSON.parse(execFileSync('bash', ['-c', script], { encoding: 'utf8' }))
  },
}
const seen = []
for (const [name, read] of Object.entries(readers)) {
  const values = read()
  seen.push(names.map((key) => values[key]).join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
  for (const key of names) delete process.env[key]
}
const expected = ['ak_1, ak_1$x, ak_1$x', 'ak_1, ak_1$x, ak_1$x', 'ak_1, ak_1, ak_1', 'ak_1, ak_1, ak_1', 'ak_1#2, ak_1, ak_1$x']
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node files.mjs
