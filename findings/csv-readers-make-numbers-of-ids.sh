#!/usr/bin/env bash
# csv-parse 7.0.3, papaparse 5.7.1, csvtojson 2.0.14 and d3-dsv 3.0.2
#
# Expected: a CSV reader that is asked to recognise numbers takes "42" for one, and leaves as text what would not come back as it was.
# Happens: none of them compares. Digits around an "e" are a number with many zeros, zeros in front are gone, and what is above 2^53 is
#   rounded by all but papaparse. Two of them make Infinity of a larger exponent, of which there are many.
# Seen, of the values 12e4, 12e456, 0042, 9007199254740993 and a1b2, each as a text and what it became:
#   csv-parse, cast: 120000, "12e456", 42, 9007199254740992, "a1b2"
#   papaparse, dynamicTyping: 120000, "12e456", 42, "9007199254740993", "a1b2"
#   csvtojson, checkType: 120000, Infinity, 42, 9007199254740992, "a1b2"
#   d3-dsv, autoType: 120000, Infinity, 42, 9007199254740992, "a1b2"
# Why it matters for API keys: exports of other systems have ids, prefixes and first characters of keys in hexadecimal digits. Of six such
#   characters, one in thirty is another text after this. The import of a thousand keys looks right, and some are never found by their
#   first characters again, or belong to the user of another number. Read text, and convert column by column.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  csv-parse@7.0.3 papaparse@5.7.1 csvtojson@2.0.14 d3-dsv@3.0.2 >/dev/null

cat >readers.mjs <<'PROGRAM'
import { parse } from 'csv-parse/sync'
import csvtojson from 'csvtojson'
import { autoType, csvParse } from 'd3-dsv'
import Papa from 'papaparse'

const values = ['12e4', '12e456', '0042', '9007199254740993', 'a1b2']
const text = ['id', ...values].join('\n')
const readers = {
  'csv-parse, cast': () => parse(text, { columns: true, cast: true }),
  'papaparse, dynamicTyping': () => Papa.parse(text, { header: true, dynamicTyping: true }).data,
  'csvtojson, checkType': () => csvtojson({ checkType: true }).fromString(text),
  'd3-dsv, autoType': () => csvParse(text, autoType),
}
const seen = []
for (const [name, read] of Object.entries(readers)) {
  const rows = await read()
  seen.push(rows.map(({ id }) => (typeof id === 'string' ? `"${id}"` : String(id))).join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  '120000, "12e456", 42, 9007199254740992, "a1b2"',
  '120000, "12e456", 42, "9007199254740993", "a1b2"',
  '120000, Infinity, 42, 9007199254740992, "a1b2"',
  '120000, Infinity, 42, 9007199254740992, "a1b2"',
]
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node readers.mjs
