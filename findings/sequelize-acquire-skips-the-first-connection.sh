#!/usr/bin/env bash
# sequelize 6.37.8, with pg 8.23.1 and pg-hstore 2.3.4
#
# Expected: `pool.acquire` limits how long a query waits for a connection, however the server behaves.
# Happens: the first connection of an instance is made outside the pool, to ask the server for its version. Until that ends,
#   every query waits for it, without a limit. With the option `databaseVersion` nothing has to be asked, and the limit holds.
# Seen, of two queries at once to a server that accepts connections and says nothing, with an `acquire` of 1 s:
#   plain: no answer within 5 s, no answer within 5 s
#   with databaseVersion: SequelizeConnectionAcquireTimeoutError, SequelizeConnectionAcquireTimeoutError
# Why it matters for API keys: an app that starts while its database hangs (a failover, a serverless database that wakes)
#   keeps every request waiting that asks for a key, where its author has set a limit and expects a 503. A limit of one's own
#   beside the query, or `dialectOptions.connectionTimeoutMillis`, is needed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error sequelize@6.37.8 pg@8.23.1 pg-hstore@2.3.4 >/dev/null

cat >queries.cjs <<'PROGRAM'
const { once } = require('node:events')
const net = require('node:net')
const { Sequelize } = require('sequelize')

async function outcomes(options) {
  const server = net.createServer(() => {}).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `postgres://user:password@127.0.0.1:${server.address().port}/app`
  const sequelize = new Sequelize(url, { logging: false, pool: { acquire: 1000 }, ...options })

  const fiveSeconds = new Promise((resolve) =>
    setTimeout(resolve, 5000, 'no answer within 5 s').unref(),
  )
  const queries = [1, 2].map(() => sequelize.query('SELECT 1').then(String, ({ name }) => name))
  return Promise.all(queries.map((query) => Promise.race([query, fiveSeconds])))
}

async function main() {
  const plain = (await outcomes({})).join(', ')
  const versioned = (await outcomes({ databaseVersion: '15.0.0' })).join(', ')
  console.log(`plain: ${plain}`)
  console.log(`with databaseVersion: ${versioned}`)

  const timeout = 'SequelizeConnectionAcquireTimeoutError'
  const isAsSeen =
    plain === 'no answer within 5 s, no answer within 5 s' && versioned === `${timeout}, ${timeout}`
  process.exit(isAsSeen ? 0 : 1)
}

void main()
PROGRAM
node queries.cjs
