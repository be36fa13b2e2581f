import * as pg from 'pg'

/** What a driver was asked to run, on any connection, Sequelize's and ours. */
export interface Statements {
  /** The driver, for the option `dialectModule` of Sequelize. */
  driver: object
  all: string[]
  /** Those that look up keys for verification. */
  lookUps(): string[]
  /** Those that ask for changes. */
  polls(): string[]
}

/** Makes a driver that keeps a list of all statements. */
export function recordStatements(): Statements {
  const all: string[] = []

  class RecordingClient extends pg.Client {
    constructor(...options: ConstructorParameters<typeof pg.Client>) {
      super(...options)
      const query = this.query.bind(this) as (...args: unknown[]) => unknown
      Object.assign(this, {
        query(...args: unknown[]) {
          const [statement] = args
          all.push(typeof statement === 'string' ? statement : (statement as { text: string }).text)
          return query(...args)
        },
      })
    }
  }

  return {
    driver: { ...pg, Client: RecordingClient },
    all,
    lookUps: () => all.filter((sql) => sql.includes('key.hash = ANY')),
    polls: () => all.filter((sql) => sql.includes('fingerprint')),
  }
}
