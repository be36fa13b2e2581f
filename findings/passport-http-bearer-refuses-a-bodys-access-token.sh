#!/usr/bin/env bash
# passport-http-bearer 1.0.1 with passport 0.7.0 and express 5.3.0, beside express-oauth2-jwt-bearer 1.10.0
#
# Expected: a token in a body counts as the caller's credential in a form (RFC 6750, 2.2: `application/x-www-form-urlencoded`, and a body
#   of one part). JSON with a property of that name is the app's own.
# Happens: the strategy looks for `access_token` in any body that was parsed, and in the query. If the request has `Authorization` as
#   well, it answers 400, without a challenge and before the app is asked. A nested property is not seen.
# Seen, of a good token in `Authorization` and this JSON beside it:
#   passport-http-bearer: {"name":"x"} 200, {"access_token":"x"} 400, {"github":{"access_token":"x"}} 200
#   express-oauth2-jwt-bearer: {"name":"x"} 200, {"access_token":"x"} 200, {"github":{"access_token":"x"}} 200
# Why it matters for API keys: "connect this account" takes the answer of another service and stores it, and that answer is `{
#   "access_token": ... }` by OAuth. Each caller with a key gets a 400 that no code of the app has sent. If the body is parsed after the
#   strategy, it works, so that the order of two lines decides. Nest the answer, or read the header in a custom strategy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  passport-http-bearer@1.0.1 passport@0.7.0 express@5.3.0 express-oauth2-jwt-bearer@1.10.0 jose@6.2.18 >/dev/null

cat >bodies.cjs <<'PROGRAM'
const { once } = require('node:events')
const express = require('express')
const { auth } = require('express-oauth2-jwt-bearer')
const { SignJWT } = require('jose')
const passport = require('passport')
const { Strategy } = require('passport-http-bearer')

const secret = 'a-secret-of-no-use-that-is-long-enough'
const issuer = 'https://issuer.example'
const audience = 'api'
passport.use(new Strategy((token, done) => done(null, { token })))
const guards = {
  'passport-http-bearer': passport.authenticate('bearer', { session: false }),
  'express-oauth2-jwt-bearer': auth({ issuer, audience, secret, tokenSigningAlg: 'HS256' }),
}

async function main() {
  const claims = new SignJWT().setProtectedHeader({ alg: 'HS256' }).setIssuer(issuer).setAudience(audience)
  const token = await claims.setIssuedAt().setExpirationTime('1h').sign(Buffer.from(secret))
  const app = express().use(express.json())
  for (const [name, guard] of Object.entries(guards)) app.post(`/${name}`, guard, (req, res) => res.end())
  app.use((error, req, res, next) => res.status(error.status ?? 500).end())
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const bodies = [{ name: 'x' }, { access_token: 'x' }, { github: { access_token: 'x' } }].map((body) => JSON.stringify(body))
  const seen = []
  for (const name of Object.keys(guards)) {
    const statuses = []
    for (const body of bodies) {
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
      const answer = await fetch(`http://127.0.0.1:${server.address().port}/${name}`, { method: 'POST', headers, body })
      statuses.push(answer.status)
    }
    seen.push(statuses.join(' '))
    console.log(`${name}: ${bodies.map((body, at) => `${body} ${statuses[at]}`).join(', ')}`)
  }
  process.exit(seen.join() === '200 400 200,200 200 200' ? 0 : 1)
}

void main()
PROGRAM
node bodies.cjs
