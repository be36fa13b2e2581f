import { isQuoted } from './names'
import type { OptionChecks } from './option-checks'

/** The column types that `user_id` may have. */
const userIdTypes = ['text', 'uuid', 'integer', 'bigint'] as const

/** The type of a user's id in the database. */
export type UserIdType = (typeof userIdTypes)[number]

/** The place of the tables, and how they refer to the app's users. `createApiKeys` and the migrations take the same options. */
export interface StorageOptions<Type extends UserIdType = UserIdType> {
  /**
   * The schema of our tables. The migration creates it if it does not exist.
   *
   * @default 'public'
   */
  schema?: string | undefined
  /** The app's users in the database: their Sequelize model, or their table. */
  users?: OwnerTable<Type> | undefined
}

/** The members of a Sequelize model that the library reads. */
export interface UserModel {
  getTableName(): string | { tableName: string; schema?: string }
  readonly primaryKeyField?: string
}

/** A table of owners: the app's Sequelize model, or names. */
export type OwnerTable<Type extends UserIdType = UserIdType> = UserModel | UserOptions<Type>

interface UserOptions<Type extends UserIdType> {
  /**
   * The type of a user's id. Ids of type `integer` are numbers in JavaScript and JSON. All other ids are strings.
   * Without this option, the column has the type of the app's own column, and ids are strings.
   *
   * @default 'text'
   */
  type?: Type | undefined
  /** The app's table of users, or its model. With it, `user_id` is a foreign key, and deleting a user deletes their keys. */
  table?: string | UserModel | undefined
  /**
   * The schema of the app's table of users.
   *
   * @default 'public'
   */
  schema?: string | undefined
  /**
   * The column that a key's owner refers to.
   *
   * @default 'id', or the primary key of the model
   */
  column?: string | undefined
}

/** The storage options with the defaults applied. */
export interface Storage {
  schema: string
  /** The type of ids in JavaScript. */
  userIdType: UserIdType
  /** The type of `user_id`, if the app named it. */
  columnType?: UserIdType | undefined
  /** The column that `user_id` refers to, if the app named its table of users. */
  users: { table: string; schema: string; column: string } | undefined
}

/** The names of the options that say where the tables are. */
export const storageOptionNames = ['schema', 'users'] as const

const userOptionNames = ['type', 'table', 'schema', 'column'] as const

/** Checks the storage options and applies the defaults. */
export function readStorageOptions(
  { schema = 'public', users: given = {} }: StorageOptions,
  { check, refuseUnknownNames }: OptionChecks,
): Storage {
  check('schema', isIdentifier(schema), 'must be the name of a schema', schema)
  const isUsable = isModel(given) || (typeof given === 'object' && given !== null)
  check('users', isUsable, 'must be a model of Sequelize or an object', given)
  const users = isModel(given) ? { table: given } : given
  refuseUnknownNames(users, userOptionNames, 'users.')

  const { type } = users
  const types = `must be one of ${userIdTypes.join(', ')}`
  check('users.type', type === undefined || userIdTypes.includes(type), types, type)
  const { table, schema: usersSchema, column } = placeOf(users)
  for (const [name, value] of Object.entries({ table, schema: usersSchema, column })) {
    const isFine = value === undefined || isIdentifier(value)
    check(`users.${name}`, isFine, 'must be the name of one', value)
  }
  const isComplete = table !== undefined || (column ?? usersSchema) === undefined
  check('users.table', isComplete, 'must be given if column or schema is')

  return {
    schema,
    userIdType: type ?? 'text',
    columnType: type,
    users:
      table === undefined
        ? undefined
        : { table, schema: usersSchema ?? 'public', column: column ?? 'id' },
  }
}

function placeOf({ table, schema, column }: UserOptions<UserIdType>) {
  if (!isModel(table)) return { table, schema, column }

  const name = table.getTableName()
  const { tableName, schema: modelSchema } =
    typeof name === 'string' ? { tableName: name, schema: '' } : name
  return {
    table: tableName,
    // Empty unless the model names one.
    schema: schema ?? (modelSchema || undefined),
    column: column ?? table.primaryKeyField,
  }
}

function isModel(value: unknown): value is UserModel {
  return (
    typeof value === 'function' && typeof (value as Partial<UserModel>).getTableName === 'function'
  )
}

/** Postgres cuts longer identifiers off without an error. Quotes around a name are a mistake. */
function isIdentifier(name: unknown): boolean {
  return (
    typeof name === 'string' &&
    name !== '' &&
    Buffer.byteLength(name) <= 63 &&
    !name.includes('\0') &&
    !isQuoted(name)
  )
}
