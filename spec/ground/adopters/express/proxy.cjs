const { createServer } = require('node:http')

const express = require('express')
const { createProxyMiddleware } = require('http-proxy-middleware')

const { listen, setUp } = require('./set-up.cjs')

/* A proxy in front of a server that answers with the headers that it received. */

const { apiKeys } = setUp()
const upstream = createServer((req, res) => {
  const { authorization, 'x-user': user } = req.headers
  res.end(JSON.stringify({ authorization, user, lines: req.rawHeaders.join(' ') }))
}).listen(0, '127.0.0.1', () => {
  const proxy = createProxyMiddleware({
    target: `http://127.0.0.1:${upstream.address().port}`,
    on: {
      proxyReq(proxied, req) {
        if (req.apiKey) proxied.setHeader('x-user', apiKeys.getApiKey(req).userId)
      },
    },
  })
  const app = express()
  app.use('/guarded', apiKeys.requirePermission('READ_GRAPH'), proxy)
  app.use('/open', proxy)
  listen(app)
})
