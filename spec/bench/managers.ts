import { createHash, randomBytes } from 'node:crypto'

import { Pool, Query } from 'pg'
import { DataTypes, Sequelize, type Model, type Transaction } from 'sequelize'

import type * as BetterAuth from './better-auth'
import { mintKeys } from './keys'
import { manageVariants, type Key, type Manager, type ManageVariant } from './manage-variants'
import { openBuild } from './ours'

/*
 * How each variant manages keys: with the calls that its documentation shows, or that a developer would write by hand.
 */

const pageSize = 20
const few = ['READ_GRAPH'] as const
const many = ['READ_GRAPH', 'EXECUTE_GRAPH'] as const
const pool = { max: 10 }

interface Place {
  url: string
  /** The folder of the build that is measured. */
  build: string
  secret: string
}

/** Opens one variant on its database. */
export async function openManager(
  variant: ManageVariant,
  { url, build, secret }: Place,
): Promise<Manager> {
  const { tables, isKeyed } = manageVariants[variant]
  if (variant === 'copy' || variant === 'copyBare') return openCopy(url)
  if (tables === 'ours') return openOurs({ url, build, secrets: isKeyed ? [secret] : [] })
  if (tables === 'betterAuth') return openBetterAuth(url)
  if (variant === 'pg') return openPg(url)
  return openSequelize(url, variant === 'sequelizeAudit')
}

function newKey(userId: string) {
  return { userId, name: 'Deployment', permissions: few }
}

function openOurs(options: { url: string; build: string; secrets: string[] }): Manager {
  const { apiKeys, sequelize } = openBuild(options)

  return {
    async create(userId) {
      const { apiKey } = await apiKeys.create(newKey(userId))
      return apiKey.id
    },
    setPermissions: ({ id, userId }, isMany) =>
      apiKeys.setPermissions(id, isMany ? many : few, { userId }),
    setSuspended: ({ id, userId }, isSuspended) =>
      isSuspended ? apiKeys.suspend(id, { userId }) : apiKeys.reactivate(id, { userId }),
    revoke: ({ id, userId }) => apiKeys.revoke(id, { userId }),
    rotate: ({ id, userId }) => apiKeys.rotate(id, { userId }),
    async list(userId) {
      const { apiKeys: page } = await apiKeys.list({ userId, limit: pageSize })
      return page.length
    },
    createMany: createManyOf(apiKeys),
    async settle() {
      await apiKeys.flush()
      await apiKeys.auditHead()
    },
    async existing() {
      const [rows] = await sequelize.query(existingSql('api_keys'))
      // The columns of the statement.
      return rows as Key[]
    },
  }
}

/** A build from before there was `createMany` has none. */
function createManyOf(apiKeys: object): Manager['createMany'] {
  const { createMany } = apiKeys as { createMany?: (keys: object[]) => Promise<unknown> }
  return createMany && ((userIds) => createMany(userIds.map(newKey)))
}

function permissionsOfBetterAuth(isMany: boolean) {
  return { graphs: isMany ? ['read', 'execute'] : ['read'] }
}

async function openBetterAuth(url: string): Promise<Manager> {
  // Loaded only here, so that its dependencies do not weigh on the other variants.
  const { openBetterAuth } = require('./better-auth') as typeof BetterAuth
  const auth = openBetterAuth(url)

  // Its list is for a user who is signed in.
  const { headers, response } = await auth.api.signUpEmail({
    body: {
      email: `${process.pid}@example.com`,
      name: 'Alice',
      password: randomBytes(9).toString('hex'),
    },
    returnHeaders: true,
  })
  const signedIn = new Headers({ cookie: headers.getSetCookie().map(withoutAttributes).join('; ') })
  for (let key = 0; key < pageSize; key++) {
    await auth.api.createApiKey({ body: { userId: response.user.id, name: 'Deployment' } })
  }

  return {
    async create(userId) {
      const body = { userId, name: 'Deployment', permissions: permissionsOfBetterAuth(false) }
      const { id } = await auth.api.createApiKey({ body })
      return id
    },
    setPermissions: ({ id, userId }, isMany) =>
      auth.api.updateApiKey({
        body: { keyId: id, userId, permissions: permissionsOfBetterAuth(isMany) },
      }),
    setSuspended: ({ id, userId }, isSuspended) =>
      auth.api.updateApiKey({ body: { keyId: id, userId, enabled: !isSuspended } }),
    // Like ours, and unlike its `deleteApiKey`, it keeps the record.
    revoke: ({ id, userId }) =>
      auth.api.updateApiKey({ body: { keyId: id, userId, enabled: false } }),
    async list() {
      const { apiKeys } = await auth.api.listApiKeys({
        headers: signedIn,
        query: { limit: pageSize, sortBy: 'createdAt', sortDirection: 'desc' },
      })
      return apiKeys.length
    },
    existing: async () => readExisting(url, existingSql('apikey', '"referenceId"')),
  }
}

