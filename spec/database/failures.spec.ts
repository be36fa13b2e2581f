/** @jest-environment node */
import { randomUUID } from 'node:crypto'
import { inspect } from 'node:util'

import pg, { Client } from 'pg'
import { DatabaseError, Sequelize, UniqueConstraintError } from 'sequelize'

import { ApiKeysError } from '../../lib'
import { onDatabase } from '../../lib/database/failures'
import type { Options, TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { newKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

type Call = (apiKeys: TestApiKeys) => Promise<unknown>

const { database, sequelize, apiKeys, createKey, createProcess, holdLock } = useWorld()
const createInstance = (options?: Options) => createProcess(options).apiKeys
let id: string
let plainTextKey: string

beforeAll(async () => {
  // Sequelize says there that a dead connection cannot roll back.
  jest.spyOn(console, 'warn').mockImplementation()
  ;({ id, plainTextKey } = await createKey())
})

/** Returns the error with which a promise is rejected. */
async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (result) => `no failure, but ${inspect(result)}`,
    (error: unknown) => error,
  )
}

/** Ends the sessions of verification, which are not Sequelize's. */
const endOwnSessions = `
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
   WHERE datname = current_database() AND application_name = 'express-api-keys'`

const endBlockedSessions = `
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
   WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0`

/** Matches any text that could be a stored hash. */
const hash = /[0-9a-f]{64}/

