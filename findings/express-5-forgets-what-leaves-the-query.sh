#!/usr/bin/env bash
# express 5.3.0, beside express 4.22.1
#
# Expected: a middleware that deletes a parameter of `req.query` takes it from whatever comes after it, as it does in version 4. That
#   `req.query` can no longer be assigned is known; what it holds can be changed.
# Happens: in version 5 `req.query` is parsed anew each time that it is read. A change is made to an object that no code sees again,
#   with no error, whatever it is: a parameter deleted, set, or converted to a number. A property with the same name on the request
#   itself (`Object.defineProperty`) is kept.
# Seen, of GET /?api_key=a-key&page=1 after a middleware that deletes `api_key` and sets `page` to 2:
#   express 4: {"page":2}
#   express 5: {"api_key":"a-key","page":"1"}
#   express 5, with a property of its own: {"page":2}
# Why it matters for API keys: apps whose callers still send keys in the query take them out before handlers and loggers see the query.
#   After the update to version 5 the same lines run, and each error report has the key again. An allowed `page` that was clamped is not
#   clamped either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts express@5.3.0 express-4@npm:express@4.22.1 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')

/** Takes the key out of the query, and sets the page. */
function change(query) {
  delete query.api_key
  query.page = 2
  return query
}

const middlewares = {
  'express 4': ['express-4', (req) => change(req.query)],
  'express 5': ['express', (req) => change(req.query)],
  'express 5, with a property of its own': [
    'express',
    (req) => Object.defineProperty(req, 'query', { value: change(req.query) }),
  ],
}

async function main() {
  const seen = []
  for (const [name, [framework, middleware]] of Object.entries(middlewares)) {
    const app = require(framework)()
    app.use((req, res, next) => {
      middleware(req)
      next()
    })
    app.get('/', (req, res) => res.json(req.query))
    const server = app.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${server.address().port}/?api_key=a-key&page=1`
    seen.push(await (await fetch(url)).text())
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const expected = ['{"page":2}', '{"api_key":"a-key","page":"1"}', '{"page":2}']
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
