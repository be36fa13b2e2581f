import type { QueryInterface, Sequelize } from 'sequelize'

import { isQuoted, quote } from './names'

/**
 * Returns a view of the app's Sequelize through which our models and queries run. It shares the app's pool and
 * connection settings, and nothing else: the app's `define` defaults, hooks, query defaults and isolation level do
 * not reach our tables, and the app's models, `sync()` and `drop()` never see them.
 */
export function asGuest(sequelize: Sequelize): Sequelize {
  const app = sequelize as unknown as Internals
  const guest = Object.create(sequelize) as Internals

  guest.options = {
    ...app.options,
    // Read through, as apps turn it on and off.
    get logging() {
      return withoutParameters(app.options.logging)
    },
    define: {},
    hooks: {},
    query: {},
    schema: undefined,
    omitNull: false,
    typeValidation: false,
    quoteIdentifiers: true,
    minifyAliases: false,
    isolationLevel: undefined,
    // Parameters hold hashes, which belong in no log.
    logQueryParameters: false,
  }
  guest.models = {}
  guest.modelManager = new app.modelManager.constructor(guest)

  // These hold on to the Sequelize they were made for.
  const { constructor: OwnQueryInterface, queryGenerator } = app.dialect.queryInterface
  const ownGenerator = new queryGenerator.constructor({ _dialect: app.dialect, sequelize: guest })
  // Sequelize's takes the quotes out of a name instead of doubling them. It calls with names that it has quoted, too.
  ownGenerator.quoteIdentifier = (name) => (isQuoted(name) ? name : quote(name))
  // In one statement, where Sequelize would send a second one for the isolation level.
  ownGenerator.startTransactionQuery = () => 'START TRANSACTION ISOLATION LEVEL READ COMMITTED;'
  guest.queryInterface = new OwnQueryInterface(guest, ownGenerator)
  // It inherits from one.
  return guest as unknown as Sequelize
}

/** Passes on the statement and, with `benchmark`, its time. What else Sequelize hands to a logger holds parameters. */
function withoutParameters(log: unknown): unknown {
  if (typeof log !== 'function') return log

  return (sql: string, timing: unknown) => {
    log(...(typeof timing === 'number' ? [sql, timing] : [sql]))
  }
}

/** What Sequelize 6 has and its types leave out. Its classes are taken from the instance, as it exports none of them. */
interface Internals {
  options: { logging?: unknown } & Record<string, unknown>
  models: object
  modelManager: { constructor: new (sequelize: Internals) => Internals['modelManager'] }
  queryInterface: QueryInterface
  dialect: {
    queryInterface: {
      constructor: new (sequelize: Internals, queryGenerator: QueryGenerator) => QueryInterface
      queryGenerator: QueryGenerator
    }
  }
}

interface QueryGenerator {
  constructor: new (options: { _dialect: object; sequelize: Internals }) => QueryGenerator
  quoteIdentifier(name: string): string
  startTransactionQuery(): string
}
