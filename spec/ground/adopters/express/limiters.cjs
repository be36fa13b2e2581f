const apicache = require('apicache')
const express = require('express')
const { rateLimit } = require('express-rate-limit')

const { listen, setUp } = require('./set-up.cjs')

/* Middlewares that separate callers by their Authorization. */

const { apiKeys } = setUp({ limits: { burst: { limit: 100, windowSeconds: 3600 } } })
const guard = apiKeys.requirePermission('READ_GRAPH')
const cache = apicache.newInstance({ appendKey: (req) => req.get('authorization') })
const limiter = rateLimit({
  limit: 1,
  standardHeaders: 'draft-8',
  keyGenerator: (req) => req.get('authorization'),
})

function answer(req, res) {
  res.json({ ranFor: apiKeys.getApiKey(req).userId })
}

const app = express()
app.get('/cached', guard, cache.middleware('1 minute'), answer)
app.get('/limited', guard, limiter, answer)
app.get('/limited-before', limiter, guard, answer)
listen(app)
