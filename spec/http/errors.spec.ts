import { randomUUID } from 'node:crypto'

import express from 'express'

import { ApiKeysError, InvalidApiKeyError } from '../../lib'
import { databaseAway } from '../support/database'
import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld()

describe('an error of the library’s functions', () => {
  it('may be passed to Express, which then answers with its status and headers', async () => {
    const revoked = await createKey({ status: 'REVOKED' })
    const away = createProcess({ sequelize: databaseAway.connect() })
    const calls = {
      '/missing': () => apiKeys.get(randomUUID()),
      '/revoked': () => apiKeys.suspend(revoked.id),
      '/broken': () => apiKeys.create({ userId: 'alice', name: '', permissions: [] }),
      '/away': () => away.apiKeys.list(),
      '/away-too': () => away.apiKeys.verify(forgeKey()),
    }
    const app = express()
    for (const [path, call] of Object.entries(calls)) {
      app.get(path, (_req, res, next) => {
        call().then((found) => res.json(found), next)
      })
    }

    const answers = await Promise.all(Object.keys(calls).map((path) => http.to(app).get(path)))

    expect(answers.map(({ status, headers }) => [status, headers['retry-after']])).toEqual([
      [404, undefined],
      [409, undefined],
      [422, undefined],
      [503, '1'],
      [503, '1'],
    ])
  })

  it('has the status under both names that frameworks read', async () => {
    const error: unknown = await apiKeys.get(randomUUID()).catch((error: unknown) => error)
    if (!(error instanceof ApiKeysError)) throw new Error('not refused', { cause: error })

    const { status, statusCode, headers, expose } = error
    expect({ status, statusCode, headers, expose }).toEqual({
      status: 404,
      statusCode: 404,
      headers: {},
      expose: true,
    })
  })

  it('does not show in JSON why a key is wrong', () => {
    const error = new InvalidApiKeyError('revoked')

    expect(error.reason).toBe('revoked')
    expect(JSON.stringify(error)).not.toContain('revoked')
  })
})
