#!/usr/bin/env bash
# nginx 1.22.1, beside HAProxy 2.6.12 and Varnish 7.1.1 (Debian's packages; they have to be installed)
#
# Expected: a cache in front of an API keeps no answer to a request with `Authorization` for other callers, unless the answer allows it by
#   `public`, `s-maxage` or `must-revalidate` (RFC 9111, 3.5). `max-age` is no such word.
# Happens: `proxy_cache` of nginx does not know the rule. It stores whatever has `max-age` or `Expires`, under the URL, and gives it to
#   the next caller, whatever that caller's key is. Words such as `private` and `no-store`, `Vary`, and a cookie in the answer keep it
#   from that. HAProxy and Varnish keep to the rule.
# Seen, of answers to alice and then to bob:
#   nginx, max-age=60: alice, alice
#   nginx, max-age=60 and Vary: alice, bob
#   nginx, private, max-age=60: alice, bob
#   haproxy, max-age=60: alice, bob
#   varnish, max-age=60: alice, bob
# Why it matters for API keys: an app may rely on the standard and say `max-age=60` to save its callers requests, which is right for
#   browsers and for other proxies. With nginx in between and two lines for its cache, each caller reads what the first one asked. It
#   looks like a fault of the guard, which was not asked. Answers behind a guard need `private` or `no-store`.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null && wait; rm -rf "$folder"' EXIT
cd "$folder"

cat >requests.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'

const [nginx, haproxy, varnish] = process.argv.slice(2)
const requests = {
  'nginx, max-age=60': [nginx, '/plain'],
  'nginx, max-age=60 and Vary': [nginx, '/vary'],
  'nginx, private, max-age=60': [nginx, '/private'],
  'haproxy, max-age=60': [haproxy, '/plain'],
  'varnish, max-age=60': [varnish, '/plain'],
}
for (const port of [nginx, haproxy, varnish]) {
  for (let times = 0; times < 100; times++) {
    const answer = await fetch(`http://127.0.0.1:${port}/ready`).catch(() => undefined)
    if (answer?.ok) break
    await wait(100)
  }
}
const seen = []
for (const [name, [port, path]] of Object.entries(requests)) {
  const answers = []
  for (const caller of ['alice', 'bob']) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { Authorization: caller } })
    answers.push(await answer.text())
  }
  seen.push(answers.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
process.exit(seen.join('; ') === `alice, alice${'; alice, bob'.repeat(4)}` ? 0 : 1)
PROGRAM
cat >server.cjs <<'PROGRAM'
const fields = {
  '/ready': { 'Cache-Control': 'no-store' },
  '/plain': { 'Cache-Control': 'max-age=60' },
  '/vary': { 'Cache-Control': 'max-age=60', Vary: 'Authorization' },
  '/private': { 'Cache-Control': 'private, max-age=60' },
}
require('node:http')
  .createServer((req, res) => res.writeHead(200, fields[req.url]).end(req.headers.authorization))
  .listen(Number(process.argv[2]), '127.0.0.1')
PROGRAM
ports=()
for _ in 1 2 3 4; do
  ports+=("$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')")
done
node server.cjs "${ports[0]}" &
servers+=($!)

chmod 755 "$folder"
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
  proxy_cache_path $folder/cache keys_zone=answers:1m;
  server {
    listen 127.0.0.1:${ports[1]};
    location / {
      proxy_cache answers;
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
cache answers
  total-max-size 4
  max-age 60
listen api
  bind 127.0.0.1:${ports[2]}
  http-request cache-use answers
  http-response cache-store answers
  server api 127.0.0.1:${ports[0]}
SETTINGS
/usr/sbin/haproxy -f haproxy.cfg &
servers+=($!)

/usr/sbin/varnishd -F -a "127.0.0.1:${ports[3]}" -b "127.0.0.1:${ports[0]}" -n "$folder/varnish" 2>/dev/null &
servers+=($!)
node requests.mjs "${ports[1]}" "${ports[2]}" "${ports[3]}"
