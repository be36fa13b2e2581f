import type { InvalidInputError } from '../../lib'
import { createKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const { apiKeys, database, sequelize, sealAll, createOf } = useTrail()

/** Makes keys without the library: triggers write their entries. */
async function makeEntries(count: number) {
  await sequelize.query(`
    INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
    SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
      FROM generate_series(1, ${count}) AS n`)
  await createKey(apiKeys, { userId: 'bob' })
  await sealAll()
}

type Answer = (error: unknown, result?: { rows: { json?: string | null }[] }) => void

/** Connects so that a function is told how many rows of the trail each statement returns. Some are one text of many rows. */
function connectCounting(note: (rows: number) => void) {
  const counting = database.connect()
  counting.addHook('afterConnect', (connection) => {
    const client = connection as { query(...call: unknown[]): unknown }
    const query = client.query.bind(client)
    client.query = (...call) => {
      const answer = call.at(-1)
      if (typeof answer !== 'function') return query(...call)
      const counted: Answer = (error, result) => {
        const texts = [result ?? []]
          .flat()
          .flatMap(({ rows }) => rows.map(({ json }) => json ?? ''))
        note(texts.reduce((sum, text) => sum + text.split('\u001e').length, 0))
        answer(error, result)
      }
      return query(...call.slice(0, -1), counted)
    }
  })
  return counting
}

describe('verifyAuditTrail, of a long trail', () => {
  it('holds 4,000 rows of a table at a time', async () => {
    await makeEntries(9_000)
    let most = 0
    const sequelize = connectCounting((rows) => {
      most = Math.max(most, rows)
    })

    expect(await createOf({ sequelize, secrets: [secret] }).verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: 9_001,
    })

    expect(most).toBe(4_000)
  })

  it('reports its progress, and lets other requests have their turn after 500 rows', async () => {
    // More than two pages.
    const count = 9_000
    await makeEntries(count)
    let turn = 0
    const countTurns = () => {
      turn++
      counting = setImmediate(countTurns)
    }
    let counting = setImmediate(countTurns)
    const steps: { verified: number; total: number; turn: number }[] = []

    const { isIntact, entries } = await apiKeys.verifyAuditTrail({
      onProgress: (progress) => void steps.push({ ...progress, turn }),
    })
    clearImmediate(counting)

    expect({ isIntact, entries }).toEqual({ isIntact: true, entries: count + 1 })
    expect(new Set(steps.map(({ total }) => total))).toEqual(new Set([entries]))
    const verified = [0, ...steps.map((step) => step.verified)]
    expect(verified.at(-1)).toBe(entries)
    const rises = verified.slice(1).map((value, index) => value - Number(verified[index]))
    expect(Math.min(...rises)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...rises)).toBeLessThanOrEqual(500)
    const callsIn = (one: number) => steps.filter((step) => step.turn === one).length
    expect(Math.max(...steps.map((step) => callsIn(step.turn)))).toBeLessThanOrEqual(3)
  })

  it('ends if its listener throws, and reads no more', async () => {
    await makeEntries(2_000)
    const error = new Error('Enough.')
    const calls: number[] = []

    const verification = apiKeys.verifyAuditTrail({
      onProgress({ verified }) {
        calls.push(verified)
        throw error
      },
    })

    await expect(verification).rejects.toBe(error)
    expect(calls.length).toBeLessThanOrEqual(2)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 2_001 })
  })

  it('refuses a listener that is no function', async () => {
    const error = await apiKeys
      .verifyAuditTrail({ onProgress: 5 as never })
      .catch((reason: InvalidInputError) => reason)

    expect(error).toMatchObject({
      code: 'invalid_input',
      errors: [{ pointer: '#/onProgress', message: 'must be a function' }],
    })
  })
})
