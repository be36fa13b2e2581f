#!/usr/bin/env bash
# @nestjs/passport 12.0.0 (11.0.5 alike) on @nestjs/core 12.5.1, with passport 0.7.0
#
# Expected: what a strategy says with `fail(challenge, status)` reaches the caller, as Passport's own middleware sends it:
#   the status, and with 401 the challenge in `WWW-Authenticate`.
# Happens: `AuthGuard` answers each refusal with 401 and no challenge. It hands both to `handleRequest`, whose default
#   throws an UnauthorizedException without a look at them. (RFC 9110, section 15.5.2: a 401 has a challenge.)
# Seen:
#   Passport: 429; 401 Bearer realm="api"
#   AuthGuard: 401; 401
# Why it matters for API keys: a caller who is only too fast (429), or whose request is malformed (400), is told that the
#   key is bad. Clients throw good keys away, and do not slow down.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error @nestjs/common@12.5.1 @nestjs/core@12.5.1 \
  @nestjs/platform-express@12.5.1 @nestjs/passport@12.0.0 passport@0.7.0 reflect-metadata@0.2.2 rxjs@7.8.2 \
  express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
require('reflect-metadata')
const { once } = require('node:events')
const { Controller, Get, Module, UseGuards } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
const { AuthGuard } = require('@nestjs/passport')
const express = require('express')
const passport = require('passport')

class Refusing extends passport.Strategy {
  constructor(name, status) {
    super()
    this.name = name
    this.status = status
  }
  authenticate() {
    this.fail('Bearer realm="api"', this.status)
  }
}
const refusals = { 'too-fast': 429, 'not-good': 401 }

class Things {}
for (const [name, status] of Object.entries(refusals)) {
  passport.use(new Refusing(name, status))
  Things.prototype[name] = () => undefined
  const descriptor = Object.getOwnPropertyDescriptor(Things.prototype, name)
  Get(name)(Things.prototype, name, descriptor)
  UseGuards(AuthGuard(name))(Things.prototype, name, descriptor)
}
Controller()(Things)
class App {}
Module({ controllers: [Things] })(App)

async function main() {
  const plain = express()
  for (const name of Object.keys(refusals)) {
    plain.get(`/${name}`, passport.authenticate(name, { session: false }))
  }
  const server = plain.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const nest = await NestFactory.create(App, { logger: false })
  await nest.listen(0, '127.0.0.1')

  const ask = async (server) => {
    const answers = []
    for (const name of Object.keys(refusals)) {
      const { status, headers } = await fetch(`http://127.0.0.1:${server.address().port}/${name}`)
      answers.push(`${status} ${headers.get('WWW-Authenticate') ?? ''}`.trim())
    }
    return answers.join('; ')
  }
  const byPassport = await ask(server)
  const byGuard = await ask(nest.getHttpServer())
  console.log(`Passport: ${byPassport}`)
  console.log(`AuthGuard: ${byGuard}`)
  process.exit(byPassport === '429; 401 Bearer realm="api"' && byGuard === '401; 401' ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
