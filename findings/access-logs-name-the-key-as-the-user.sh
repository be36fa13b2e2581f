#!/usr/bin/env bash
# nginx 1.22.1 (Debian's package; it has to be installed), morgan 1.12.1 and pino-http 11.0.0, beside Apache 2.4 (likewise), with
# express 5.3.0
#
# Expected: a log of requests has no credentials, unless its format names a field that has them. `combined`, the format that nginx has by
#   default and morgan recommends, names none.
# Happens: the third column of `combined` is the user. nginx and morgan take that from Basic credentials, whether or not anything has
#   asked for them or checked them. Apache writes a user only if Apache has checked the password itself. pino-http logs all fields.
# Seen, of a key sent as `Authorization: Bearer a-key`, and as a user name without a password (`curl -u a-key:`):
#   nginx, combined: Bearer no, user yes
#   apache, combined: Bearer no, user no
#   morgan, combined: Bearer no, user yes
#   morgan, dev: Bearer no, user no
#   pino-http: Bearer yes, user in base64
# Why it matters for API keys: "the key is the user name" is how Stripe and many after it take keys. The test whether keys are in the logs
#   is made with Bearer, and nothing is found. The log of nginx, which is written before any code of the app could mask the key, is shipped
#   to other systems and kept for months. Put a format of one's own, without `$remote_user`, in its place.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null && wait; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  morgan@1.12.1 pino-http@11.0.0 express@5.3.0 >/dev/null

cat >server.cjs <<'PROGRAM'
const { createWriteStream } = require('node:fs')
const express = require('express')
const morgan = require('morgan')
const pinoHttp = require('pino-http')

const logTo = (name) => createWriteStream(`${name}.log`, { flags: 'a' })
express()
  .use('/combined', morgan('combined', { stream: logTo('combined') }))
  .use('/dev', morgan('dev', { stream: logTo('dev') }))
  .use('/pino', pinoHttp({}, logTo('pino')))
  .use((req, res) => res.end())
  .listen(Number(process.argv[2]), '127.0.0.1')
PROGRAM
cat >requests.mjs <<'PROGRAM'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'

const [app, nginx, apache] = process.argv.slice(2).map((port) => `http://127.0.0.1:${port}`)
const logs = {
  'nginx, combined': [nginx, 'nginx.log'],
  'apache, combined': [apache, 'apache.log'],
  'morgan, combined': [`${app}/combined`, 'combined.log'],
  'morgan, dev': [`${app}/dev`, 'dev.log'],
  'pino-http': [`${app}/pino`, 'pino.log'],
}
const encoded = btoa('a-key:')
const linesOf = (file) => (existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').filter(Boolean) : [])

const seen = []
for (const [name, [url, file]] of Object.entries(logs)) {
  for (let times = 0; times < 100; times++) {
    const answer = await fetch(url, { headers: { 'X-Ready': 'no' } }).catch(() => undefined)
    if (answer?.ok) break
    await wait(100)
  }
  const outcomes = []
  for (const [title, field] of Object.entries({ Bearer: 'Bearer a-key', user: `Basic ${encoded}` })) {
    await wait(300)
    const before = linesOf(file).length
    await (await fetch(url, { headers: { Authorization: field } })).text()
    while (linesOf(file).length === before) await wait(100)
    const line = linesOf(file).at(-1)
    outcomes.push(`${title} ${line.includes('a-key') ? 'yes' : line.includes(encoded) ? 'in base64' : 'no'}`)
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  'Bearer no, user yes',
  'Bearer no, user no',
  'Bearer no, user yes',
  'Bearer no, user no',
  'Bearer yes, user in base64',
]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
ports=()
for _ in 1 2 3; do
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
  access_log $folder/nginx.log;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
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
modules=/usr/lib/apache2/modules
cat >apache.conf <<SETTINGS
ServerRoot $folder
PidFile $folder/apache.pid
ErrorLog /dev/null
Listen 127.0.0.1:${ports[2]}
ServerName localhost
User www-data
Group www-data
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule proxy_module $modules/mod_proxy.so
LoadModule proxy_http_module $modules/mod_proxy_http.so
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined
CustomLog $folder/apache.log combined
ProxyPass / http://127.0.0.1:${ports[0]}/
SETTINGS
/usr/sbin/apache2 -f "$folder/apache.conf" -DFOREGROUND &
servers+=($!)
node requests.mjs "${ports[@]}"
