import {
  type DataType,
  DataTypes,
  type InferAttributes,
  type InferCreationAttributes,
  type Model,
  Sequelize,
} from 'sequelize'

import type { Block } from './run-graph'

interface UserRow extends Model<
  InferAttributes<UserRow>,
  InferCreationAttributes<UserRow, { omit: 'id' }>
> {
  id: string
  username: string
  passwordHash: string
  admin: boolean
}

interface GraphRow extends Model<InferAttributes<GraphRow>, InferCreationAttributes<GraphRow>> {
  id: string
  userId: string
  name: string
  inputs: string[]
  /** The ids of blocks, in the order in which they run. */
  blocks: string[]
}

interface BlockRow
  extends Block, Model<InferAttributes<BlockRow>, InferCreationAttributes<BlockRow>> {
  userId: string
  name: string
}

export type Database = ReturnType<typeof openDatabase>

// Functions, because Sequelize writes the name of the column into each definition.
const required = (type: DataType) => ({ type, allowNull: false })
const id = () => ({ type: DataTypes.TEXT, primaryKey: true })
const userId = () => ({
  ...required(DataTypes.UUID),
  references: { model: 'users', key: 'id' },
  onDelete: 'CASCADE',
})

/** Defines the models of this app. The first query opens the first connection. */
export function openDatabase(url: string) {
  const sequelize = new Sequelize(url, {
    dialect: 'postgres',
    logging: false,
    dialectOptions: { connectionTimeoutMillis: 5000 },
    define: { underscored: true, timestamps: false },
  })
  const User = sequelize.define<UserRow>('user', {
    id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
    username: { ...required(DataTypes.TEXT), unique: true },
    passwordHash: required(DataTypes.TEXT),
    admin: required(DataTypes.BOOLEAN),
  })
  const Graph = sequelize.define<GraphRow>('graph', {
    id: id(),
    userId: userId(),
    name: required(DataTypes.TEXT),
    inputs: required(DataTypes.JSON),
    blocks: required(DataTypes.JSON),
  })
  const Block = sequelize.define<BlockRow>('block', {
    id: id(),
    userId: userId(),
    name: required(DataTypes.TEXT),
    kind: required(DataTypes.TEXT),
    settings: required(DataTypes.JSON),
  })

  return { sequelize, User, Graph, Block }
}

/** Creates the tables that are missing, and lets `fill` store the first rows. */
export async function prepareDatabase(
  database: Database,
  fill: (database: Database) => Promise<void>,
): Promise<void> {
  const { sequelize } = database

  await sequelize.transaction(async (transaction) => {
    // If several processes start at once, one process does the work and the other processes wait.
    await sequelize.query('SELECT pg_advisory_xact_lock(20261123)', { transaction })
    await sequelize.sync()
    await fill(database)
  })
}
