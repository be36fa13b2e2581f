#!/usr/bin/env bash
# @nestjs/core 12.5.1 on @nestjs/platform-express 12.5.1, with express 5.3.0
#
# Expected: an error with a `status` of 404 is answered with 404, as by Express, on which Nest stands here: Express asks an
#   error for `status`, then for `statusCode`. Nest 11 asks for `statusCode`.
# Happens: Nest 12 takes the status of an Error only if `status`, `statusCode` and a boolean `expose` are all there, as
#   http-errors sets them. Each other Error is a 500, "Internal server error".
# Seen:
#   Express, status: 404
#   Nest, status: 500
#   Nest, statusCode: 500
#   Nest, status and statusCode: 500
#   Nest, status and statusCode and expose: 404
# Why it matters for API keys: the refusals of a library for Express (404, 422, 429, 503), thrown in a handler of Nest's,
#   become 500 without a word: callers try again what can never succeed, and alarms ring. With version 11 a `statusCode`
#   was enough, so that an update brings the 500 back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error @nestjs/common@12.5.1 @nestjs/core@12.5.1 \
  @nestjs/platform-express@12.5.1 reflect-metadata@0.2.2 rxjs@7.8.2 express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
require('reflect-metadata')
const { once } = require('node:events')
const { Controller, Get, Module } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
const express = require('express')

const properties = { status: 404, statusCode: 404, expose: true }

/** The names of the properties that an error has, by the path at which it is thrown. */
const errors = {
  status: ['status'],
  'status-code': ['statusCode'],
  both: ['status', 'statusCode'],
  all: ['status', 'statusCode', 'expose'],
}

function fail(names) {
  const given = Object.entries(properties).filter(([name]) => names.includes(name))
  throw Object.assign(new Error('No such thing'), Object.fromEntries(given))
}

class Things {}
for (const [path, names] of Object.entries(errors)) {
  Things.prototype[path] = () => fail(names)
  Get(path)(Things.prototype, path, Object.getOwnPropertyDescriptor(Things.prototype, path))
}
Controller()(Things)
class App {}
Module({ controllers: [Things] })(App)

async function main() {
  const plain = express()
  plain.set('env', 'test')
  plain.get('/status', () => fail(['status']))
  const server = plain.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const nest = await NestFactory.create(App, { logger: false })
  await nest.listen(0, '127.0.0.1')

  const ask = async (server, path) =>
    (await fetch(`http://127.0.0.1:${server.address().port}/${path}`)).status
  const statuses = [await ask(server, 'status')]
  console.log(`Express, status: ${statuses[0]}`)
  for (const [path, names] of Object.entries(errors)) {
    const status = await ask(nest.getHttpServer(), path)
    statuses.push(status)
    console.log(`Nest, ${names.join(' and ')}: ${status}`)
  }
  process.exit(String(statuses) === '404,500,500,500,404' ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
