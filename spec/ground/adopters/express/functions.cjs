const codegenie = require('@codegenie/serverless-express')
const express = require('express')
const serverless = require('serverless-http')

const { setUp } = require('./set-up.cjs')

/*
 * An app as a function, which is called with an event for each request and returns an object. For each adapter and each
 * format of events, it prints the answers to a key, to a key that is bound to an address, to a request without a key,
 * and to a body.
 */

const [key, boundKey] = process.argv.slice(2)
const { apiKeys, sequelize } = setUp({ currentUser: () => ({ id: 'alice' }) })

const app = express()
app.set('trust proxy', 1)
app.use((req, res, next) => {
  if (!req.ip) delete req.ip
  next()
})
app.use('/api-keys', apiKeys.router())
app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
  res.json({ ranFor: apiKeys.getApiKey(req).userId, authorization: req.get('authorization') })
})

const adapters = {
  'serverless-http': serverless(app),
  '@codegenie/serverless-express': codegenie({ app }),
}

const formats = {
  'API Gateway v1': ({ method, path, headers, body }) => ({
    httpMethod: method,
    path,
    resource: '/{proxy+}',
    headers,
    multiValueHeaders: inLists(headers),
    queryStringParameters: null,
    multiValueQueryStringParameters: null,
    requestContext: { identity: { sourceIp: '203.0.113.7' }, path, stage: 'prod' },
    body,
    isBase64Encoded: false,
  }),
  'API Gateway v2': ({ method, path, headers, body }) => ({
    version: '2.0',
    routeKey: '$default',
    rawPath: path,
    rawQueryString: '',
    headers,
    requestContext: { http: { method, path, sourceIp: '203.0.113.7' }, stage: '$default' },
    body,
    isBase64Encoded: false,
  }),
  ALB: ({ method, path, headers, body }) => ({
    requestContext: { elb: { targetGroupArn: 'arn:aws:elasticloadbalancing:targets' } },
    httpMethod: method,
    path,
    queryStringParameters: {},
    headers: { ...headers, 'x-forwarded-for': '203.0.113.7' },
    body: body ?? '',
    isBase64Encoded: false,
  }),
}

function inLists(headers) {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]]))
}

async function callAll() {
  for (const [adapter, handler] of Object.entries(adapters)) {
    for (const [format, eventOf] of Object.entries(formats)) {
      const call = async ({ headers, body = null, ...request }) => {
        const event = eventOf({ ...request, headers: { host: 'example.com', ...headers }, body })
        const answer = await handler(event, {})
        const fields = { ...answer.headers, ...answer.multiValueHeaders }
        const challenge = Object.entries(fields).find(([name]) => /^www-auth/i.test(name))?.[1]
        return {
          status: answer.statusCode,
          body: JSON.parse(answer.body),
          challenge: String(challenge),
        }
      }

      const graphs = { method: 'GET', path: '/graphs' }
      const accepted = await call({ ...graphs, headers: { authorization: `Bearer ${key}` } })
      const bound = await call({ ...graphs, headers: { authorization: `Bearer ${boundKey}` } })
      const refused = await call({ ...graphs, headers: {} })
      const body = JSON.stringify({ name: format, permissions: ['READ_GRAPH'] })
      const created = await call({
        method: 'POST',
        path: '/api-keys',
        headers: { 'content-type': 'application/json', 'content-length': String(body.length) },
        body,
      })
      console.log(
        JSON.stringify({
          adapter,
          format,
          accepted: [accepted.status, accepted.body.ranFor],
          masked: !accepted.body.authorization.includes(key),
          bound: bound.status,
          refused: [refused.status, refused.body.code, refused.challenge],
          created: [created.status, created.body.apiKey?.name],
        }),
      )
    }
  }
  await apiKeys.close()
  await sequelize.close()
}

void callAll()
