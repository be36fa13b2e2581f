const Sentry = require('@sentry/node')

/* An app that reports to Sentry, set up as the README says. It prints everything that it would send. */

Sentry.init({
  dsn: 'https://public@sentry.example/1',
  tracesSampleRate: 1,
  includeLocalVariables: true,
  integrations: [Sentry.requestDataIntegration({ include: { headers: false } })],
  transport: (options) =>
    Sentry.createTransport(options, async ({ body }) => {
      process.stdout.write(`${body}\n`)
      return { statusCode: 200 }
    }),
})

const express = require('express')

const { beforeEnd, listen, setUp } = require('./set-up.cjs')

const { apiKeys } = setUp({ header: 'X-API-Key', currentUser: () => ({ id: 'alice' }) })
const app = express()
app.use('/api-keys', apiKeys.router())
app.get('/open', (req, res) => res.json({}))
app.get('/guarded', apiKeys.authenticate(), (req, res) => res.json({}))
app.get('/failing', apiKeys.authenticate(), async (req) => {
  const { userId } = apiKeys.getApiKey(req)
  throw new Error(`The route has failed for ${userId}`)
})
Sentry.setupExpressErrorHandler(app)
listen(app)

beforeEnd(async () => {
  await apiKeys.close()
  await Sentry.flush()
})
