import {
  DataTypes,
  type InferAttributes,
  type InferCreationAttributes,
  type Model,
  Sequelize,
} from 'sequelize'

import type { JsonObject } from './json'
import type { GraphNode } from './run-graph'

export interface UserRow extends Model<
  InferAttributes<UserRow>,
  InferCreationAttributes<UserRow, { omit: 'id' }>
> {
  id: string
  username: string
  passwordHash: string
  admin: boolean
}

export interface GraphRow extends Model<
  InferAttributes<GraphRow>,
  InferCreationAttributes<GraphRow>
> {
  id: string
  userId: string
  name: string
  inputs: string[]
  nodes: GraphNode[]
  outputs: Record<string, string>
}

export interface BlockRow extends Model<
  InferAttributes<BlockRow>,
  InferCreationAttributes<BlockRow>
> {
  id: string
  userId: string
  name: string
  kind: string
  settings: JsonObject
}

export type Database = ReturnType<typeof openDatabase>

/** Defines this app's models. Connects with the first query. */
export function openDatabase(url: string) {
  const sequelize = new Sequelize(url, {
    dialect: 'postgres',
    logging: false,
    dialectOptions: { connectionTimeoutMillis: 5000 },
    define: { underscored: true, timestamps: false },
  })

  const User = sequelize.define<UserRow>(
    'User',
    {
      id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
      username: { type: DataTypes.TEXT, allowNull: false, unique: true },
      passwordHash: { type: DataTypes.TEXT, allowNull: false },
      admin: { type: DataTypes.BOOLEAN, allowNull: false },
    },
    { tableName: 'users' },
  )

  const userId = {
    type: DataTypes.UUID,
    allowNull: false,
    references: { model: 'users', key: 'id' },
    onDelete: 'CASCADE',
  }

  const Graph = sequelize.define<GraphRow>(
    'Graph',
    {
      id: { type: DataTypes.TEXT, primaryKey: true },
      userId,
      name: { type: DataTypes.TEXT, allowNull: false },
      inputs: { type: DataTypes.JSON, allowNull: false },
      nodes: { type: DataTypes.JSON, allowNull: false },
      outputs: { type: DataTypes.JSON, allowNull: false },
    },
    { tableName: 'graphs' },
  )

  const Block = sequelize.define<BlockRow>(
    'Block',
    {
      id: { type: DataTypes.TEXT, primaryKey: true },
      userId,
      name: { type: DataTypes.TEXT, allowNull: false },
      kind: { type: DataTypes.TEXT, allowNull: false },
      settings: { type: DataTypes.JSON, allowNull: false },
    },
    { tableName: 'blocks' },
  )

  return { sequelize, User, Graph, Block }
}

/** Creates the tables that are missing, and has `fill` put the first rows into them. */
export async function prepareDatabase(
  database: Database,
  fill: (database: Database) => Promise<void>,
): Promise<void> {
  const { sequelize } = database

  await sequelize.transaction(async (transaction) => {
    // Where several processes start at once, one does it and the others wait. The number is ours.
    await sequelize.query('SELECT pg_advisory_xact_lock(20261123)', { transaction })
    await sequelize.sync()
    await sequelize.query(createSessions)
    await fill(database)
  })
}

/** As in the `table.sql` of connect-pg-simple. */
const createSessions = `
  CREATE TABLE IF NOT EXISTS session (
    sid varchar PRIMARY KEY,
    sess json NOT NULL,
    expire timestamp(6) NOT NULL
  );
  CREATE INDEX IF NOT EXISTS session_expire ON session (expire);
`
