const express = require('express')
const inject = require('light-my-request')

const { setUp } = require('./set-up.cjs')

/* Tests with light-my-request, which Jest cannot load without a transform. Prints the answers to a key. */

const { apiKeys, sequelize } = setUp({ currentUser: () => ({ id: 'alice' }) })
const app = express()
app.use('/api-keys', apiKeys.router())
app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
  res.json({ ranFor: apiKeys.getApiKey(req).userId })
})

async function main() {
  const payload = { name: 'Test', permissions: ['READ_GRAPH'] }
  const created = await inject(app, { method: 'POST', url: '/api-keys', payload })
  const headers = { authorization: `Bearer ${created.json().plainTextKey}` }

  const accepted = await inject(app, { url: '/graphs', headers })
  const refused = await inject(app, { url: '/graphs' })
  for (const { statusCode, payload } of [accepted, refused]) console.log(statusCode, payload)

  await apiKeys.close()
  await sequelize.close()
}

void main()
