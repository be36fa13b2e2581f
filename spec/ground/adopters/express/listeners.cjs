const connect = require('connect')

const { listen, setUp } = require('./set-up.cjs')

/* A guard without Express: below connect, and in a plain listener of Node's. */

const { apiKeys } = setUp({ limits: { burst: { limit: 100, windowSeconds: 3600 } } })
const guard = apiKeys.requirePermission('READ_GRAPH')

function answer(req, res) {
  res.setHeader('Content-Type', 'application/json')
  res.end(JSON.stringify({ ranFor: apiKeys.getApiKey(req).userId }))
}

if (process.argv[2] === 'connect') {
  listen(connect().use(guard).use(answer))
} else {
  listen((req, res) => guard(req, res, () => answer(req, res)))
}
