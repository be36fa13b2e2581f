import type { Options } from 'sequelize'

import { findBlockedSession } from '../support/blocked'
import { createKey } from '../support/keys'
import { secret, shown, useTrail } from '../support/trail'
import { until } from '../support/until'

const { apiKeys, database, sequelize, rows, makeTrail, sealAll, meddle, createOf, holdLock } =
  useTrail()

/** Parts of the statements that export a snapshot and join it, that read the blocks of seals, and that find the keys to compare. */
const [exports, joins, blocks, suspects] = [
  'pg_export_snapshot',
  'SET TRANSACTION SNAPSHOT',
  'AS seals_digest',
  'AS story',
]

/**
 * Makes an instance whose statements are recorded. A function may hold them up, fail, or return another text, before they are sent. The
 * pool has room for a second connection, unless the options say otherwise.
 */
function createInstance(before: (sql: string) => unknown = () => {}, options: Options = {}) {
  const texts: string[] = []
  const count = (part: string) => texts.filter((text) => text.includes(part)).length
  const own = database.connect(options)
  own.addHook('afterConnect', (connection) => {
    const client = connection as { query(...call: unknown[]): unknown }
    const query = client.query.bind(client)
    client.query = (...call) => {
      const [text, answer] = [call[0], call.at(-1)]
      if (typeof text !== 'string' || typeof answer !== 'function') return query(...call)
      texts.push(text)
      return Promise.resolve(text)
        .then(before)
        .then(
          (other) => void query(typeof other === 'string' ? other : text, ...call.slice(1)),
          (error: unknown) => void answer(error),
        )
    }
  })
  return { instance: createOf({ sequelize: own, secrets: [secret] }), own, count }
}

/** Makes an instance whose seals are read once the second connection has been asked for keys. */
function createPatient(before: (sql: string) => unknown = () => {}) {
  const patient = createInstance(async (sql) => {
    if (sql.includes(blocks)) await until(() => patient.count(suspects) > 0)
    return before(sql)
  })
  return patient
}

describe('verifyAuditTrail, with a connection to spare', () => {
  it('compares keys there, once', async () => {
    await makeTrail()
    const { instance, count } = createPatient()

    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true })

    expect([joins, suspects].map(count)).toEqual([1, 1])
  })

  it('finds a changed key', async () => {
    await makeTrail()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    const { instance, count } = createPatient()

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([joins, suspects].map(count)).toEqual([1, 1])
  })

  it('reads the same snapshot there', async () => {
    await createKey(apiKeys)
    await sealAll()
    const { instance, count } = createPatient(async (sql) => {
      if (sql.includes(joins)) await meddle(`UPDATE api_keys SET name = 'Mine'`)
    })

    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true })

    expect([joins, suspects].map(count)).toEqual([1, 1])
    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: false })
  })

  it('takes no answer from another snapshot', async () => {
    await createKey(apiKeys, { name: 'Deployment' })
    await sealAll()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    const { instance, count } = createInstance(async (sql) => {
      if (sql.includes(blocks)) await until(() => count('pg_backend_pid()') > 0)
      if (!sql.includes(joins)) return sql
      await meddle(`UPDATE api_keys SET name = 'Deployment'`)
      return sql.replace(/SET TRANSACTION SNAPSHOT [^;]*;/, '')
    })

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([joins, suspects].map(count)).toEqual([1, 1])
  })

  it('asks again on its first connection if the second fails', async () => {
    await makeTrail()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    const { instance, count } = createPatient((sql) => {
      if (sql.includes(suspects) && count(suspects) === 1)
        throw new Error('The connection is gone.')
    })

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([joins, suspects].map(count)).toEqual([1, 2])
  })

  it('asks again on its first connection if the second waits behind a change of a table that waits for the first', async () => {
    await makeTrail()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    let changed: Promise<unknown> | undefined
    const { instance, count } = createPatient(async (sql) => {
      if (!sql.includes(suspects) || count(suspects) > 1) return
      changed = sequelize.query('BEGIN; LOCK TABLE api_key_events; COMMIT')
      await findBlockedSession(sequelize)
    })

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([joins, suspects].map(count)).toEqual([1, 2])
    await changed
  })

  it('does all on its first connection if the server exports no snapshot', async () => {
    await makeTrail()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    const { instance, count } = createInstance((sql) =>
      sql.replace('pg_export_snapshot()', '1 / 0'),
    )

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([exports, joins, suspects].map(count)).toEqual([1, 0, 1])
  })

  it('ends what runs there if its listener throws', async () => {
    await makeTrail()
    // Only the second connection has come that far.
    const lock = await holdLock('LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE')
    const { instance, count } = createInstance(async (sql) => {
      if (sql.includes(blocks)) await lock.waitedFor()
    })
    const error = new Error('Enough.')

    const verification = instance.verifyAuditTrail({
      onProgress() {
        throw error
      },
    })

    await expect(verification).rejects.toBe(error)
    expect(count(suspects)).toBe(1)
    expect(await rows('SELECT pid FROM pg_locks WHERE NOT granted')).toEqual([])
    await lock.release()
  })
})

describe('verifyAuditTrail, without a connection to spare', () => {
  it.each([1, 2])('takes one of %s', async (max) => {
    await makeTrail()
    await meddle(`UPDATE api_keys SET name = 'Mine'`)
    const { instance, count } = createInstance(() => {}, { pool: { max } })

    const { faults } = await instance.verifyAuditTrail()

    expect(shown(faults)).toEqual([['contradicted', null]])
    expect([exports, suspects].map(count)).toEqual([0, 1])
  })

  it('takes one while the app has all others but one', async () => {
    await makeTrail()
    const { instance, own, count } = createInstance(() => {}, { pool: { max: 4 } })
    const transactions = [await own.transaction(), await own.transaction()]

    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true })

    expect(count(exports)).toBe(0)
    for (const transaction of transactions) await transaction.rollback()
    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true })
    expect(count(exports)).toBe(1)
  })
})
