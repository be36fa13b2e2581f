import type { QueryInterface, Sequelize } from 'sequelize'

/**
 * Returns a view of the app's Sequelize through which our statements run. It shares the app's pool and connection settings,
 * and nothing else: the app's hooks, query defaults and isolation level do not reach them. We define no models, so that the
 * app's `sync()` and `drop()` never see our tables.
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
    hooks: {},
    query: {},
    isolationLevel: undefined,
    // Parameters hold hashes, which belong in no log.
    logQueryParameters: false,
  }
  // These hold on to the Sequelize they were made for.
  const { constructor: OwnQueryInterface, queryGenerator } = app.dialect.queryInterface
  const ownGenerator = new queryGenerator.constructor({ _dialect: app.dialect, sequelize: guest })
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
  startTransactionQuery(): string
}
