import { contentSql, readContent, toRow, type Content } from '../../lib/audit/entry'
import { createSigner } from '../../lib/audit/signing'
import { insertEntriesSql } from '../../models/api-key-event'
import { tablesOf } from '../../models/tables'
import { setClock } from '../support/clock'
import { createKey, newKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const { apiKeys, sequelize, rows, meddle, sealAll, expectFaults, holdLock, createOf } = useTrail()

const signer = createSigner({ secrets: [secret], acceptUnkeyed: false })
const hourMs = 3_600_000

/**
 * Puts back a key with the genuine entry of its creation, after both were pruned: the entry that the library signed at a time, or
 * with another time than it signed.
 */
async function putBack({ at, claimed = at }: { at: number; claimed?: number }) {
  await createKey(apiKeys)
  await sealAll()
  const [row] = await rows<{ content: Content }>(
    `SELECT ${contentSql('event')} AS content FROM api_key_events AS event`,
  )
  const signed = toRow(signer, readContent(row?.content ?? []), at)
  const entryMac = signed.entry_mac.replace(`:${at}:`, `:${claimed}:`)
  await meddle(`
    CREATE TABLE kept_key AS SELECT * FROM api_keys;
    TRUNCATE api_keys, api_key_events, api_key_event_seals, api_key_unsealed_events;
    DELETE FROM api_key_audit_head; INSERT INTO api_key_audit_head DEFAULT VALUES`)
  await createKey(apiKeys, { userId: 'bob' })
  await sealAll()

  await sequelize.transaction(async (transaction) => {
    const clauses = 'FROM json_populate_record(NULL::api_key_events, $1::json) AS entry'
    const bind = [JSON.stringify({ ...signed, entry_mac: entryMac })]
    await sequelize.query(insertEntriesSql(tablesOf('public'), clauses), { bind, transaction })
    await sequelize.query('INSERT INTO api_keys SELECT * FROM kept_key', { transaction })
  })
  await sealAll()
}

describe('verifyAuditTrail, of a genuine entry that was put back', () => {
  it.each([
    ['that is days old', -72 * hourMs],
    ['that is from the future', hourMs],
  ])('finds an entry %s', async (_, ageMs) => {
    await putBack({ at: Date.now() + ageMs })

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toMatchObject([
      {
        kind: 'inserted',
        position: 2,
        message: expect.stringMatching(/^The entry was signed long/),
      },
    ])
  })

  it('finds an entry that claims to be of now', async () => {
    await putBack({ at: Date.now() - 72 * hourMs, claimed: Date.now() })

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toMatchObject([
      { kind: 'inserted', position: 2, message: 'The library did not write the entry.' },
    ])
  })

  it('accepts an entry whose transaction was open for less than a day', async () => {
    await putBack({ at: Date.now() - 23 * hourMs })

    await expectFaults()
  })
})

describe('verifyAuditTrail, of entries that waited for weeks until a process sealed them', () => {
  it('accepts their times', async () => {
    const head = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
    const ended = createOf({ secrets: [secret] })
    setClock(new Date(Date.now() - 21 * 24 * hourMs))
    for (const userId of ['alice', 'bob', 'carol']) await createKey(ended, { userId })
    // It cannot seal before it ends.
    await ended.close()
    jest.useRealTimers()
    await head.release()
    expect(await rows('SELECT FROM api_key_unsealed_events')).toHaveLength(3)

    await createKey(apiKeys, { userId: 'dave' })

    await expectFaults()
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ entries: 4 })
  })
})

/** Has 1,200 entries wait for weeks until a process seals them, in three pages. */
async function sealAfterWeeks() {
  const head = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
  const ended = createOf({ secrets: [secret], maxKeysPerOwner: Infinity })
  setClock(new Date(Date.now() - 21 * 24 * hourMs))
  await ended.createMany(Array.from({ length: 1_200 }, () => newKey({ userId: 'bob' })))
  await ended.close()
  jest.useRealTimers()
  await head.release()
  await createKey(apiKeys)
  await sealAll()
}

describe('verifyAuditTrail, of more entries than are sealed at a time, which waited for weeks', () => {
  it('accepts their times, although the first of them were sealed a moment earlier', async () => {
    await sealAfterWeeks()

    await expectFaults()
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ entries: 1_201 })
    const pages = await rows('SELECT FROM api_key_event_seals GROUP BY sealed_at')
    expect(pages.length).toBeGreaterThan(2)
  })

  it('finds an entry of that time that is sealed behind them', async () => {
    await sealAfterWeeks()
    const late = createOf({ secrets: [secret] })
    setClock(new Date(Date.now() - 21 * 24 * hourMs))
    await createKey(late)
    jest.useRealTimers()
    await sealAll()

    await expectFaults(['inserted', 1_202])
  })
})

describe('verifyAuditTrail, of the first entry after days without any process', () => {
  it('accepts its time', async () => {
    await createKey(apiKeys)
    await sealAll()
    await meddle(`
      UPDATE api_key_event_seals SET sealed_at = sealed_at + interval '3 days' WHERE position = 1`)

    // The time of the seal was edited, and the entry is not out of time.
    await expectFaults(['edited', 1])
  })
})
