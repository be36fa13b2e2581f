import { randomUUID } from 'node:crypto'

import { Client } from 'pg'
import { Sequelize, type Options } from 'sequelize'

/** A database that belongs to one spec file. */
export interface Database {
  url: string
  /** Creates the database. Instances may be made before, because they send nothing until they are used. */
  create(): Promise<void>
  /** Makes one more connection, for one more process. */
  connect(options?: Options): Sequelize
  /** Gives `drop` an object to close before the connections, for example an instance, which would go on polling. */
  closeFirst(user: Closable): void
  /** Closes all connections and drops the database. */
  drop(): Promise<void>
}

interface Closable {
  close(): Promise<void>
}

const defaults = {
  logging: false,
  /** Otherwise, Sequelize first opens one more connection, to ask for the version. */
  databaseVersion: '14.0.0',
  pool: { max: 10 },
} as const

type Template = 'migrated' | 'empty'

/** Creates a database: a copy of the migrated one, or an `empty` one. */
export async function createDatabase(template?: Template): Promise<Database> {
  const database = planDatabase(template)
  await database.create()
  return database
}

/** Names a database that does not exist before its `create()`. */
export function planDatabase(template: Template = 'migrated'): Database {
  const name = `spec_${randomUUID().replaceAll('-', '')}`
  const url = new URL(serverUrl())
  url.pathname = `/${name}`
  const server = new Client(serverUrl())
  const connections: Sequelize[] = []
  const users: Closable[] = []

  return {
    url: url.href,
    async create() {
      await server.connect()
      // Before PostgreSQL 15, there is no other strategy.
      const { rows } = await server.query('SHOW server_version_num')
      const strategy = Number(rows[0].server_version_num) < 15e4 ? '' : 'STRATEGY FILE_COPY'
      await server.query(
        `CREATE DATABASE ${name} ${strategy} TEMPLATE ${template === 'empty' ? 'template0' : template}`,
      )
    },
    closeFirst(user) {
      users.push(user)
    },
    connect(options) {
      const sequelize = new Sequelize(url.href, { ...defaults, ...options })
      connections.push(sequelize)
      return sequelize
    },
    async drop() {
      await closeAll(users)
      for (const connection of connections) await connection.close()
      await server.query(`DROP DATABASE ${name} WITH (FORCE)`)
      await server.end()
    },
  }
}

const usersOfNothing: Closable[] = []

/** A database out of reach, because nothing listens there. `drop` stops the instances that go on asking for it. */
export const databaseAway: Omit<Database, 'url' | 'create'> = {
  connect(options) {
    return new Sequelize('postgres://nobody@127.0.0.1:1/nothing', { logging: false, ...options })
  },
  closeFirst(user) {
    usersOfNothing.push(user)
  },
  drop: () => closeAll(usersOfNothing),
}

/** A last write may fail, because some specs leave a database that cannot be written to. */
async function closeAll(users: readonly Closable[]) {
  await Promise.allSettled(users.map((user) => user.close()))
}

function serverUrl() {
  const { SPEC_POSTGRES_URL: url } = process.env
  if (!url) throw new Error('SPEC_POSTGRES_URL is not set: run the specs with "npm test"')
  return url
}
