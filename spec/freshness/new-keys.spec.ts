import { randomUUID } from 'node:crypto'

import type { Transaction } from 'sequelize'

import { createSecretFormat } from '../../lib/keys/secret'
import type { Options, TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { expectSoon, revokeSql } from '../support/log'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach()
const format = createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false })

/** So long that a new key can only be accepted because of a report of the log, or of the process itself. */
const maxStalenessMs = 600_000

/** A process that follows the log, and is notified. */
async function startProcess(options: Options = {}) {
  const process = world.createProcess({ maxStalenessMs, ...options })
  const { plainTextKey } = await world.createKey()
  await process.apiKeys.verify(plainTextKey)
  const listener = options.listen === false ? 'off' : 'up'
  await until(async () => (await process.apiKeys.health()).listener === listener)
  return process
}

/** Lets a process look up a key that does not exist yet. */
async function lookFor(plainTextKey: string, ...processes: TestApiKeys[]) {
  for (const apiKeys of processes) {
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
  }
}

async function expectAccepted(apiKeys: TestApiKeys, plainTextKey: string) {
  await until(async () => (await apiKeys.verify(plainTextKey)).valid)
}

async function run(sql: string, transaction?: Transaction) {
  await world.sequelize.query(sql, { transaction: transaction ?? null })
}

/**
 * Returns a statement that inserts a key by hand, or like the library, with the reference of its entry in the audit
 * trail.
 */
function insertSql(
  hash: string,
  { id = randomUUID(), ref = 'NULL' }: { id?: string; ref?: string } = {},
) {
  return `INSERT INTO api_keys (id, user_id, name, prefix, postfix, hash, permissions, event_ref)
          VALUES ('${id}', 'alice', 'By hand', 'agpt_000000', '00000000', '${hash}', '{READ_GRAPH}', ${ref})`
}

async function readChanges() {
  return world.rows<{ key: string | null; isNew: boolean }>(
    `SELECT change.key_id::text AS key, change.is_new AS "isNew"
       FROM api_key_changes AS change JOIN api_key_revisions AS entry USING (mark)
      ORDER BY entry.revision, change.place`,
  )
}

const added = { key: null, isNew: true }

