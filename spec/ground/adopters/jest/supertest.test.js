const express = require('express')
const request = require('supertest')

const { setUp } = require('./set-up.cjs')

let app, apiKeys, sequelize

beforeAll(async () => {
  ;({ apiKeys, sequelize } = setUp({ currentUser: (req) => ({ id: req.get('x-user') }) }))
  await apiKeys.migrate()

  app = express()
  app.use('/api-keys', apiKeys.router())
  app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
    res.json({ ranFor: req.user.id })
  })
})

afterAll(async () => {
  await apiKeys.close()
  await sequelize.close()
})

const newKey = { name: 'Test', permissions: ['READ_GRAPH'] }

test('a key is made, used and revoked', async () => {
  const made = await request(app).post('/api-keys').set('x-user', 'alice').send(newKey).expect(201)
  const use = () => request(app).get('/graphs').auth(made.body.plainTextKey, { type: 'bearer' })

  const accepted = await use()
  const revoked = await request(app)
    .delete(`/api-keys/${made.body.apiKey.id}`)
    .set('x-user', 'alice')
  const refused = await use()

  expect(accepted.body).toEqual({ ranFor: 'alice' })
  expect([revoked.status, refused.status]).toEqual([200, 401])
})

test('a key that this process does not know yet is looked up under fake timers', async () => {
  const { plainTextKey } = await apiKeys.create({ userId: 'bob', ...newKey })
  jest.useFakeTimers()

  try {
    const verdict = await apiKeys.verify(plainTextKey)
    expect(verdict.valid).toBe(true)
    expect(
      await apiKeys.verify(plainTextKey.replace(/.$/, (last) => (last === 'x' ? 'y' : 'x'))),
    ).toMatchObject({ valid: false })
    await apiKeys.revoke(verdict.apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: false, code: 'revoked' })
  } finally {
    jest.useRealTimers()
  }
})
