import { randomUUID } from 'node:crypto'

import { Sequelize, type Options } from 'sequelize'

/** A database that belongs to one spec file. */
export interface Database {
  url: string
  /** Connects once more, as another process would. */
  connect(options?: Options): Sequelize
  /** Closes all connections and drops the database. */
  drop(): Promise<void>
}

/** Creates a database: a copy of the migrated one, or an `empty` one. */
export async function createDatabase(
  template: 'migrated' | 'empty' = 'migrated',
): Promise<Database> {
  const name = `spec_${randomUUID().replaceAll('-', '')}`
  await onServer(
    `CREATE DATABASE ${name} TEMPLATE ${template === 'empty' ? 'template0' : template}`,
  )

  const url = new URL(serverUrl())
  url.pathname = `/${name}`
  const connections: Sequelize[] = []

  return {
    url: url.href,
    connect(options) {
      const sequelize = new Sequelize(url.href, { logging: false, pool: { max: 10 }, ...options })
      connections.push(sequelize)
      return sequelize
    },
    async drop() {
      for (const connection of connections) await connection.close()
      await onServer(`DROP DATABASE ${name} WITH (FORCE)`)
    },
  }
}

/** A database out of reach: nobody listens there. */
export const databaseAway: Pick<Database, 'connect'> = {
  connect(options) {
    return new Sequelize('postgres://nobody@127.0.0.1:1/nothing', { logging: false, ...options })
  },
}

async function onServer(sql: string) {
  const server = new Sequelize(serverUrl(), { logging: false, pool: { max: 1 } })
  await server.query(sql)
  await server.close()
}

function serverUrl() {
  const { SPEC_POSTGRES_URL: url } = process.env
  if (!url) throw new Error('SPEC_POSTGRES_URL is not set: run the specs with "npm test"')
  return url
}
