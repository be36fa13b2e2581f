import { isQuoted } from './names'
import type { OptionChecks } from './option-checks'

/** The column types that the ids of owners may have. */
const userIdTypes = ['text', 'uuid', 'integer', 'bigint'] as const

/** The type of an owner's id in the database. */
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
  /**
   * The app's organizations in the database, named like its users. With it, keys may belong to organizations.
   *
   * @default false
   */
  organizations?: OwnerTable | false | undefined
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
   * The type of an owner's id. Ids of type `integer` are numbers in JavaScript and JSON. All other ids are strings.
   * Without this option, the column has the type of the app's own column, and ids are strings.
   *
   * @default 'text'
   */
  type?: Type | undefined
  /** The app's table, or its model. With it, the id of an owner is a foreign key. */
  table?: string | UserModel | undefined
  /**
   * The schema of the app's table.
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
  /**
   * The effect of deleting an owner who has keys: `cascade` deletes the keys as well, and `restrict` refuses.
   *
   * @default 'cascade'
   */
  onDelete?: OnDelete | undefined
}

const deletions = ['cascade', 'restrict'] as const

/** The effect of deleting an owner who has keys. */
export type OnDelete = (typeof deletions)[number]

/** The column of an app's table that the ids of owners refer to. */
export interface OwnerReference {
  table: string
  schema: string
  column: string
  onDelete: OnDelete
}

/** The owners of one kind, with the defaults applied. */
export interface OwnerStorage {
  /** The type of ids in JavaScript. */
  idType: UserIdType
  /** The type of the column, if the app named it. */
  columnType: UserIdType | undefined
  /** The column that ids refer to, if the app named its table. */
  reference: OwnerReference | undefined
}

/** The storage options with the defaults applied. */
export interface Storage {
  schema: string
  users: OwnerStorage
  /** `undefined` if the app has no organizations. */
  organizations: OwnerStorage | undefined
}

/** The names of the options that say where the tables are. */
export const storageOptionNames = ['schema', 'users', 'organizations'] as const

const ownerOptionNames = ['type', 'table', 'schema', 'column', 'onDelete'] as const

/** Checks the storage options and applies the defaults. */
export function readStorageOptions(
  { schema = 'public', users = {}, organizations = false }: StorageOptions,
  checks: OptionChecks,
): Storage {
  checks.check('schema', isIdentifier(schema), 'must be the name of a schema', schema)
  return {
    schema,
    users: readOwnerOptions('users', users, checks),
    organizations:
      organizations === false
        ? undefined
        : readOwnerOptions('organizations', organizations, checks),
  }
}

function readOwnerOptions(
  name: 'users' | 'organizations',
  given: OwnerTable,
  { check, refuseUnknownNames }: OptionChecks,
): OwnerStorage {
  const isUsable = isModel(given) || (typeof given === 'object' && given !== null)
  check(
    name,
    isUsable,
    `must be a model of Sequelize, or an object such as { table: '${name}' }`,
    given,
  )
  const owners = isModel(given) ? { table: given } : given
  refuseUnknownNames(owners, ownerOptionNames, `${name}.`)

  const { type, onDelete = 'cascade' } = owners
  checkOneOf(`${name}.type`, type, userIdTypes)
  checkOneOf(`${name}.onDelete`, onDelete, deletions)
  const { table, schema, column } = placeOf(owners)
  for (const [option, value] of Object.entries({ table, schema, column })) {
    const isFine = value === undefined || isIdentifier(value)
    check(`${name}.${option}`, isFine, 'must be the name of one', value)
  }
  const others = column ?? schema ?? owners.onDelete
  const isComplete = table !== undefined || others === undefined
  check(`${name}.table`, isComplete, 'must be given if column, schema or onDelete is')

  return {
    idType: type ?? 'text',
    columnType: type,
    reference:
      table === undefined
        ? undefined
        : { table, schema: schema ?? 'public', column: column ?? 'id', onDelete },
  }

  function checkOneOf(option: string, value: string | undefined, known: readonly string[]) {
    const isKnown = value === undefined || known.includes(value)
    check(option, isKnown, `must be one of ${known.join(', ')}`, value)
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
