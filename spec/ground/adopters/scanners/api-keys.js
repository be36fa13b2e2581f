const { Sequelize } = require('sequelize')

const { createApiKeys, sources } = require('express-api-keys')

const legacy = {
  name: 'legacy',
  accepts: /^(?:v[12]:)?lk-[a-f\d]{16}(?:\.[\w-]{4,8}?)?$/,
  digest: { of: (key) => key, read: (stored) => stored },
}

module.exports = createApiKeys({
  sequelize: new Sequelize(process.env.DATABASE_URL, { logging: false }),
  environments: {
    live: { prefix: 'acme_live', formerPrefixes: ['acme'] },
    test: { prefix: 'acme_test' },
  },
  acceptedEnvironments: ['live'],
  permissions: ['READ_GRAPH'],
  imports: [
    legacy,
    sources.sanctum({ prefix: 'old_' }),
    sources.prefixedApiKey({ prefix: 'mycorp' }),
    sources.knox(),
  ],
})
