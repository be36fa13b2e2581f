#!/usr/bin/env bash
# prefixed-api-key 1.1.1
#
# Expected: a key that the package has made, with the prefix that it was told, is taken apart by the package into the parts that it was
#   made of. If a prefix cannot have an underscore, it is refused.
# Happens: a key is its prefix, a short token to look it up by, and a long one, with an underscore between them. To read the short token,
#   the package takes the second piece from the left, and for the long one the last. With `acme_live` the short token of each key is
#   "live". The long token is right, so that `checkAPIKey` accepts the key.
# Seen, of a key with each prefix:
#   acme: short token as made, check true
#   acme_live: short token "live", check true
# Why it matters for API keys: the package is the reference for keys in this form, and prefixes such as `sk_live` are what it was made
#   after. The row is stored under the short token as made, and looked for under "live", so that no key is ever found. An app that stores
#   what it reads from the key has a unique index with one row in it, and its second customer gets an error. Its tests have the prefix of
#   the README. Use a prefix without an underscore, or split from the right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  prefixed-api-key@1.1.1 >/dev/null

cat >parts.cjs <<'PROGRAM'
const { checkAPIKey, extractShortToken, generateAPIKey } = require('prefixed-api-key')

async function main() {
  const seen = []
  for (const keyPrefix of ['acme', 'acme_live']) {
    const { token, shortToken, longTokenHash } = await generateAPIKey({ keyPrefix })
    const read = extractShortToken(token)
    seen.push(`short token ${read === shortToken ? 'as made' : `"${read}"`}, check ${checkAPIKey(token, longTokenHash)}`)
    console.log(`${keyPrefix}: ${seen.at(-1)}`)
  }
  process.exit(seen.join() === 'short token as made, check true,short token "live", check true' ? 0 : 1)
}

void main()
PROGRAM
node parts.cjs