describe('onDatabase', () => {
  const calls: [string, Call][] = [
    ['create', (apiKeys) => apiKeys.create(newKey())],
    ['verify', (apiKeys) => apiKeys.verify(plainTextKey)],
    ['get', (apiKeys) => apiKeys.get(id)],
    ['list', (apiKeys) => apiKeys.list()],
    ['update', (apiKeys) => apiKeys.update(id, { name: randomUUID() })],
    ['setPermissions', (apiKeys) => apiKeys.setPermissions(id, ['READ_BLOCK'])],
    ['suspend', (apiKeys) => apiKeys.suspend(id)],
    ['revokeAll', (apiKeys) => apiKeys.revokeAll({ type: 'user', id: 'alice' })],
    ['events', (apiKeys) => apiKeys.events()],
    ['ownerChanged', (apiKeys) => apiKeys.ownerChanged({ type: 'user', id: 'alice' })],
    ['migrate', (apiKeys) => apiKeys.migrate()],
  ]

  it.each(calls)('reports an outage when %s finds no server', async (name, call) => {
    const nowhere = new Sequelize('postgres://127.0.0.1:1/nowhere', { logging: false })
    const away = createInstance({ sequelize: nowhere })

    const failure = await failureOf(call(away))

    // The error of migrate() says what to do, and never becomes a response.
    expect(failure).toBeInstanceOf(name === 'migrate' ? Error : ApiKeysError)
    expect(failure).toMatchObject({ code: 'database_unavailable', cause: expect.anything() })
    expect(inspect(failure, { depth: 10 })).not.toMatch(hash)
  })

  // Verification asks again: see below.
  it.each(calls.filter(([name]) => !['migrate', 'verify'].includes(name)))(
    'reports an outage when the server ends the session of %s',
    async (_, call) => {
      const lock = await holdLock('LOCK TABLE api_keys, api_key_events, api_key_user_changes')

      let failure: unknown
      void failureOf(call(apiKeys)).then((reason) => {
        failure = reason
      })
      // The session that seals the audit trail may be blocked as well.
      await until(async () => {
        await sequelize.query(endBlockedSessions)
        return failure !== undefined
      })
      await lock.release()

      expect(failure).toMatchObject({
        code: 'database_unavailable',
        cause: expect.any(DatabaseError),
      })
      expect(inspect(failure, { depth: 10 })).not.toMatch(hash)

      // Verification has connections of its own. The pool may still have one that is dead.
      const elsewhere = createInstance()
      await expect(elsewhere.get(id)).resolves.toMatchObject({ id, status: 'ACTIVE' })
    },
  )

  it.each([
    [
      'while nobody uses them',
      async (verdict: () => Promise<unknown>) => {
        await sequelize.query(endOwnSessions)
        return verdict()
      },
    ],
    [
      'while it waits for them',
      async (verdict: () => Promise<unknown>) => {
        const lock = await sequelize.transaction()
        await sequelize.query('LOCK TABLE api_keys', { transaction: lock })
        const outcome = verdict()
        await findBlockedSession(sequelize)
        await sequelize.query(endOwnSessions)
        await lock.rollback()
        return outcome
      },
    ],
  ])(
    'hides from callers that the server has ended the sessions of verify %s',
    async (_, interfere) => {
      const verifier = createInstance()
      await verifier.verify(plainTextKey)
      const { plainTextKey: coldKey } = await apiKeys.create(newKey({ name: randomUUID() }))

      const outcome = await interfere(() => failureOf(verifier.verify(coldKey)))

      expect(outcome).toMatch(/^no failure, but \{\s+valid: true/)
    },
  )

  it('reports an outage when a new connection is lost before Sequelize has set it up', async () => {
    class Lost extends Client {
      override query(...values: unknown[]): never {
        Reflect.get(this, 'connection').stream.destroy()
        return Reflect.apply(super.query, this, values) as never
      }
    }
    const driver = { ...pg, Client: Lost }
    const away = createInstance({ sequelize: database.connect({ dialectModule: driver }) })

    expect(await failureOf(away.create(newKey()))).toMatchObject({ code: 'database_unavailable' })
    expect(await failureOf(away.revokeAll({ type: 'user', id: 'alice' }))).toMatchObject({
      code: 'database_unavailable',
    })
  })

  it('reports an outage when every connection is taken', async () => {
    const busy = database.connect({ pool: { max: 1, acquire: 1_000 } })
    const transaction = await busy.transaction()

    const failure = await failureOf(createInstance({ sequelize: busy }).get(id))
    await transaction.rollback()

    expect(failure).toMatchObject({ code: 'database_unavailable' })
  })

  it.each([
    ['the server ends a statement that takes too long', { statement_timeout: 50 }],
    ['the driver gives up on an answer', { query_timeout: 50 }],
    ['the server gives up on a lock', { options: '-c lock_timeout=50' }],
  ])('reports an outage when %s', async (_, dialectOptions) => {
    const impatient = createInstance({
      sequelize: database.connect({ dialectOptions }),
    })
    const lock = await sequelize.transaction()
    await sequelize.query('LOCK TABLE api_keys', { transaction: lock })

    const failure = await failureOf(impatient.verify(plainTextKey))
    await lock.rollback()

    expect(failure).toMatchObject({ code: 'database_unavailable' })
    expect(inspect(failure, { depth: 10 })).not.toMatch(hash)
  })

  it('reports an outage when the server is a standby that takes no changes', async () => {
    const standby = createInstance({
      sequelize: database.connect({
        dialectOptions: { options: '-c default_transaction_read_only=on' },
      }),
    })

    await expect(standby.get(id)).resolves.toMatchObject({ id })
    await expect(standby.suspend(id)).rejects.toMatchObject({ code: 'database_unavailable' })
  })

  it('passes errors of the app on, unchanged', async () => {
    const failure = new Error('the app’s own')

    expect(await failureOf(onDatabase(() => Promise.reject(failure)))).toBe(failure)
  })

  it('passes errors of the database on if they are no outage', async () => {
    await withinRollback(async (transaction) => {
      await sequelize.query(
        `CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'not on a Sunday'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON api_keys EXECUTE FUNCTION pg_temp.refuse()`,
        { transaction },
      )

      const failure = await failureOf(apiKeys.create(newKey(), { transaction }))

      expect(failure).toBeInstanceOf(DatabaseError)
      expect(failure).toMatchObject({ message: 'not on a Sunday' })
    })
  })

  it.each([
    ['table', 'INSERT INTO log_of_app VALUES (NEW.id)', 'relation "log_of_app" does not exist'],
    ['function', 'PERFORM function_of_app()', 'function function_of_app() does not exist'],
    ['type', `PERFORM 'a'::type_of_app`, 'type "type_of_app" does not exist'],
    ['column', 'PERFORM column_of_app', 'column "column_of_app" does not exist'],
  ])(
    'does not blame the tables for a %s that a trigger of the app misses',
    async (_, sql, words) => {
      await withinRollback(async (transaction) => {
        await sequelize.query(
          `CREATE TABLE log_of_app (id uuid);
         CREATE FUNCTION log_api_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${sql}; RETURN NULL; END $$;
         CREATE TRIGGER log_api_key AFTER INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION log_api_key()`,
          { transaction },
        )

        const failure = await failureOf(apiKeys.create(newKey(), { transaction }))

        expect(failure).toMatchObject({
          message:
            `express-api-keys: a function of your database did not find a name (${words}). The library sets its own search path. ` +
            'So give the functions of your triggers on its tables a SET search_path, or qualify the names in them.',
          cause: expect.any(DatabaseError),
        })
        expect(inspect(failure, { depth: 10 })).not.toMatch(hash)
      })
    },
  )

  it('lets a trigger of the app whose function has a search path write into tables of the app', async () => {
    await withinRollback(async (transaction) => {
      await sequelize.query(
        `CREATE TABLE log_of_app (id uuid);
         CREATE FUNCTION log_api_key() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
           $$ BEGIN INSERT INTO log_of_app VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER log_api_key AFTER INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION log_api_key()`,
        { transaction },
      )

      const { apiKey } = await apiKeys.create(newKey(), { transaction })

      const [logged] = await sequelize.query('SELECT id FROM log_of_app', { transaction })
      expect(logged).toEqual([{ id: apiKey.id }])
    })
  })

  it('does not blame the tables for a table of the app', async () => {
    const failure = await failureOf(onDatabase(() => sequelize.query('SELECT FROM log_of_app')))

    expect(failure).toBeInstanceOf(DatabaseError)
  })

  it.each([
    ['a check', `ALTER TABLE api_keys ADD CHECK (name <> 'Forbidden')`, DatabaseError],
    ['a unique index', 'CREATE UNIQUE INDEX ON api_keys (user_id, name)', UniqueConstraintError],
  ])('keeps the hash out of the error of %s that the app has added', async (_, sql, kind) => {
    await withinRollback(async (transaction) => {
      const key = newKey({ userId: 'bob', name: 'Taken' })
      const bad = newKey({ userId: 'bob', name: sql.includes('Forbidden') ? 'Forbidden' : 'Taken' })
      await apiKeys.create(key, { transaction })
      await sequelize.query(sql, { transaction })

      const failure = await failureOf(apiKeys.create(bad, { transaction }))

      expect(failure).toBeInstanceOf(kind)
      expect(inspect(failure, { depth: 10 })).not.toMatch(hash)
      expect(JSON.stringify(failure)).not.toMatch(hash)
    })
  })

  it('keeps the hash out if the server repeats the parameters of a statement that fails', async () => {
    const talkative = createInstance({
      sequelize: database.connect({
        dialectOptions: { options: '-c log_parameter_max_length_on_error=-1' },
      }),
    })
    await sequelize.query(`CREATE UNIQUE INDEX once ON api_keys (name) WHERE name = 'Once'`)
    await talkative.create(newKey({ name: 'Once' }))

    const failure = await failureOf(talkative.create(newKey({ name: 'Once' })))
    await sequelize.query('DROP INDEX once')

    expect(failure).toBeInstanceOf(UniqueConstraintError)
    expect(inspect(failure, { depth: 10, showHidden: true })).not.toMatch(hash)
    expect(JSON.stringify(failure)).not.toMatch(hash)
  })
})

async function withinRollback(
  work: (transaction: Awaited<ReturnType<Sequelize['transaction']>>) => Promise<void>,
) {
  const transaction = await sequelize.transaction()
  try {
    await work(transaction)
  } finally {
    await transaction.rollback()
  }
}
