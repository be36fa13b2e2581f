#!/usr/bin/env bash
# jest 30.5.2, beside vitest 5.1.2 and the assert of Node 20
#
# Expected: `toEqual` and `toHaveBeenCalledWith` compare all properties, as they do with other objects. `toStrictEqual` compares the
#   classes as well. `toThrow(error)`, which is given an error, compares it so, too.
# Happens: for errors Jest compares the name and the message, and the cause. Of two refusals with one message, one with the status 401 and
#   one with 403 count as equal, also inside an object and as the argument of a call. vitest and Node's assert compare the properties.
# Seen, of an error with the status 401 where one with 403 is expected:
#   jest: toThrow passes, toEqual passes, toStrictEqual passes, in an object passes, toHaveBeenCalledWith passes, toMatchObject fails
#   vitest: toThrow fails, toEqual fails, toStrictEqual fails, in an object fails, toHaveBeenCalledWith fails, toMatchObject fails
#   assert: throws fails, deepStrictEqual fails
# Why it matters for API keys: a guard refuses for many reasons with one text, so that callers learn nothing, and the reasons are in
#   `status` and `code`. `expect(next).toHaveBeenCalledWith(new Refusal(403))` is the test of a guard, and is green for any of them, also
#   for a 500. After a move to vitest such tests fail, and are right. Expect the properties, with `toMatchObject`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  jest@30.5.2 vitest@5.1.2 >/dev/null

cat >errors.js <<'PROGRAM'
class Refusal extends Error {
  constructor(status) {
    super('This request is refused.')
    this.status = status
  }
}

/** Runs expectations of a refusal with 403, which a refusal with 401 should not meet. */
function outcomesOf(expectations) {
  const outcomes = Object.entries(expectations).map(([name, expectation]) => {
    try {
      expectation(new Refusal(401), new Refusal(403))
      return `${name} passes`
    } catch {
      return `${name} fails`
    }
  })
  return outcomes.join(', ')
}

const raise = (error) => () => {
  throw error
}

/** Returns the outcomes of the matchers that Jest and vitest have in common. */
exports.outcomesOfMatchers = ({ expect, createMock }) =>
  outcomesOf({
    toThrow: (error, expected) => expect(raise(error)).toThrow(expected),
    toEqual: (error, expected) => expect(error).toEqual(expected),
    toStrictEqual: (error, expected) => expect(error).toStrictEqual(expected),
    'in an object': (error, expected) => expect({ error }).toEqual({ error: expected }),
    toHaveBeenCalledWith: (error, expected) => {
      const next = createMock()
      next(error)
      expect(next).toHaveBeenCalledWith(expected)
    },
    toMatchObject: (error) => expect(error).toMatchObject({ status: 403 }),
  })

/** Returns the outcomes of Node's assert. */
exports.outcomesOfAssert = (assert) =>
  outcomesOf({
    throws: (error, expected) => assert.throws(raise(error), expected),
    deepStrictEqual: (error, expected) => assert.deepStrictEqual(error, expected),
  })
PROGRAM
cat >errors.test.js <<'PROGRAM'
const { writeFileSync } = require('node:fs')
const { outcomesOfMatchers } = require('./errors.js')

it('compares errors', () => writeFileSync('jest.txt', outcomesOfMatchers({ expect, createMock: jest.fn })))
PROGRAM
cat >errors.spec.mjs <<'PROGRAM'
import { writeFileSync } from 'node:fs'
import { expect, it, vi } from 'vitest'
import { outcomesOfMatchers } from './errors.js'

it('compares errors', () => writeFileSync('vitest.txt', outcomesOfMatchers({ expect, createMock: vi.fn })))
PROGRAM
cat >show.cjs <<'PROGRAM'
const assert = require('node:assert')
const { readFileSync } = require('node:fs')
const { outcomesOfAssert } = require('./errors.js')

const jest = readFileSync('jest.txt', 'utf8')
const vitest = readFileSync('vitest.txt', 'utf8')
const ofAssert = outcomesOfAssert(assert)
console.log(`jest: ${jest}\nvitest: ${vitest}\nassert: ${ofAssert}`)
const isSame =
  /^(\w[^,]* passes, ){5}toMatchObject fails$/.test(jest) && !/passes/.test(vitest) && !/passes/.test(ofAssert)
process.exit(isSame ? 0 : 1)
PROGRAM
echo '{ "private": true, "jest": { "transform": {} } }' >package.json
node node_modules/jest/bin/jest.js --silent errors.test 2>/dev/null
node node_modules/vitest/vitest.mjs run errors.spec >/dev/null
node show.cjs
