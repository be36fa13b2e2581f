const { createServer } = require('node:http')

const { createApiKeys } = require('express-api-keys')
const { Sequelize } = require('sequelize')

/** Creates the first objects of an adopter's program: a connection to its database, and the library on it. */
exports.setUp = function setUp(options) {
  const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })
  const apiKeys = createApiKeys({
    sequelize,
    keyPrefix: 'acme',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    ...options,
  })
  return { sequelize, apiKeys }
}

/** Listens on a port that the system chooses, and prints it. */
exports.listen = function listen(listener) {
  const server = typeof listener === 'function' ? createServer(listener) : listener
  server.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`))
}

/** Does some work when a signal stops the program, and then ends. */
exports.beforeEnd = function beforeEnd(work) {
  process.once('SIGTERM', () => void work().then(() => process.exit()))
}
