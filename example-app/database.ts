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

/** A row of a user or of an organization: one of the two ids is null. */
interface OwnedRow {
  userId: string | null
  organizationId: string | null
}

interface GraphRow
  extends OwnedRow, Model<InferAttributes<GraphRow>, InferCreationAttributes<GraphRow>> {
  id: string
  name: string
  inputs: string[]
  /** The ids of blocks, in the order in which they run. */
  blocks: string[]
}

interface BlockRow
  extends Block, OwnedRow, Model<InferAttributes<BlockRow>, InferCreationAttributes<BlockRow>> {
  name: string
}

interface OrganizationRow extends Model<
  InferAttributes<OrganizationRow>,
  InferCreationAttributes<OrganizationRow>
> {
  id: string
  name: string
}

/** A user in an organization. Managers change its keys, other members see them. */
interface MembershipRow extends Model<
  InferAttributes<MembershipRow>,
  InferCreationAttributes<MembershipRow>
> {
  organizationId: string
  userId: string
  isManager: boolean
}

export type Database = ReturnType<typeof openDatabase>

// Functions, because Sequelize writes the name of the column into each definition.
const required = (type: DataType) => ({ type, allowNull: false })
const id = () => ({ type: DataTypes.TEXT, primaryKey: true })
const userId = () => ({ type: DataTypes.UUID, ...referenceTo('users') })
const organizationId = () => ({ type: DataTypes.TEXT, ...referenceTo('organizations') })
const referenceTo = (model: string) => ({ references: { model, key: 'id' }, onDelete: 'CASCADE' })

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
  const Organization = sequelize.define<OrganizationRow>('organization', {
    id: id(),
    name: required(DataTypes.TEXT),
  })
  const Membership = sequelize.define<MembershipRow>('membership', {
    organizationId: { ...organizationId(), primaryKey: true },
    userId: { ...userId(), primaryKey: true },
    isManager: required(DataTypes.BOOLEAN),
  })
  const Graph = sequelize.define<GraphRow>('graph', {
    id: id(),
    userId: userId(),
    organizationId: organizationId(),
    name: required(DataTypes.TEXT),
    inputs: required(DataTypes.JSON),
    blocks: required(DataTypes.JSON),
  })
  const Block = sequelize.define<BlockRow>('block', {
    id: id(),
    userId: userId(),
    organizationId: organizationId(),
    name: required(DataTypes.TEXT),
    kind: required(DataTypes.TEXT),
    settings: required(DataTypes.JSON),
  })

  return { sequelize, User, Organization, Membership, Graph, Block }
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
