#!/usr/bin/env bash
# express 4.22.1, with qs 6.14 as it brings it, beside express 5.3.0 with its own parser and with `query parser` "extended"
#
# Expected: a parameter that stands in a query several times is a list in `req.query`, up to the 1,000 parameters that the parser takes.
#   The limit of 20 that qs documents is about numbers in brackets, `id[100]=a`.
# Happens: since qs 6.14.1 the limit is for repeated names as well. Twenty values are a list, and twenty-one are an object with the keys
#   "0" to "20". The parser of forms (`express.urlencoded`) sets a limit of its own, so that the same text is a list in a body.
# Seen, of `id` given 20 and 21 times:
#   express 4, query: list, object
#   express 5, query: list, list
#   express 5, query, extended: list, object
#   express 4, form: list, list
# Why it matters for API keys: keys are listed, revoked or filtered by ids and permissions in a query. Up to twenty work, in each test.
#   With one more, `Array.isArray` says no, and code that then wraps the value finds nothing; `[].concat(ids)` is a list of one object.
#   Read such lists by `URLSearchParams`, or take objects, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts express@4.22.1 express-5@npm:express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')

async function listen(express, parser) {
  const app = express()
  if (parser) app.set('query parser', parser)
  app.use(express.urlencoded({ extended: true }))
  app.all('/', (req, res) => res.json([req.query.id, req.body?.id].map(kindOf)))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${server.address().port}`
}

const kindOf = (value) => (Array.isArray(value) ? 'list' : typeof value)

async function main() {
  const four = await listen(require('express'))
  const ask = async (url, init) => (await fetch(url, init)).json()
  const query = (url) => async (text) => (await ask(`${url}/?${text}`))[0]
  const readers = {
    'express 4, query': query(four),
    'express 5, query': query(await listen(require('express-5'))),
    'express 5, query, extended': query(await listen(require('express-5'), 'extended')),
    'express 4, form': async (text) =>
      (await ask(four, { method: 'POST', body: new URLSearchParams(text) }))[1],
  }
  const seen = []
  for (const [name, read] of Object.entries(readers)) {
    const kinds = []
    for (const times of [20, 21]) kinds.push(await read(Array(times).fill('id=a').join('&')))
    seen.push(kinds.join(', '))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const isSame = seen.join('; ') === 'list, object; list, list; list, object; list, list'
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
