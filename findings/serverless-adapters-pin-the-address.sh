#!/usr/bin/env bash
# serverless-http 4.0.0 and @codegenie/serverless-express 4.17.1, with express 5.3.0
#
# Expected: `req.ip` is what Express makes of the app's setting `trust proxy`. Behind an Application Load Balancer, which
#   sends a function no address but the one in `X-Forwarded-For`, `trust proxy` 1 gives the client's.
# Happens: both adapters set `ip` as a property of the request, which hides Express's own. It is what the event says apart
#   from the headers: nothing, in an event of an ALB. `trust proxy` has no effect, and nothing says so.
# Seen, of an event of an ALB with X-Forwarded-For: 203.0.113.7, and `trust proxy` 1:
#   Node: 203.0.113.7
#   serverless-http: nothing
#   @codegenie/serverless-express: nothing
# Why it matters for API keys: keys that are bound to addresses are refused to everyone, what counts failed attempts by
#   address takes all clients for one, and records say of no use where it came from. (`delete req.ip` in the app's first
#   middleware gives Express's own back.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error serverless-http@4.0.0 @codegenie/serverless-express@4.17.1 \
  express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')
const serverlessExpress = require('@codegenie/serverless-express')
const express = require('express')
const serverlessHttp = require('serverless-http')

const app = express()
app.set('trust proxy', 1)
app.get('/', (req, res) => res.send(req.ip || 'nothing'))

async function main() {
  const headers = { host: 'example.com', 'x-forwarded-for': '203.0.113.7' }
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const answer = await fetch(`http://127.0.0.1:${server.address().port}`, { headers })
  const seen = { Node: await answer.text() }

  const event = {
    requestContext: { elb: { targetGroupArn: 'arn:aws:elasticloadbalancing:targets' } },
    httpMethod: 'GET',
    path: '/',
    queryStringParameters: {},
    headers,
    body: '',
    isBase64Encoded: false,
  }
  seen['serverless-http'] = (await serverlessHttp(app)(event, {})).body
  seen['@codegenie/serverless-express'] = (await serverlessExpress({ app })(event, {})).body

  for (const [name, address] of Object.entries(seen)) console.log(`${name}: ${address}`)
  process.exit(String(Object.values(seen)) === '203.0.113.7,nothing,nothing' ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
