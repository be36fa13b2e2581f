import type { Server } from 'node:http'

import type { Express } from 'express'
import { QueryTypes, type Sequelize } from 'sequelize'

import type { ApiKeyRecord, OpenApiOptions, Status } from '../../lib'
import {
  createTestApiKeys,
  createTestApp,
  type Options,
  type TestApp,
  type TestApiKeys,
} from './app'
import { findBlockedSession } from './blocked'
import { checkAnswers } from './contract'
import { planDatabase, type Database } from './database'
import { createHttp, type Http } from './http'
import { bringInto, newKey } from './keys'
import { recordStatements, type Statements } from './statements'

type Routes = (app: Express, apiKeys: TestApiKeys) => void

interface WorldOptions {
  /** The options of the instance, beside those of `createTestApiKeys`. */
  options?: Options
  /** Adds routes to the app, behind both routers. */
  routes?: Routes
  /** Has every answer of the routers checked by their OpenAPI document. */
  documented?: OpenApiOptions
  /** The database to copy. */
  template?: 'migrated' | 'empty'
}

/** An instance like that of one more process, with an app. */
export interface Process {
  apiKeys: TestApiKeys
  /** Has both routers. It is made when it is first used, because not every instance can have routers. */
  readonly app: Express
  /** Requests of the app, on a port of its own. */
  http: Http
  /** The statements that the instance has sent, unless it was given a Sequelize. */
  statements: Statements
  /** Creates a key and brings it into a status. */
  createKey(wishes?: Parameters<typeof newKey>[0] & { status?: Status }): Promise<CreatedKey>
}

export interface CreatedKey {
  id: string
  userId: string
  plainTextKey: string
  apiKey: ApiKeyRecord<TestApp>
  /** The path of the key below the owner's router. */
  path: string
}

export interface World extends Process {
  database: Database
  /** A connection beside those of the instances. */
  sequelize: Sequelize
  /** Makes one more instance, for one more process. */
  createProcess(options?: Options, routes?: Routes): Process
  /** Runs a statement and returns its rows. */
  rows<Row extends object = Record<string, unknown>>(sql: string, bind?: unknown[]): Promise<Row[]>
  /** Runs a statement in a transaction that stays open, and so holds its locks until they are released. */
  holdLock(sql: string): Promise<Lock>
}

export interface Lock {
  /** Resolves once a session waits for a lock, with the number of its process. */
  waitedFor(): Promise<number>
  release(): Promise<void>
}

/**
 * Gives a spec file, or a `describe`, a migrated database, an instance and an app. They exist from the first `it` on, and are
 * removed behind the last.
 *
 * @example
 * const { apiKeys, http } = useWorld({ options: { maxKeysPerOwner: 1 } })
 *
 * it('lists keys', async () => {
 *   const answer = await http.as('alice').get('/api-keys')
 * })
 */
export function useWorld(options: WorldOptions = {}): World {
  const { world, remove } = planWorld(options)
  beforeAll(() => world.database.create())
  afterAll(remove)
  return world
}

/** Does the same for each `it`. Read the parts of the world inside an `it`, because each `it` has its own. */
export function useWorldForEach(options: WorldOptions = {}): World {
  let present: ReturnType<typeof planWorld> | undefined

  beforeEach(async () => {
    present = planWorld(options)
    await present.world.database.create()
  })
  afterEach(() => present?.remove())

  return new Proxy({} as World, {
    get(_, name) {
      if (!present) throw new Error(`world.${String(name)} is there from the first beforeEach on`)
      return Reflect.get(present.world, name)
    },
  })
}

function planWorld({ options, routes, template, documented }: WorldOptions) {
  const database = planDatabase(template)
  const sequelize = database.connect()
  const servers: Server[] = []
  const locks: Lock[] = []

  function createProcess(options: Options = {}, routes?: Routes): Process {
    const statements = recordStatements()
    const apiKeys = createTestApiKeys(database, {
      sequelize: options.sequelize ?? database.connect({ dialectModule: statements.driver }),
      ...options,
    })
    let app: Express | undefined
    let server: Server | undefined

    function makeApp() {
      return (app ??= createTestApp(apiKeys, (app) => routes?.(app, apiKeys)))
    }

    return {
      apiKeys,
      statements,
      get app() {
        return makeApp()
      },
      http: createHttp(
        () => {
          if (!server) {
            server = makeApp().listen(0)
            servers.push(server)
          }
          return server
        },
        documented && checkAnswers(() => apiKeys.openApi(documented)),
      ),
      async createKey({ status, ...wishes } = {}) {
        const { apiKey: created, plainTextKey } = await apiKeys.create(newKey(wishes))
        const { id, userId } = created
        const apiKey = await bringInto(status, created, apiKeys)
        return { id, userId, plainTextKey, apiKey, path: `/api-keys/${id}` }
      },
    }
  }

  const world: World = Object.assign(createProcess(options, routes), {
    database,
    sequelize,
    createProcess,
    rows: <Row extends object>(sql: string, bind?: unknown[]) =>
      sequelize.query<Row>(sql, { type: QueryTypes.SELECT, ...(bind && { bind }) }),
    async holdLock(sql: string) {
      const transaction = await sequelize.transaction()
      let isHeld = true
      const lock: Lock = {
        waitedFor: () => findBlockedSession(sequelize),
        async release() {
          if (isHeld) await transaction.rollback()
          isHeld = false
        },
      }
      locks.push(lock)
      await sequelize.query(sql, { transaction })
      return lock
    },
  })

  async function remove() {
    for (const lock of locks) await lock.release()
    for (const server of servers) server.close()
    await database.drop()
  }

  return { world, remove }
}
