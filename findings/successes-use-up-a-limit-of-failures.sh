#!/usr/bin/env bash
# express-rate-limit 8.7.5, beside rate-limiter-flexible 11.4.0, with express 5.3.0
#
# Expected: with `skipSuccessfulRequests`, which limits failures alone, a client that never fails is never refused.
# Happens: each request is counted when it comes, and taken from the count when its answer has ended and was good. All requests that are
#   under way count as failures until then. A client that sends more at once than may fail is refused. rate-limiter-flexible leaves the
#   counting to the app, which can count once an answer has failed.
# Seen, of 20 good requests, of which the limit allows 5 to fail:
#   express-rate-limit, one after the other: 20 answers 200, 0 answers 429
#   express-rate-limit, at once: 5 answers 200, 15 answers 429
#   rate-limiter-flexible, at once: 20 answers 200, 0 answers 429
# Why it matters for API keys: a limit of failures by address is there to slow down who guesses keys, and is set low. Programs with good
#   keys send dozens of requests at once, most of all from one address behind NAT, and get 429 although not one has failed. The slower
#   the answers are, the more are refused, so that it comes with load and is gone in tests. Count failures where they are found.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express-rate-limit@8.7.5 rate-limiter-flexible@11.4.0 express@5.3.0 >/dev/null

cat >failures.cjs <<'PROGRAM'
const { once } = require('node:events')
const { setTimeout: wait } = require('node:timers/promises')
const express = require('express')
const { rateLimit } = require('express-rate-limit')
const { RateLimiterMemory } = require('rate-limiter-flexible')

const createLimiters = {
  'express-rate-limit': () => rateLimit({ limit: 5, windowMs: 60_000, skipSuccessfulRequests: true }),
  'rate-limiter-flexible': () => {
    const limiter = new RateLimiterMemory({ points: 5, duration: 60 })
    return async (req, res, next) => {
      const failures = await limiter.get(req.ip)
      if (failures?.remainingPoints === 0) return res.sendStatus(429)
      res.once('finish', () => res.statusCode === 401 && limiter.penalty(req.ip))
      next()
    }
  },
}

async function send(name, isAtOnce) {
  const app = express()
  app.use(createLimiters[name](), async (req, res) => {
    await wait(200)
    res.sendStatus(200)
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const request = async () => (await fetch(`http://127.0.0.1:${server.address().port}`)).status
  const statuses = []
  if (isAtOnce) statuses.push(...(await Promise.all(Array.from({ length: 20 }, request))))
  else while (statuses.length < 20) statuses.push(await request())
  const count = (status) => statuses.filter((other) => other === status).length
  return `${count(200)} answers 200, ${count(429)} answers 429`
}

async function main() {
  const seen = []
  for (const [name, isAtOnce] of [
    ['express-rate-limit', false],
    ['express-rate-limit', true],
    ['rate-limiter-flexible', true],
  ]) {
    seen.push(await send(name, isAtOnce))
    console.log(`${name}, ${isAtOnce ? 'at once' : 'one after the other'}: ${seen.at(-1)}`)
  }
  const expected = ['20 answers 200, 0 answers 429', '5 answers 200, 15 answers 429', '20 answers 200, 0 answers 429']
  process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
}

void main()
PROGRAM
node failures.cjs
