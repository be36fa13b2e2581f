#!/usr/bin/env bash
# graphql 16.15.0
#
# Expected: an error with a `status` of 401 or 429, thrown by the function that makes the context, is the answer's status. Express
#   and Fastify, below these servers, take errors with a status so.
# Happens: Apollo and Yoga answer 500, the same as if the code were broken. Apollo hands out the error's message and, unless NODE_ENV is
#   production, its stack; Yoga says "Unexpected error." A `GraphQLError` with `extensions.http.status` has its status in both. mercurius
#   takes the status of any error.
# Seen, of an Error with `status` and of a GraphQLError with `extensions.http`, for 401 and for 429:
#   apollo: Error 500 500, GraphQLError 401 429
#   yoga: Error 500 500, GraphQLError 401 429
#   mercurius: Error 401 429, GraphQLError 500 500
# Why it matters for API keys: the context is where an app asks whose key it is. The errors of a library for Express become alarms, and
#   clients retry what can never succeed. And what is right for two servers is 500 in the third. Put a guard before the server, which
#   answers by HTTP.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @apollo/server@5.5.1 @as-integrations/express5@1.1.2 express@5.3.0 graphql-yoga@5.24.1 mercurius@16.10.1 \
  fastify@5.12.8 graphql@16.15.0 >/dev/null

cat >servers.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { ApolloServer } from '@apollo/server'
import { expressMiddleware } from '@as-integrations/express5'
import express from 'express'
import Fastify from 'fastify'
import { GraphQLError } from 'graphql'
import { createSchema, createYoga } from 'graphql-yoga'
import mercurius from 'mercurius'

const typeDefs = 'type Query { name: String }'
const resolvers = { Query: { name: () => 'a' } }
let thrown
const context = async () => {
  throw thrown
}

async function urlOf(server) {
  await once(server, 'listening')
  return `http://127.0.0.1:${server.address().port}`
}
const servers = {
  async apollo() {
    const logger = { debug() {}, info() {}, warn() {}, error() {} }
    const apollo = new ApolloServer({ typeDefs, resolvers, logger })
    await apollo.start()
    const app = express().use('/graphql', express.json(), expressMiddleware(apollo, { context }))
    return urlOf(app.listen(0, '127.0.0.1'))
  },
  yoga() {
    const yoga = createYoga({ schema: createSchema({ typeDefs, resolvers }), context, logging: false })
    return urlOf(createServer(yoga).listen(0, '127.0.0.1'))
  },
  mercurius() {
    const fastify = Fastify()
    fastify.register(mercurius, { schema: typeDefs, resolvers, context })
    return fastify.listen({ port: 0, host: '127.0.0.1' })
  },
}
const errors = {
  Error: (status) => Object.assign(new Error('refused'), { status, statusCode: status }),
  GraphQLError: (status) => new GraphQLError('refused', { extensions: { http: { status } } }),
}
const seen = []
for (const [name, start] of Object.entries(servers)) {
  const url = `${await start()}/graphql`
  const outcomes = []
  for (const [kind, create] of Object.entries(errors)) {
    const statuses = []
    for (const status of [401, 429]) {
      thrown = create(status)
      const headers = { 'Content-Type': 'application/json' }
      const answer = await fetch(url, { method: 'POST', headers, body: '{ "query": "{ name }" }' })
      await answer.text()
      statuses.push(answer.status)
    }
    outcomes.push(`${kind} ${statuses.join(' ')}`)
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = ['Error 500 500, GraphQLError 401 429', 'Error 500 500, GraphQLError 401 429', 'Error 401 429, GraphQLError 500 500']
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node servers.mjs