describe('a key that the library creates', () => {
  it('leaves no entry in the log', async () => {
    const { apiKeys } = world
    const before = await world.rows('SELECT FROM api_key_revisions')

    await apiKeys.create(newKey())
    await world.sequelize.transaction((transaction) => apiKeys.create(newKey(), { transaction }))

    expect(await world.rows('SELECT FROM api_key_revisions')).toEqual(before)
    expect(await readChanges()).toEqual([])
  })

  it('is accepted at once by its process just after a look-up of it', async () => {
    const { apiKeys } = await startProcess({ listen: false })
    const transaction = await world.sequelize.transaction()
    const { plainTextKey } = await apiKeys.create(newKey(), { transaction })
    await lookFor(plainTextKey, apiKeys)

    await transaction.commit()

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('is accepted at once by its process during a look-up of it', async () => {
    const { apiKeys, statements } = await startProcess({ listen: false })
    const transaction = await world.sequelize.transaction()
    const { plainTextKey } = await apiKeys.create(newKey(), { transaction })
    const held = statements.holdLookUps()
    const verdict = apiKeys.verify(plainTextKey)
    await held

    await transaction.commit()
    statements.letGo()

    expect(await verdict).toMatchObject({ valid: true })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('is still unknown to its process if its transaction is rolled back', async () => {
    const { apiKeys, statements } = await startProcess({ listen: false })
    const transaction = await world.sequelize.transaction()
    const { plainTextKey } = await apiKeys.create(newKey(), { transaction })
    await lookFor(plainTextKey, apiKeys)
    const lookUps = statements.lookUps().length

    await transaction.rollback()

    await lookFor(plainTextKey, apiKeys)
    expect(statements.lookUps()).toHaveLength(lookUps)
  })

  it('is accepted within the bound by other processes that have looked it up', async () => {
    const [{ apiKeys: maker }, { apiKeys: other }] = [
      await startProcess(),
      await startProcess({ maxStalenessMs: 300, listen: false }),
    ]
    const transaction = await world.sequelize.transaction()
    const { plainTextKey } = await maker.create(newKey(), { transaction })
    await lookFor(plainTextKey, other)

    await transaction.commit()

    await expectAccepted(other, plainTextKey)
  })

  it('is accepted within the bound by a process whose look-up was slow', async () => {
    const [{ apiKeys: maker }, { apiKeys: other, statements }] = [
      await startProcess(),
      await startProcess({ maxStalenessMs: 600, listen: false }),
    ]
    const transaction = await world.sequelize.transaction()
    const { plainTextKey } = await maker.create(newKey(), { transaction })
    const held = statements.holdLookUps()
    const verdict = other.verify(plainTextKey)
    await held

    await transaction.commit()
    // It is half of the bound until the next poll but one.
    const polls = statements.polls().length
    await until(() => statements.polls().length > polls)
    statements.letGo()

    await verdict
    await expectAccepted(other, plainTextKey)
  })

  it('is revoked everywhere if it is revoked in the same transaction', async () => {
    const [{ apiKeys: maker }, { apiKeys: other }] = [await startProcess(), await startProcess()]
    const transaction = await world.sequelize.transaction()
    const { apiKey, plainTextKey } = await maker.create(newKey(), { transaction })
    await lookFor(plainTextKey, maker)

    await maker.revoke(apiKey.id, { transaction })
    await transaction.commit()

    for (const process of [maker, other]) {
      expect(await process.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    }
    expect(await readChanges()).toEqual([{ key: apiKey.id, isNew: false }])
  })

  it('outlives a crash of the server, with every setting of the app', async () => {
    const transaction = await world.sequelize.transaction()
    await run('SET LOCAL synchronous_commit = off', transaction)

    await world.apiKeys.create(newKey(), { transaction })

    const [settings] = await world.sequelize.query(
      `SELECT current_setting('synchronous_commit') AS kept`,
      { transaction },
    )
    await transaction.rollback()
    expect(settings).toEqual([{ kept: 'on' }])
  })
})

describe('a key that SQL inserts', () => {
  it('is accepted at once by processes that have looked it up', async () => {
    const { apiKeys } = await startProcess()
    const { plainTextKey, hash } = format.mint('agpt')
    await lookFor(plainTextKey, apiKeys)

    await run(insertSql(hash))

    await expectAccepted(apiKeys, plainTextKey)
  })

  it('evicts no cached key, and is one change with all other inserts of its transaction', async () => {
    const { apiKeys } = await startProcess()
    const { misses } = (await apiKeys.health()).cache

    await run(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'many', 'Bulk', 'agpt_000000', '00000000', md5(n::text) || md5(n::text), '{READ_GRAPH}'
         FROM generate_series(1, 10001) AS n`,
    )
    const { plainTextKey, hash } = format.mint('agpt')
    await run(insertSql(hash))
    await expectAccepted(apiKeys, plainTextKey)

    expect(await readChanges()).toEqual([added, added])
    expect((await apiKeys.health()).cache).toMatchObject({ keys: 2, misses: misses + 1 })
  })

  it('is a change of its own behind a savepoint that was rolled back, and behind a number', async () => {
    const [first, second, third] = [format.mint('agpt'), format.mint('agpt'), format.mint('agpt')]

    await world.sequelize.transaction(async (transaction) => {
      await run('SAVEPOINT undone', transaction)
      await run(insertSql(first.hash), transaction)
      await run('ROLLBACK TO SAVEPOINT undone', transaction)
      await run(insertSql(second.hash), transaction)
      await run('SET CONSTRAINTS ALL IMMEDIATE', transaction)
      await run(insertSql(third.hash), transaction)
    })

    expect(await readChanges()).toEqual([added, added])
  })

  it('is accepted within the bound if it claims to be of the library', async () => {
    const { apiKeys } = await startProcess({ maxStalenessMs: 300, listen: false })
    const { plainTextKey, hash } = format.mint('agpt')
    await lookFor(plainTextKey, apiKeys)

    await run(insertSql(hash, { ref: 'gen_random_uuid()' }))

    await expectAccepted(apiKeys, plainTextKey)
    expect(await readChanges()).toEqual([])
  })
})

describe('the hash of a key', () => {
  it('is accepted at once if an UPDATE gives it to a key, and the hash before is refused', async () => {
    const { apiKeys } = await startProcess()
    const { apiKey, plainTextKey: old } = await world.apiKeys.create(newKey())
    const { plainTextKey, hash } = format.mint('agpt')
    await expectAccepted(apiKeys, old)
    await lookFor(plainTextKey, apiKeys)

    await run(`UPDATE api_keys SET hash = '${hash}' WHERE id = '${apiKey.id}'`)

    await expectAccepted(apiKeys, plainTextKey)
    await expectSoon(apiKeys, old, 'unknown')
  })

  it('is accepted at once if INSERT with ON CONFLICT gives it to a key', async () => {
    const { apiKeys } = await startProcess()
    const { apiKey, plainTextKey: old } = await world.apiKeys.create(newKey())
    const { plainTextKey, hash } = format.mint('agpt')
    await expectAccepted(apiKeys, old)
    await lookFor(plainTextKey, apiKeys)

    await run(
      `${insertSql(hash, { id: apiKey.id, ref: 'gen_random_uuid()' })}
       ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, event_ref = excluded.event_ref`,
    )

    await expectAccepted(apiKeys, plainTextKey)
    await expectSoon(apiKeys, old, 'unknown')
  })

  it('is accepted at once if MERGE gives it to a key, or inserts it', async () => {
    const [server] = await world.rows<{ version: number }>(
      `SELECT current_setting('server_version_num')::int AS version`,
    )
    // There is no MERGE before.
    if (Number(server?.version) < 150_000) return
    const { apiKeys } = await startProcess()
    const { apiKey, plainTextKey: old } = await world.apiKeys.create(newKey())
    const [exchanged, inserted] = [format.mint('agpt'), format.mint('agpt')]
    await expectAccepted(apiKeys, old)
    await lookFor(exchanged.plainTextKey, apiKeys)
    await lookFor(inserted.plainTextKey, apiKeys)

    await run(
      `MERGE INTO api_keys AS key
         USING (VALUES ('${apiKey.id}'::uuid, '${exchanged.hash}'), ('${randomUUID()}', '${inserted.hash}')) AS new (id, hash)
            ON key.id = new.id
          WHEN MATCHED THEN UPDATE SET hash = new.hash
          WHEN NOT MATCHED THEN INSERT (id, user_id, name, prefix, postfix, hash, permissions)
               VALUES (new.id, 'alice', 'Merged', 'agpt_000000', '00000000', new.hash, '{READ_GRAPH}')`,
    )

    for (const { plainTextKey } of [exchanged, inserted])
      await expectAccepted(apiKeys, plainTextKey)
    await expectSoon(apiKeys, old, 'unknown')
  })

  it('is refused at once if its key is deleted and inserted again with another hash', async () => {
    const { apiKeys } = await startProcess()
    const { apiKey, plainTextKey: old } = await world.apiKeys.create(newKey())
    const { plainTextKey, hash } = format.mint('agpt')
    await expectAccepted(apiKeys, old)

    await world.sequelize.transaction(async (transaction) => {
      await run(`DELETE FROM api_keys WHERE id = '${apiKey.id}'`, transaction)
      await run(insertSql(hash, { id: apiKey.id, ref: 'gen_random_uuid()' }), transaction)
    })

    await expectSoon(apiKeys, old, 'unknown')
    await expectAccepted(apiKeys, plainTextKey)
    await run(revokeSql(apiKey.id))
    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })

  it('belongs at once to the new key, if its key is deleted and a new key is inserted with it', async () => {
    const { apiKeys } = await startProcess()
    const { plainTextKey, hash } = format.mint('agpt')
    const [before, now] = [randomUUID(), randomUUID()]
    await run(insertSql(hash, { id: before, ref: 'gen_random_uuid()' }))
    await expectAccepted(apiKeys, plainTextKey)

    await world.sequelize.transaction(async (transaction) => {
      await run(`DELETE FROM api_keys WHERE id = '${before}'`, transaction)
      await run(insertSql(hash, { id: now, ref: 'gen_random_uuid()' }), transaction)
    })

    await until(async () => {
      const verdict = await apiKeys.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.id === now
    })
    await run(revokeSql(now))
    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })
})