function withoutAttributes(cookie: string): string {
  return cookie.split(';', 1)[0] ?? ''
}

/** The parts of a new key that an app needs. */
function mint() {
  const plainTextKey = `agpt_${randomBytes(32).toString('base64url')}`
  return { plainTextKey, hash: createHash('sha256').update(plainTextKey).digest('hex') }
}

interface KeyRow {
  id: string
  userId: string
  name: string
  hash: string
  permissions: readonly string[]
  status: string
  createdAt: Date
}

function newRow(userId: string) {
  return { userId, name: 'Deployment', hash: mint().hash, permissions: few }
}

function openSequelize(url: string, isAudited: boolean): Manager {
  const sequelize = new Sequelize(url, { logging: false, pool })
  const Key = sequelize.define<Model<KeyRow, Omit<KeyRow, 'id' | 'status' | 'createdAt'>> & KeyRow>(
    'Key',
    {
      id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
      userId: { type: DataTypes.TEXT },
      name: { type: DataTypes.TEXT },
      hash: { type: DataTypes.TEXT },
      permissions: { type: DataTypes.ARRAY(DataTypes.TEXT) },
      status: { type: DataTypes.TEXT, defaultValue: 'ACTIVE' },
      createdAt: { type: DataTypes.DATE, defaultValue: DataTypes.NOW },
    },
    { tableName: 'keys', underscored: true, timestamps: false },
  )
  const Event = sequelize.define(
    'Event',
    {
      id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
      keyId: { type: DataTypes.UUID },
      action: { type: DataTypes.TEXT },
      actor: { type: DataTypes.TEXT },
      before: { type: DataTypes.JSONB },
      after: { type: DataTypes.JSONB },
    },
    { tableName: 'key_events', underscored: true, timestamps: false },
  )

  /** Works in one transaction with an audit row, or without both. */
  async function work<Result>(run: (transaction?: Transaction) => Promise<Result>) {
    return isAudited ? sequelize.transaction(async (transaction) => run(transaction)) : run()
  }

  async function change({ id, userId }: Key, action: string, values: Partial<KeyRow>) {
    return work(async (transaction) => {
      const scope = transaction ? { transaction, lock: true } : {}
      const key = await Key.findOne({ where: { id, userId }, ...scope, rejectOnEmpty: true })
      const before = key.toJSON()
      await key.update(values, scope)
      if (transaction) {
        const row = { keyId: id, action, actor: userId, before, after: key.toJSON() }
        await Event.create(row, scope)
      }
      return key
    })
  }

  return {
    create: (userId) =>
      work(async (transaction) => {
        const scope = transaction ? { transaction } : {}
        const key = await Key.create(newRow(userId), scope)
        if (transaction) {
          const row = { keyId: key.id, action: 'created', actor: userId, after: key.toJSON() }
          await Event.create(row, scope)
        }
        return key.id
      }),
    setPermissions: (key, isMany) => change(key, 'changed', { permissions: isMany ? many : few }),
    setSuspended: (key, isSuspended) =>
      change(key, 'suspended', { status: isSuspended ? 'SUSPENDED' : 'ACTIVE' }),
    revoke: (key) => change(key, 'revoked', { status: 'REVOKED' }),
    rotate: (key) => change(key, 'rotated', { hash: mint().hash }),
    async list(userId) {
      const order: [string, string][] = [['createdAt', 'DESC']]
      const rows = await Key.findAll({ where: { userId }, order, limit: pageSize })
      return rows.length
    },
    createMany: (userIds) =>
      work(async (transaction) => {
        const scope = transaction ? { transaction } : {}
        const keys = await Key.bulkCreate(userIds.map(newRow), scope)
        if (!transaction) return
        const rows = keys.map((key) => {
          return { keyId: key.id, action: 'created', actor: key.userId, after: key.toJSON() }
        })
        await Event.bulkCreate(rows, scope)
      }),
    existing: async () => readExisting(url, existingSql('keys')),
  }
}

