const { deepEqual, equal, ok, rejects } = require('node:assert/strict')

const express = require('express')

const { createApiKeys, migrations } = require('express-api-keys')

/**
 * Does everything with a key that can be done, over HTTP and by function, and drops the tables. Returns the server's
 * version.
 */
exports.live = async function live(sequelize) {
  const options = { sequelize, keyPrefix: 'acme', permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] }
  const apiKeys = createApiKeys({
    ...options,
    limits: { burst: { limit: 1000, windowSeconds: 3600 } },
    secrets: ['a secret of thirty-two bytes or more'],
    currentUser: () => ({ id: 'alice' }),
  })
  await apiKeys.migrate()

  const app = express()
  app.use('/api-keys', apiKeys.router())
  app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
    res.json({ ranFor: apiKeys.getApiKey(req).userId })
  })
  app.get('/events', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
    apiKeys.getApiKey(req).signal.addEventListener('abort', () => res.end('ended'))
    res.write('begun, ')
  })
  const server = app.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const origin = `http://127.0.0.1:${server.address().port}`

  async function call(method, path, { key, json } = {}) {
    const init = { method, headers: { connection: 'close' } }
    if (key) init.headers.authorization = `Bearer ${key}`
    if (json) {
      init.headers['content-type'] = 'application/json'
      init.body = JSON.stringify(json)
    }
    const answer = await fetch(origin + path, init)
    return { status: answer.status, body: await answer.json() }
  }
  const use = (key) => call('GET', '/graphs', { key })

  const json = { name: 'Build server', permissions: ['READ_GRAPH'], metadata: { team: 'core' } }
  const created = await call('POST', '/api-keys', { json })
  equal(created.status, 201)
  const { apiKey, plainTextKey } = created.body
  deepEqual(await use(plainTextKey), { status: 200, body: { ranFor: 'alice' } })

  await apiKeys.suspend(apiKey.id, { reason: 'a trial' })
  equal((await use(plainTextKey)).status, 401)
  await apiKeys.reactivate(apiKey.id)
  equal((await use(plainTextKey)).status, 200)

  await apiKeys.setPermissions(apiKey.id, ['EXECUTE_GRAPH'])
  const forbidden = await use(plainTextKey)
  deepEqual([forbidden.status, forbidden.body.missing], [403, ['READ_GRAPH']])
  await apiKeys.setPermissions(apiKey.id, ['READ_GRAPH', 'EXECUTE_GRAPH'])

  const changed = await call('PATCH', `/api-keys/${apiKey.id}`, { json: { name: 'Nightly build' } })
  deepEqual([changed.status, changed.body.name], [200, 'Nightly build'])
  const rotated = await call('POST', `/api-keys/${apiKey.id}/rotate`, { json: {} })
  equal((await use(plainTextKey)).status, 200)
  equal((await use(rotated.body.plainTextKey)).status, 200)
  await apiKeys.endRotation(apiKey.id)
  equal((await use(plainTextKey)).status, 401)

  await apiKeys.flush()
  const { totals } = await apiKeys.usage(apiKey.id)
  deepEqual([totals.accepted, totals.denied], [4, 1])
  const { apiKeys: found } = await apiKeys.list({ userId: 'alice', text: 'nightly' })
  deepEqual(
    found.map(({ id, metadata }) => ({ id, metadata })),
    [{ id: apiKey.id, metadata: { team: 'core' } }],
  )
  ok(found[0].lastUsedAt > found[0].createdAt)

  const headers = { authorization: `Bearer ${rotated.body.plainTextKey}`, connection: 'close' }
  const events = await fetch(`${origin}/events`, { headers })
  equal((await call('DELETE', `/api-keys/${apiKey.id}`, { json: {} })).status, 200)
  equal(await events.text(), 'begun, ended')
  equal((await use(rotated.body.plainTextKey)).status, 401)
  await rejects(apiKeys.reactivate(apiKey.id), { code: 'api_key_revoked' })
  const { events: trail } = await apiKeys.events({ apiKeyId: apiKey.id })
  ok(trail.some(({ action }) => action === 'revoked'))
  deepEqual((await apiKeys.verifyAuditTrail()).faults, [])
  deepEqual(await apiKeys.pruneRevoked({ olderThanDays: 1 }), { keys: 0 })

  await new Promise((resolve) => server.close(resolve))
  await apiKeys.close()
  await migrations.initial({}).down(sequelize.getQueryInterface())
  const [left] = await sequelize.query(
    `SELECT relname FROM pg_class WHERE relname LIKE 'api\\_key%'
      UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'api\\_key%'`,
  )
  deepEqual(left, [])
  const { version } = await sequelize.query(`SELECT current_setting('server_version') AS version`, {
    plain: true,
  })
  await sequelize.close()

  return `PostgreSQL ${parseInt(version, 10)}`
}
