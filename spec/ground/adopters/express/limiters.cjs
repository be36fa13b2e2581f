const express = require('express')
const { rateLimit } = require('express-rate-limit')

const { listen, setUp } = require('./set-up.cjs')

/* What tells callers apart by their Authorization, behind a guard. */

const { apiKeys } = setUp({ limits: { burst: { limit: 100, windowSeconds: 3600 } } })
const app = express()
app.use(apiKeys.requirePermission('READ_GRAPH'))

const limiter = rateLimit({
  limit: 1,
  standardHeaders: 'draft-8',
  keyGenerator: (req) => req.get('authorization'),
})
app.get('/limited', limiter, (req, res) => {
  res.json({ ranFor: apiKeys.getApiKey(req).userId })
})

listen(app)
