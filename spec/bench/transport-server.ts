import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

import express from 'express'
import type * as Library from 'express-api-keys'
import { Sequelize } from 'sequelize'

import { keyPrefix } from './keys'
import { answerQuestions } from './processes'

/** A guarded route of an app that refuses plain HTTP, and the keys of the app. */
export interface TransportServer {
  port: number
  keys: string[]
}

export type TransportMode = 'refuse' | 'revoke'

const { DATABASE_URL: url = '', SECRET: secret = '' } = process.env
const keyCount = 1_000

answerQuestions(async (mode: TransportMode): Promise<TransportServer> => {
  const { createApiKeys } = require('express-api-keys') as typeof Library
  const apiKeys = createApiKeys({
    sequelize: new Sequelize(url, { logging: false }),
    keyPrefix,
    permissions: ['READ_GRAPH'],
    schema: mode,
    secrets: [secret],
    insecureTransport: mode,
    maxKeysPerOwner: Infinity,
    maxExposedPerMinute: Infinity,
  })
  await apiKeys.migrate()
  const { apiKeys: created } = await apiKeys.createMany(
    Array.from({ length: keyCount }, (_, at) => ({
      userId: 'alice',
      name: `Key ${at}`,
      permissions: ['READ_GRAPH'] as const,
    })),
  )
  const app = express()
  app.set('trust proxy', 'loopback')
  app.get('/graphs/:id', apiKeys.requirePermission('READ_GRAPH'), function showGraph(req, res) {
    res.json({ id: req.params.id })
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  server.keepAliveTimeout = 0
  // The address of a TCP server is never the string of a pipe.
  const { port } = server.address() as AddressInfo
  return { port, keys: created.map(({ plainTextKey }) => plainTextKey ?? '') }
})
