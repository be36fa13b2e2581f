#!/usr/bin/env bash
# oauth4webapi 3.8.8, openid-client 6.9.0, simple-oauth2 5.1.0, axios 1.21.1 and got 14.6.6, with the basic-auth 2.0.1 of Express's team
#
# Expected: Basic credentials are an id and a secret as they are, with a colon between them. If they are encoded, then letters, digits,
#   dashes and underscores stay, because no encoding touches them.
# Happens: for OAuth, id and secret are encoded like the values of a form first (RFC 6749, 2.3.1). oauth4webapi and openid-client encode
#   the dash and the underscore, too, which is allowed. simple-oauth2 encodes what has to be. HTTP clients with `auth` encode nothing.
#   What reads Basic on the server takes the text as it is.
# Seen, as basic-auth reads the secret ak_live_x:
#   oauth4webapi: ak%5Flive%5Fx
#   openid-client: ak%5Flive%5Fx
#   simple-oauth2: ak_live_x
#   axios: ak_live_x
#   got: ak_live_x
# Why it matters for API keys: keys with prefixes have underscores. An endpoint for tokens or introspection that takes a key as the secret
#   of a client, and was tried with curl, axios and simple-oauth2, refuses it from the other two. To decode is right for those, and
#   harmless for keys of letters, digits, dashes and underscores alone. Do not put a percent sign or a plus into a key.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  oauth4webapi@3.8.8 openid-client@6.9.0 simple-oauth2@5.1.0 axios@1.21.1 got@14.6.6 basic-auth@2.0.1 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import axios from 'axios'
import basicAuth from 'basic-auth'
import got from 'got'
import * as oauth4webapi from 'oauth4webapi'
import * as openidClient from 'openid-client'
import { ClientCredentials } from 'simple-oauth2'

let secret
const server = createServer((req, res) => {
  secret = basicAuth(req)?.pass
  req.resume()
  res.writeHead(200, { 'Content-Type': 'application/json' })
  res.end('{ "active": false, "access_token": "a-token", "token_type": "bearer" }')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`
const id = 'service'
const key = 'ak_live_x'

const clients = {
  oauth4webapi() {
    const issuer = { issuer: url, introspection_endpoint: `${url}/introspect` }
    const insecurely = { [oauth4webapi.allowInsecureRequests]: true }
    const authentication = oauth4webapi.ClientSecretBasic(key)
    return oauth4webapi.introspectionRequest(issuer, { client_id: id }, authentication, 'a-token', insecurely)
  },
  'openid-client'() {
    const issuer = { issuer: url, introspection_endpoint: `${url}/introspect` }
    const configuration = new openidClient.Configuration(issuer, id, {}, openidClient.ClientSecretBasic(key))
    openidClient.allowInsecureRequests(configuration)
    return openidClient.tokenIntrospection(configuration, 'a-token')
  },
  'simple-oauth2': () => new ClientCredentials({ client: { id, secret: key }, auth: { tokenHost: url } }).getToken({}),
  axios: () => axios.post(url, 'token=a-token', { auth: { username: id, password: key } }),
  got: () => got.post(url, { form: { token: 'a-token' }, username: id, password: key }),
}
const seen = []
for (const [name, ask] of Object.entries(clients)) {
  secret = undefined
  await ask()
  seen.push(secret)
  console.log(`${name}: ${secret}`)
}
process.exit(seen.join() === 'ak%5Flive%5Fx,ak%5Flive%5Fx,ak_live_x,ak_live_x,ak_live_x' ? 0 : 1)
PROGRAM
node clients.mjs
