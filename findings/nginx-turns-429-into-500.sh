#!/usr/bin/env bash
# nginx 1.22.1 (Debian's package; it has to be installed)
#
# Expected: with `auth_request`, which asks a service before it lets a request through, the caller gets the answer of that service if it
#   is no 2xx: its status, and `Retry-After` or `WWW-Authenticate` with it.
# Happens: 401 and 403 are handed on, a 401 with its `WWW-Authenticate`. Each other refusal is an error of nginx: the caller gets 500,
#   without a field of the answer. The body is nginx's own in all cases.
# Seen, by the status of the service, whose answers all have `Retry-After` and `WWW-Authenticate`:
#   204: 200
#   400: 500
#   401: 401 WWW-Authenticate
#   403: 403
#   404: 500
#   429: 500
#   503: 500
# Why it matters for API keys: "ask one service about each key, in front of all servers" is what the module is for. Limits that are
#   reached, a key that is sent twice and a database that is away become 500 then, which clients take for a fault of the server and which
#   many retry at once. Answer 401 or 403 there, with the true status in a field, and map it by `auth_request_set` and `error_page`.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null && wait; rm -rf "$folder"' EXIT
cd "$folder"

cat >requests.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'

const url = `http://127.0.0.1:${process.argv[2]}`
for (let times = 0; times < 100; times++) {
  const answer = await fetch(url, { headers: { 'X-Status': '204' } }).catch(() => undefined)
  if (answer?.ok) break
  await wait(100)
}
const seen = []
for (const status of [204, 400, 401, 403, 404, 429, 503]) {
  const answer = await fetch(url, { headers: { 'X-Status': String(status) } })
  const fields = ['Retry-After', 'WWW-Authenticate'].filter((name) => answer.headers.has(name))
  seen.push([answer.status, ...fields].join(' '))
  console.log(`${status}: ${seen.at(-1)}`)
}
process.exit(seen.join() === '200,500,401 WWW-Authenticate,403,500,500,500' ? 0 : 1)
PROGRAM
cat >server.cjs <<'PROGRAM'
require('node:http')
  .createServer((req, res) => {
    if (req.url !== '/verify') return res.end()
    res.writeHead(Number(req.headers['x-status']), { 'Retry-After': '7', 'WWW-Authenticate': 'Bearer' }).end()
  })
  .listen(Number(process.argv[2]), '127.0.0.1')
PROGRAM
ports=()
for _ in 1 2; do
  ports+=("$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')")
done
node server.cjs "${ports[0]}" &
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
  server {
    listen 127.0.0.1:${ports[1]};
    location = /verify {
      internal;
      proxy_pass http://127.0.0.1:${ports[0]};
    }
    location / {
      auth_request /verify;
      proxy_pass http://127.0.0.1:${ports[0]};
    }
  }
}
SETTINGS
/usr/sbin/nginx -e stderr -c "$folder/nginx.conf" &
servers+=($!)
node requests.mjs "${ports[1]}"
