#!/usr/bin/env bash
# jsonwebtoken 9.0.3, jose 6.2.18 and fast-jwt 6.3.6
#
# Expected: a lifetime of 3600 for a token is an hour, as `expires_in` of OAuth is, as a number and as the text that an environment
#   variable gives. Or it is refused.
# Happens: jsonwebtoken takes the number for seconds and the text for milliseconds. fast-jwt takes both for milliseconds. jose takes the
#   number for a time, one hour after the beginning of 1970, and refuses the text. Only "1h" means the same to all.
# Seen, as `exp` after `iat`:
#   jsonwebtoken: number an hour, text 3.6 s, "1h" an hour
#   fast-jwt: number 3.6 s, text 3.6 s, "1h" an hour
#   jose: number in 1970, text TypeError, "1h" an hour
# Why it matters for API keys: keys are exchanged for short tokens, whose lifetime comes from the settings. `expiresIn: process.env.TTL`
#   gives tokens of three or four seconds, which work in each test that uses them at once. A change of the library for a faster one does
#   so to numbers, too. Give a unit, or set `exp` oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  jsonwebtoken@9.0.3 jose@6.2.18 fast-jwt@6.3.6 >/dev/null

cat >lifetimes.mjs <<'PROGRAM'
import { createSigner } from 'fast-jwt'
import { decodeJwt, SignJWT } from 'jose'
import jwt from 'jsonwebtoken'

const secret = 'a-secret-of-no-use-that-is-long-enough'
const libraries = {
  jsonwebtoken: (expiresIn) => jwt.sign({}, secret, { expiresIn }),
  'fast-jwt': (expiresIn) => createSigner({ key: secret, expiresIn })({}),
  jose: (expiresIn) => {
    const token = new SignJWT().setProtectedHeader({ alg: 'HS256' }).setIssuedAt()
    return token.setExpirationTime(expiresIn).sign(Buffer.from(secret))
  },
}
const lifetimes = { number: 3600, text: '3600', '"1h"': '1h' }

const seen = []
for (const [name, sign] of Object.entries(libraries)) {
  const outcomes = []
  for (const [kind, lifetime] of Object.entries(lifetimes)) {
    try {
      const { iat, exp } = decodeJwt(await sign(lifetime))
      // Both are whole seconds, which may begin between the two.
      const length = exp - iat < 5 ? '3.6 s' : exp - iat < 3605 ? 'an hour' : 'something else'
      outcomes.push(`${kind} ${exp === 3600 ? 'in 1970' : length}`)
    } catch (error) {
      outcomes.push(`${kind} ${error.name}`)
    }
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  'number an hour, text 3.6 s, "1h" an hour',
  'number 3.6 s, text 3.6 s, "1h" an hour',
  'number in 1970, text TypeError, "1h" an hour',
]
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node lifetimes.mjs
