#!/usr/bin/env bash
# bcrypt 6.0.0, beside bcryptjs 3.0.3, @node-rs/bcrypt 2.0.0 and hash-wasm 4.13.0
#
# Expected: a bcrypt hash is verified or refused as unreadable, whichever language made it. `$2a$`, `$2b$` and `$2y$` mean the same
#   algorithm, of which the last is what PHP's `password_hash` and Laravel write.
# Happens: the package bcrypt resolves to false for `$2y$`, which is also its answer to a wrong text. There is no error. The other three
#   know it.
# Seen, of one right text and its hash under each name:
#   bcrypt: $2a$ true, $2b$ true, $2y$ false
#   bcryptjs: $2a$ true, $2b$ true, $2y$ true
#   @node-rs/bcrypt: $2a$ true, $2b$ true, $2y$ true
#   hash-wasm: $2a$ true, $2b$ true, $2y$ true
# Why it matters for API keys: keys are taken over from a system in PHP with their hashes, so that users need no new ones. Each of them is
#   refused, as if it were wrong, and a test with hashes that were made in Node is green. Write `$2b$` for `$2y$` when keys are imported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  bcrypt@6.0.0 bcryptjs@3.0.3 @node-rs/bcrypt@2.0.0 hash-wasm@4.13.0 >/dev/null

cat >hashes.mjs <<'PROGRAM'
import nodeRs from '@node-rs/bcrypt'
import bcrypt from 'bcrypt'
import bcryptjs from 'bcryptjs'
import { bcryptVerify } from 'hash-wasm'

const libraries = {
  bcrypt: (text, hash) => bcrypt.compare(text, hash),
  bcryptjs: (text, hash) => bcryptjs.compare(text, hash),
  '@node-rs/bcrypt': (text, hash) => nodeRs.compare(text, hash),
  'hash-wasm': (text, hash) => bcryptVerify({ password: text, hash }),
}
const made = await bcryptjs.hash('a-key', 4)

const seen = []
for (const [name, verify] of Object.entries(libraries)) {
  const outcomes = []
  for (const version of ['$2a$', '$2b$', '$2y$']) {
    outcomes.push(`${version} ${await verify('a-key', made.replace(/^\$2.\$/, () => version))}`)
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const right = '$2a$ true, $2b$ true, $2y$ true'
process.exit(seen.join('; ') === ['$2a$ true, $2b$ true, $2y$ false', right, right, right].join('; ') ? 0 : 1)
PROGRAM
node hashes.mjs
