#!/usr/bin/env bash
# secretlint 13.0.6 with @secretlint/secretlint-rule-preset-recommend 13.1.0
#
# Expected: a scanner that masks the secrets which it finds, by default, masks them in each form of its report.
# Happens: the message of each finding is masked. The report for programs (`--format json`) has, beside the messages, the whole text of
#   each file with a finding (`sourceContent`), as it is, also with `--maskSecrets`. The report with excerpts shows the line.
# Seen, of a file with a token of Slack and a password in a line below it:
#   stylish: token masked, password not there
#   github: token masked, password not there
#   junit: token masked, password not there
#   pretty-error: token shown, password not there
#   json: token shown, password shown
# Why it matters for API keys: scanners run in CI, where logs and artifacts are read by more people than the code, and are kept when the
#   history of the repository has been cleaned. The JSON is what is uploaded, merged and sent to dashboards. A key that was found minutes
#   after it was committed, and the secrets beside it that no rule knows, are then in places that are not searched. Delete
#   `sourceContent` before the report leaves the job.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  secretlint@13.0.6 @secretlint/secretlint-rule-preset-recommend@13.1.0 >/dev/null

cat >reports.cjs <<'PROGRAM'
const { spawnSync } = require('node:child_process')
const { writeFileSync } = require('node:fs')

// Put together here, so that scanners of this repository do not find it.
const token = ['xoxb', '000000000000', '0000000000000', 'a'.repeat(24)].join('-')
const password = 'not-a-real-password'
writeFileSync('settings.txt', `slack = ${token}\n\n\n\n\n\n\n\ndatabase = ${password}\n`)
writeFileSync('.secretlintrc.json', JSON.stringify({ rules: [{ id: '@secretlint/secretlint-rule-preset-recommend' }] }))

const seen = []
for (const format of ['stylish', 'github', 'junit', 'pretty-error', 'json']) {
  const args = ['node_modules/secretlint/bin/secretlint.js', '--maskSecrets', '--format', format, 'settings.txt']
  const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  const ofToken = stdout.includes(token) ? 'shown' : stdout.includes('****') ? 'masked' : 'not there'
  seen.push(`token ${ofToken}, password ${stdout.includes(password) ? 'shown' : 'not there'}`)
  console.log(`${format}: ${seen.at(-1)}`)
}
const expected = [
  ...Array(3).fill('token masked, password not there'),
  'token shown, password not there',
  'token shown, password shown',
]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node reports.cjs
