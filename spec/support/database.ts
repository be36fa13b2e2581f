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
  const connections: Sequelize[] = []
  const users: Closable[] = []

  return {
    url: url.href,
    create: () =>
      onServer(
        `CREATE DATABASE ${name} STRATEGY FILE_COPY
           TEMPLATE ${template === 'empty' ? 'template0' : template}`,
      ),
    closeFirst(user) {
      users.push(user)
    },
    connect(options) {
      const sequelize = new Sequelize(url.href, { logging: false, pool: { max: 10 }, ...options })
      connections.push(sequelize)
      return sequelize
    },
    async drop() {
      await closeAll(users)
      for (const connection of connections) await connection.close()
      await onServer(`DROP DATABASE ${name} WITH (FORCE)`)
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

async function onServer(sql: string) {
  const client = new Client(serverUrl())
  await client.connect()
  await client.query(sql)
  await client.end()
}

function serverUrl() {
  const { SPEC_POSTGRES_URL: url } = process.env
  if (!url) throw new Error('SPEC_POSTGRES_URL is not set: run the specs with "npm test"')
  return url
}
