#!/usr/bin/env bash
# passport-http 0.3.0 with passport 0.7.0 and express 5.3.0, beside basic-auth 2.0.1 and express-basic-auth 1.2.1
#
# Expected: of Basic credentials, all before the first colon is the name and all after it the password, which may have colons itself and
#   may be empty (RFC 7617, 2).
# Happens: passport-http splits at each colon and takes the second part, so that a password ends at its first colon. If the password is
#   empty, it refuses the request before the app is asked. The other two read both right.
# Seen, of the credentials "service:id:secret" and "a-key:", as name and password:
#   passport-http: "service" and "id", then 401
#   basic-auth: "service" and "id:secret", then "a-key" and ""
#   express-basic-auth: "service" and "id:secret", then "a-key" and ""
# Why it matters for API keys: "the key is the user name, and the password stays empty" is how Stripe and many after it take keys, so that
#   `curl -u a-key:` works. With the strategy it never does. Keys that have an id and a secret with a colon between them are never found.
#   Read the header with basic-auth in a custom strategy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  passport-http@0.3.0 passport@0.7.0 express@5.3.0 basic-auth@2.0.1 express-basic-auth@1.2.1 >/dev/null

cat >basic.cjs <<'PROGRAM'
const { once } = require('node:events')
const basicAuth = require('basic-auth')
const express = require('express')
const expressBasicAuth = require('express-basic-auth')
const passport = require('passport')
const { BasicStrategy } = require('passport-http')

passport.use(new BasicStrategy((name, password, done) => done(null, { name, password })))
const guards = {
  'passport-http': passport.authenticate('basic', { session: false }),
  'basic-auth': (req, res, next) => {
    const { name, pass } = basicAuth(req)
    req.user = { name, password: pass }
    next()
  },
  'express-basic-auth': [
    expressBasicAuth({ authorizer: () => true }),
    (req, res, next) => {
      req.user = { name: req.auth.user, password: req.auth.password }
      next()
    },
  ],
}

async function main() {
  const app = express()
  for (const [name, guard] of Object.entries(guards)) app.get(`/${name}`, guard, (req, res) => res.json(req.user))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const seen = []
  for (const name of Object.keys(guards)) {
    const read = async (credentials) => {
      const headers = { Authorization: `Basic ${Buffer.from(credentials).toString('base64')}` }
      const answer = await fetch(`http://127.0.0.1:${server.address().port}/${name}`, { headers })
      if (!answer.ok) return String(answer.status)
      const user = await answer.json()
      return `"${user.name}" and "${user.password}"`
    }
    seen.push(`${await read('service:id:secret')}, then ${await read('a-key:')}`)
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const right = '"service" and "id:secret", then "a-key" and ""'
  process.exit(seen.join('; ') === ['"service" and "id", then 401', right, right].join('; ') ? 0 : 1)
}

void main()
PROGRAM
node basic.cjs
