const express = require('express')
const { createMocks } = require('node-mocks-http')

const { setUp } = require('./set-up.cjs')

const options = { header: 'X-API-Key', currentUser: () => ({ id: 'alice' }) }
const newKey = { userId: 'alice', name: 'Test', permissions: ['READ_GRAPH'] }

let apiKeys, sequelize

beforeAll(async () => {
  ;({ apiKeys, sequelize } = setUp(options))
  await apiKeys.migrate()
})

afterAll(async () => {
  await apiKeys.close()
  await sequelize.close()
})

function bodyOf(res) {
  // The mock calls it so.
  // oxlint-disable-next-line no-underscore-dangle
  return JSON.parse(res._getData())
}

/** Calls a guard with a request of node-mocks-http, and returns the mocks once the guard has decided. */
async function call(guard, headers) {
  const { req, res } = createMocks({ headers }, { eventEmitter: require('node:events') })
  const isThrough = await new Promise((resolve) => {
    res.once('end', () => resolve(false))
    guard(req, res, () => resolve(true))
  })
  return { req, res, isThrough }
}

describe('a guard, given the request and the response of node-mocks-http', () => {
  test.each(['authorization', 'x-api-key'])('lets a good key in %s through', async (header) => {
    const { plainTextKey } = await apiKeys.create(newKey)
    const value = header === 'authorization' ? `Bearer ${plainTextKey}` : plainTextKey

    const { req, isThrough } = await call(apiKeys.requirePermission('READ_GRAPH'), {
      [header]: value,
    })

    expect(isThrough).toBe(true)
    expect(apiKeys.getApiKey(req).userId).toBe('alice')
    expect(JSON.stringify(req.headers)).not.toContain(plainTextKey)
  })

  test('refuses a request without one, in text', async () => {
    const { res, isThrough } = await call(apiKeys.authenticate(), {})

    expect(isThrough).toBe(false)
    expect(res.statusCode).toBe(401)
    expect(res.getHeader('WWW-Authenticate')).toBe('Bearer realm="api"')
    expect(bodyOf(res)).toMatchObject({ code: 'missing_credential' })
  })
})

test('the strategy judges a plain object', async () => {
  const { plainTextKey } = await apiKeys.create(newKey)
  const req = { headers: { authorization: `Bearer ${plainTextKey}` } }

  const user = await new Promise((success, error) => {
    const actions = { success, error, fail: (challenge) => error(new Error(challenge)) }
    Object.assign(Object.create(apiKeys.strategy), actions).authenticate(req, { session: false })
  })

  expect(user).toEqual({ id: 'alice' })
})

test('routers answer in an app of Express that is given mocks', async () => {
  const app = express()
  app.use('/api-keys', apiKeys.router())
  const { req, res } = createMocks({ url: '/api-keys' }, { eventEmitter: require('node:events') })

  await new Promise((resolve) => {
    res.once('end', resolve)
    app(req, res)
  })

  expect(res.statusCode).toBe(200)
  expect(bodyOf(res).apiKeys.length).toBeGreaterThan(0)
})
