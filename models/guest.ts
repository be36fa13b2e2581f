import type { QueryInterface, Sequelize } from 'sequelize'

/**
 * Returns a view of the app's Sequelize, which runs our statements. It shares the pool and the connection settings of the app. The
 * app's hooks, query defaults and isolation level do not reach our statements. We define no models, so that the app's `sync()` and
 * `drop()` never see our tables.
 */
export function asGuest(sequelize: Sequelize): Sequelize {
  const app = sequelize as unknown as Internals
  const guest = Object.create(sequelize) as Internals

  guest.options = {
    ...app.options,
    // A getter, because apps turn logging on and off.
    get logging() {
      return withoutParameters(app.options.logging)
    },
    hooks: {},
    query: {},
    isolationLevel: undefined,
    // Parameters hold hashes, which belong in no log.
    logQueryParameters: false,
  }
  // Both keep the Sequelize that they were made for.
  const { constructor: OwnQueryInterface, queryGenerator } = app.dialect.queryInterface
  const ownGenerator = new queryGenerator.constructor({ _dialect: app.dialect, sequelize: guest })
  // In one statement. Sequelize would send a second statement for the isolation level.
  ownGenerator.startTransactionQuery = () => 'START TRANSACTION ISOLATION LEVEL READ COMMITTED;'
  guest.queryInterface = new OwnQueryInterface(guest, ownGenerator)
  // It inherits from a Sequelize.
  return guest as unknown as Sequelize
}

/** Passes on the statement and, with `benchmark`, its time. The other arguments of a logger hold parameters. */
function withoutParameters(log: unknown): unknown {
  if (typeof log !== 'function') return log

  return (sql: string, timing: unknown) => {
    log(...(typeof timing === 'number' ? [sql, timing] : [sql]))
  }
}

/** Members of Sequelize 6 that its types leave out. Their classes come from the instance, because Sequelize exports none of them. */
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
