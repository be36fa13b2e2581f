#!/usr/bin/env bash
# nginx 1.22.1, Apache 2.4 and HAProxy 2.6.12 (Debian's packages; they have to be installed), beside compression 1.8.2 with express 5.3.0
#
# Expected: an `ETag` that a client got is good for `If-Match` and for `If-None-Match` as it is, also if a proxy in between has compressed
#   the answer.
# Happens: nginx and HAProxy make a strong tag weak when they compress, because the bytes are others. `If-Match` compares strongly, so
#   that a weak tag never fits (RFC 9110, 13.1.1). Apache writes `-gzip` into the tag and does not take it out again, so that neither
#   condition fits. compression leaves the tag alone.
# Seen, of the tag "v1", as it arrives, and as PATCH with If-Match and GET with If-None-Match then end:
#   nginx: W/"v1", 412, 304
#   haproxy: W/"v1", 412, 304
#   apache: "v1-gzip", 412, 200
#   compression: "v1", 200, 304
# Why it matters for API keys: permissions of a key are what two people should not change over each other, which is what `If-Match` is
#   for. In production, behind a proxy that compresses JSON, each change is a 412, and the client reads the key anew and fails again.
#   Answers that are too short to be compressed work. Put a version into the body, or let the server take the weak and the changed form
#   for the tag.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null && wait; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  compression@1.8.2 express@5.3.0 >/dev/null

cat >requests.mjs <<'PROGRAM'
import { get } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'

const [nginx, haproxy, apache, own] = process.argv.slice(2)
const seen = []
for (const [name, port] of Object.entries({ nginx, haproxy, apache, compression: own })) {
  const url = `http://127.0.0.1:${port}`
  for (let times = 0; times < 100; times++) {
    const answer = await fetch(url).catch(() => undefined)
    if (answer?.ok) break
    await wait(100)
  }
  // fetch would take the compression away, and with some versions the field that names it.
  const send = (fields) =>
    new Promise((resolve, reject) => {
      const headers = { 'Accept-Encoding': 'gzip', ...fields }
      get(url, { headers }, (answer) => resolve(answer.resume())).on('error', reject)
    })
  const { headers } = await send({})
  if (headers['content-encoding'] !== 'gzip') throw new Error(`${name} has not compressed the answer`)
  const changed = await fetch(url, { method: 'PATCH', headers: { 'If-Match': headers.etag } })
  const again = await send({ 'If-None-Match': headers.etag })
  seen.push(`${headers.etag}, ${changed.status}, ${again.statusCode}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = ['W/"v1", 412, 304', 'W/"v1", 412, 304', '"v1-gzip", 412, 200', '"v1", 200, 304']
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
cat >server.cjs <<'PROGRAM'
const compression = require('compression')
const express = require('express')

// If-Match compares strongly, and If-None-Match weakly (RFC 9110, 13.1.1 and 13.1.2).
function answer(req, res) {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = req.headers
  res.set('ETag', '"v1"')
  if (ifMatch !== undefined && ifMatch !== '"v1"') return res.status(412).end()
  if (ifNoneMatch?.replace('W/', '') === '"v1"') return res.status(304).end()
  res.type('json').end(JSON.stringify({ permissions: 'READ '.repeat(1000) }))
}
const [plain, compressed] = process.argv.slice(2).map(Number)
express().use(answer).listen(plain, '127.0.0.1')
express().use(compression(), answer).listen(compressed, '127.0.0.1')
PROGRAM
ports=()
for _ in 1 2 3 4 5; do
  ports+=("$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')")
done
node server.cjs "${ports[0]}" "${ports[4]}" &
servers+=($!)
cat >nginx.conf <<SETTINGS
daemon off;
master_process off;
pid $folder/nginx.pid;
error_log stderr crit;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  gzip on;
  gzip_types application/json;
  server {
    listen 127.0.0.1:${ports[1]};
    location / {
      proxy_pass http://127.0.0.1:${ports[0]};
    }
  }
}
SETTINGS
/usr/sbin/nginx -e stderr -c "$folder/nginx.conf" &
servers+=($!)
cat >haproxy.cfg <<SETTINGS
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
listen api
  bind 127.0.0.1:${ports[2]}
  compression algo gzip
  compression type application/json
  server api 127.0.0.1:${ports[0]}
SETTINGS
/usr/sbin/haproxy -f haproxy.cfg &
servers+=($!)
modules=/usr/lib/apache2/modules
cat >apache.conf <<SETTINGS
ServerRoot $folder
PidFile $folder/apache.pid
ErrorLog /dev/null
Listen 127.0.0.1:${ports[3]}
ServerName localhost
User www-data
Group www-data
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule proxy_module $modules/mod_proxy.so
LoadModule proxy_http_module $modules/mod_proxy_http.so
LoadModule filter_module $modules/mod_filter.so
LoadModule deflate_module $modules/mod_deflate.so
AddOutputFilterByType DEFLATE application/json
ProxyPass / http://127.0.0.1:${ports[0]}/
SETTINGS
/usr/sbin/apache2 -f "$folder/apache.conf" -DFOREGROUND &
servers+=($!)
node requests.mjs "${ports[@]:1}"
