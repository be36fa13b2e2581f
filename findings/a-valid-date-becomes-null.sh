#!/usr/bin/env bash
# express-validator 7.3.2, class-validator 0.15.1 and ajv 8.20.0 with ajv-formats 3.0.1, beside joi 18.3.2 and zod 4.6.7
#
# Expected: a text that passes as a date of ISO 8601 is a date for what comes next: `toDate()` of the same chain, or `new Date`.
# Happens: ISO 8601 has many forms, and ECMAScript reads one of them (21.4.1.32). express-validator and class-validator let all of them
#   pass, and ajv an offset without minutes. What `new Date` cannot read becomes an invalid Date. `toDate()` of express-validator makes
#   null of it, after `isISO8601()` has passed, and the result has no error.
# Seen, of 2026-12-31T23:59:59Z, 20261231T235959Z and 2026-12-31T23:59:59+01:
#   express-validator, isISO8601().toDate(): a Date, null, null
#   class-validator, isISO8601 and new Date: a Date, an invalid Date, an invalid Date
#   ajv, date-time and new Date: a Date, refused, an invalid Date
#   joi, date().iso(): a Date, refused, refused
#   zod, iso.datetime({ offset: true }): a Date, refused, refused
# Why it matters for API keys: `expiresAt` comes from clients in other languages, which write such forms, and null is how keys without an
#   end are stored. A caller who asked for a key until New Year's Eve gets one for ever, with 201. An invalid Date is a 500 of the database,
#   or a key that never counts as expired, because each comparison with it is false. Test the Date after the conversion.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express-validator@7.3.2 class-validator@0.15.1 ajv@8.20.0 ajv-formats@3.0.1 joi@18.3.2 zod@4.6.7 >/dev/null

cat >dates.cjs <<'PROGRAM'
const { Ajv } = require('ajv')
const { default: addFormats } = require('ajv-formats')
const { isISO8601 } = require('class-validator')
const { body, validationResult } = require('express-validator')
const Joi = require('joi')
const { z } = require('zod')

const isDateTime = addFormats(new Ajv()).compile({ type: 'string', format: 'date-time' })
const joiDate = Joi.date().iso()
const zodDate = z.iso.datetime({ offset: true })

/** Each returns the Date for a text, or undefined if it refuses it. */
const readers = {
  'express-validator, isISO8601().toDate()': async (text) => {
    const req = { body: { expiresAt: text } }
    await body('expiresAt').isISO8601().toDate().run(req)
    return validationResult(req).isEmpty() ? req.body.expiresAt : undefined
  },
  'class-validator, isISO8601 and new Date': (text) => (isISO8601(text) ? new Date(text) : undefined),
  'ajv, date-time and new Date': (text) => (isDateTime(text) ? new Date(text) : undefined),
  'joi, date().iso()': (text) => {
    const { error, value } = joiDate.validate(text)
    return error ? undefined : value
  },
  'zod, iso.datetime({ offset: true })': (text) => (zodDate.safeParse(text).success ? new Date(text) : undefined),
}

function describe(date) {
  if (!date) return date === null ? 'null' : 'refused'
  return Number.isNaN(date.getTime()) ? 'an invalid Date' : 'a Date'
}

async function main() {
  const seen = []
  for (const [title, read] of Object.entries(readers)) {
    const outcomes = []
    for (const text of ['2026-12-31T23:59:59Z', '20261231T235959Z', '2026-12-31T23:59:59+01']) {
      outcomes.push(describe(await read(text)))
    }
    seen.push(outcomes.join(', '))
    console.log(`${title}: ${seen.at(-1)}`)
  }
  const expected = [
    'a Date, null, null',
    'a Date, an invalid Date, an invalid Date',
    'a Date, refused, an invalid Date',
    ...Array(2).fill('a Date, refused, refused'),
  ]
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
node dates.cjs
