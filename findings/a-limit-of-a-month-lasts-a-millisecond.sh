#!/usr/bin/env bash
# rate-limiter-flexible 11.4.0 and express-rate-limit 8.7.5 with express 5.3.0, on Node 20
#
# Expected: a limit per month, which is a number of seconds or milliseconds like any other, holds for a month. Or the limiter throws when
#   it is made.
# Happens: in memory both limiters end a window by a timer. A timer holds 2^31 - 1 ms at most (24.8 days), and fires after 1 ms if it is
#   given more. From 25 days on the count begins anew with each request. rate-limiter-flexible says in each answer that the window has 30
#   days to go. express-rate-limit prints an error when it starts, and goes on.
# Seen, of ten requests, 20 ms apart, with a limit of 2:
#   rate-limiter-flexible, 24 days: 2 allowed
#   rate-limiter-flexible, 30 days: 10 allowed
#   express-rate-limit, 24 days: 2 allowed
#   express-rate-limit, 30 days: 10 allowed
# Why it matters for API keys: monthly quotas are what plans are sold by. On Redis or Postgres they hold; in memory, which is what
#   limiters fall back on when Redis is away ("insurance"), and what tests use, they are none. Use a day there, and keep months in a
#   database.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  rate-limiter-flexible@11.4.0 express-rate-limit@8.7.5 express@5.3.0 >/dev/null

cat >limits.cjs <<'PROGRAM'
const { once } = require('node:events')
const { setTimeout: wait } = require('node:timers/promises')
const express = require('express')
const { rateLimit } = require('express-rate-limit')
const { RateLimiterMemory } = require('rate-limiter-flexible')

// Each timer that does not fit is a warning, which is not what this is about.
process.removeAllListeners('warning')
console.error = () => {}

const limiters = {
  'rate-limiter-flexible': async (days) => {
    const limiter = new RateLimiterMemory({ points: 2, duration: days * 24 * 60 * 60 })
    return () =>
      limiter.consume('a-key').then(
        () => true,
        () => false,
      )
  },
  'express-rate-limit': async (days) => {
    const app = express()
    app.use(rateLimit({ windowMs: days * 24 * 60 * 60 * 1000, limit: 2 }))
    app.use((req, res) => res.end())
    const server = app.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return async () => (await fetch(`http://127.0.0.1:${server.address().port}`)).ok
  },
}

async function main() {
  const seen = []
  for (const [name, limit] of Object.entries(limiters)) {
    for (const days of [24, 30]) {
      const isAllowed = await limit(days)
      let allowed = 0
      for (let times = 0; times < 10; times++) {
        if (await isAllowed()) allowed++
        await wait(20)
      }
      seen.push(allowed)
      console.log(`${name}, ${days} days: ${allowed} allowed`)
    }
  }
  process.exit(seen.join() === '2,10,2,10' ? 0 : 1)
}

void main()
PROGRAM
node limits.cjs
