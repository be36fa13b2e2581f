const express = require('express')
const winston = require('express-winston')
const morgan = require('morgan')
const pinoHttp = require('pino-http')
const {
  transports: { Console },
} = require('winston')

const { listen, setUp } = require('./set-up.cjs')

/* Loggers set up as the README says. They print all that they can of requests and answers. */

const { apiKeys } = setUp({ header: 'X-Acme', currentUser: () => ({ id: 'alice' }) })
const headers = ':req[authorization] :req[x-acme]'
const transport = { transports: [new Console()] }

const app = express()
app.use(apiKeys.maskKeys())
app.use(pinoHttp({ redact: apiKeys.redactionPaths }))
app.use(morgan(`arrived ${headers}`, { immediate: true }))
app.use(morgan(`answered ${headers}`))
app.use(
  winston.logger({
    ...transport,
    requestWhitelist: [...winston.requestWhitelist, 'rawHeaders', 'headersDistinct'],
  }),
)

app.use('/api-keys', apiKeys.router())
app.get('/open', (req, res) => res.json({}))
app.post('/created', async (req, res) => {
  const created = await apiKeys.create({
    userId: 'alice',
    name: 'New',
    permissions: ['READ_GRAPH'],
  })
  req.log.info({ created }, 'created')
  req.log.info(created, 'created')
  res.json(created)
})
app.get('/guarded', apiKeys.authenticate(), (req, res) => res.json({}))
app.get('/failing', apiKeys.authenticate(), () => {
  throw new Error('The route has failed')
})
app.use(winston.errorLogger(transport))
app.use((error, req, res, next) => {
  req.log.error({ err: error, req }, 'failed')
  next(error)
})

listen(app)
