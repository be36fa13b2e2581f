import { setTimeout as sleep } from 'node:timers/promises'

import type { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { countDeadlocks } from './deadlocks'
import { createCleanup, monotonicMs } from './waiting'

const cleanup = createCleanup()
const users = { table: 'users', column: 'id', type: 'text' } as const
const userCount = 20

/** How often each part of an app that deletes users and keys works beside the others. */
const repetitions = 40

let database: Database
let sequelize: Sequelize
/** Processes with pools of their own. */
let processes: TestApiKeys[]

beforeEach(async () => {
  database = await createDatabase('empty')
  cleanup.defer(() => database.drop())
  sequelize = database.connect({ pool: { max: 30 } })
  await sequelize.query('CREATE TABLE users (id text PRIMARY KEY)')
  await sequelize.query(
    `INSERT INTO users SELECT 'user ' || n FROM generate_series(1, ${userCount}) AS n`,
  )
  processes = each(4, () => connect())
  await processes[0]?.migrate()
})

afterEach(() => cleanup.run())

function connect(options = {}) {
  return createTestApiKeys(database, {
    users,
    sequelize: database.connect({ pool: { max: 10, acquire: 30_000 } }),
    ...options,
  })
}

function each<Result>(count: number, work: (number: number) => Result) {
  return Array.from({ length: count }, (_, index) => work(index + 1))
}

const process = (number: number) => processes[number % processes.length] ?? connect()

const create = (number: number, userId = `user ${(number % userCount) + 1}`) =>
  process(number).create(newKey({ userId }))

const someUser = () => `user ${Math.ceil(Math.random() * userCount)}`

/** Works in a transaction of the app. */
async function inOwn(work: (sql: (text: string) => Promise<unknown>) => Promise<unknown>) {
  await sequelize.transaction((transaction) =>
    work((text) => sequelize.query(text, { transaction })),
  )
}

/** The refusals that are due if users and keys are deleted meanwhile. */
const refusals = new Set([
  'invalid_input',
  'api_key_not_found',
  'api_key_revoked',
  'too_many_api_keys',
])

/** Notes how long a call takes. */
async function measured<Result>(all: number[], work: () => Promise<Result>): Promise<Result> {
  const startedAt = monotonicMs()
  const result = await work()
  all.push(monotonicMs() - startedAt)
  return result
}

describe('keys of one user that are created by four processes on 40 connections', () => {
  it('are exactly 1,000 of 1,200', async () => {
    const results = await Promise.allSettled(each(1_200, (number) => create(number, 'user 1')))

    const refusals = results.flatMap((each) =>
      each.status === 'rejected' ? [each.reason.code] : [],
    )
    expect(refusals).toEqual(each(200, () => 'too_many_api_keys'))
    const [rows] = await sequelize.query('SELECT count(*)::int FROM api_keys')
    expect(rows).toEqual([{ count: 1_000 }])
    expect(await process(0).verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 1_000 })
  })
})

describe('a user whom the app holds', () => {
  it('holds up no other user, while 16 callers create and four processes revoke', async () => {
    const controlMs: number[] = []
    const keys = await Promise.all(
      each(200, (number) => measured(controlMs, () => create(number, 'user 2'))),
    )
    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM users WHERE id = 'user 1'`, { transaction })
    const held = each(4, (number) =>
      create(number, 'user 1').then(
        () => 'created',
        (error: { code: string }) => error.code,
      ),
    )
    const waits: number[] = []

    await Promise.all([
      ...each(16, async (caller) => {
        for (let time = 0; time < 20; time++) {
          await measured(waits, () => create(caller, `user ${(caller % 18) + 3}`))
        }
      }),
      ...keys.map(({ apiKey }, index) => measured(waits, () => process(index).revoke(apiKey.id))),
    ])
    await transaction.rollback()

    const limitMs = 2_000 + 3 * Math.max(...controlMs)
    const slow = waits.filter((ms) => ms > limitMs)
    expect(slow).toEqual([])
    expect(new Set(await Promise.all(held))).toEqual(new Set(['created']))
  })
})

describe('an app that deletes keys and users', () => {
  it('meets no deadlock beside changes, creations, revokeAll and revokeMany', async () => {
    await Promise.all(each(400, (number) => create(number)))
    const failures: unknown[] = []
    const times: number[] = []
    // All go on until the slowest of them has met the others often.
    const isOver = () => Math.min(...times) >= repetitions
    async function repeat(work: (time: number) => Promise<unknown>) {
      const own = times.push(0) - 1
      for (let time = 0; !isOver(); times[own] = ++time) {
        await work(time).catch((error: { code?: string }) => {
          if (!refusals.has(String(error.code))) failures.push(error)
        })
      }
    }
    const work = [
      // The app, in one session, which does not meet itself: a user with all keys, keys in reverse, and both.
      repeat((time) =>
        inOwn(async (sql) => {
          const user = someUser()
          if (time % 3 > 0) {
            await sql(
              `DELETE FROM api_keys WHERE id IN (
                 SELECT id FROM api_keys WHERE user_id = '${user}' ORDER BY id DESC LIMIT 5 FOR UPDATE
               )`,
            )
            await sleep(2)
          }
          if (time % 3 < 2) await sql(`DELETE FROM users WHERE id = '${user}'`)
        }),
      ),
      repeat(() =>
        sequelize.query(
          `INSERT INTO users SELECT 'user ' || n FROM generate_series(1, ${userCount}) AS n ON CONFLICT DO NOTHING`,
        ),
      ),
      ...each(4, (number) => repeat(() => create(number, someUser()))),
      ...each(2, (number) =>
        repeat(() => process(number).revokeAll({ type: 'user', id: someUser() })),
      ),
      repeat(() => process(1).revokeMany({ owner: { type: 'user', id: someUser() } })),
      ...each(4, (number) =>
        repeat(async () => {
          const { apiKeys } = await process(number).list({ limit: 10, status: 'ACTIVE' })
          await Promise.allSettled(
            apiKeys.map(({ id }, index) =>
              index % 2 === 0
                ? process(number).update(id, { name: `${number} ${index}` })
                : process(number).revoke(id),
            ),
          )
        }),
      ),
    ]
    await Promise.all(work)

    expect(failures).toEqual([])
    expect(await process(0).verifyAuditTrail()).toMatchObject({ isIntact: true })
    expect(await countDeadlocks(database)).toBe(0)
  })
})