/** Statements that are prepared, of one round trip each. */
function openPg(url: string): Manager {
  const database = new Pool({ connectionString: url, ...pool })
  const run = async (name: string, text: string, values: unknown[]) => {
    const { rows, rowCount } = await database.query({ name, text, values })
    if (rowCount === 0) throw new Error(`${name}: there is no such key`)
    return rows
  }
  const change = async (name: string, { id, userId }: Key, value: unknown) =>
    run(name, `UPDATE keys SET ${name} = $3 WHERE id = $1 AND user_id = $2`, [id, userId, value])
  const insert = `INSERT INTO keys (user_id, name, hash, permissions)`

  return {
    async create(userId) {
      const text = `${insert} VALUES ($1, $2, $3, $4) RETURNING id`
      const [row] = await run('create', text, [userId, 'Deployment', mint().hash, few])
      return row.id
    },
    setPermissions: (key, isMany) => change('permissions', key, isMany ? many : few),
    setSuspended: (key, isSuspended) => change('status', key, isSuspended ? 'SUSPENDED' : 'ACTIVE'),
    revoke: (key) => change('status', key, 'REVOKED'),
    rotate: (key) => change('hash', key, mint().hash),
    async list(userId) {
      const text = `SELECT * FROM keys WHERE user_id = $1 ORDER BY created_at DESC LIMIT ${pageSize}`
      const rows = await run('list', text, [userId])
      return rows.length
    },
    createMany: (userIds) =>
      run(
        'createMany',
        `${insert} SELECT user_id, 'Deployment', hash, '{READ_GRAPH}'
           FROM unnest($1::text[], $2::text[]) AS keys (user_id, hash)`,
        [userIds, userIds.map(() => mint().hash)],
      ),
    existing: async () => readExisting(url, existingSql('keys')),
  }
}

/** Copies rows into our table, with the values that the library would insert. */
function openCopy(url: string): Manager {
  const database = new Pool({ connectionString: url, max: 1 })

  return {
    async createMany(userIds) {
      const rows = mintKeys(userIds.length).map(({ prefix, postfix, hash }, index) => {
        return `${userIds[index]}\tDeployment\t${prefix}\t${postfix}\t${hash}\t{READ_GRAPH}\n`
      })
      await copyInto(database, rows.join(''))
    },
    existing: async () => [],
  }
}

/** The members of `pg` for COPY, which its types lack. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

async function copyInto(database: Pool, text: string) {
  const client = await database.connect()
  const sql = 'COPY api_keys (user_id, name, prefix, postfix, hash, permissions) FROM STDIN'
  await new Promise<void>((resolve, reject) => {
    const copy = new Query(sql, (error) => (error ? reject(error) : resolve()))
    // A query of `pg` leaves it to its subclasses to send what is copied.
    Object.assign(copy, {
      handleCopyInResponse(connection: CopyConnection) {
        connection.sendCopyFromChunk(Buffer.from(text))
        connection.endCopyFrom()
      },
    })
    client.query(copy)
  })
  client.release()
}

/** Keys in an order that has nothing to do with their places in the table. */
function existingSql(table: string, userId = 'user_id'): string {
  return `SELECT id, ${userId} AS "userId" FROM ${table} WHERE ${userId} LIKE 'user-%' ORDER BY md5(id::text)`
}

async function readExisting(url: string, sql: string): Promise<Key[]> {
  const database = new Pool({ connectionString: url, max: 1 })
  const { rows } = await database.query<Key>(sql)
  await database.end()
  return rows
}
