#!/usr/bin/env bash
# ioredis-mock 8.13.1, with ioredis 5.11.1
#
# Expected: a script's Lua table becomes a list, however the script has filled it. Redis walks it from 1 to the first nil.
# Happens: only a table that is written out as a whole, `{ 'a', 'b' }`, becomes a list. A table that is filled by index or by
#   `table.insert` becomes null inside another table, and the script returns undefined if that is all that it returns. There is
#   no error. Text arrives as it is.
# Seen:
#   return { 'a', 'b' }: ["a","b"]
#   return { 1, filled }: [1,null]
#   return filled: undefined
#   return table.concat(filled, ' '): "a b"
# Why it matters for API keys: scripts that count limits return a list that they fill in a loop. In an app's tests on the
#   mock, what is left of a limit is null or NaN, and a comparison with it lets every request pass. A script that returns
#   text is read alike everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error ioredis-mock@8.13.1 ioredis@5.11.1 >/dev/null

cat >script.cjs <<'PROGRAM'
const Redis = require('ioredis-mock')

const fill = "local filled = {} for i, value in ipairs({ 'a', 'b' }) do filled[i] = value end "
const scripts = {
  "return { 'a', 'b' }": '["a","b"]',
  'return { 1, filled }': '[1,null]',
  'return filled': 'undefined',
  "return table.concat(filled, ' ')": '"a b"',
}

async function main() {
  const redis = new Redis()
  let isAsSeen = true
  for (const [script, seen] of Object.entries(scripts)) {
    const reply = String(JSON.stringify(await redis.eval(fill + script, 0)))
    console.log(`${script}: ${reply}`)
    isAsSeen &&= reply === seen
  }
  process.exit(isAsSeen ? 0 : 1)
}

void main()
PROGRAM
node script.cjs
