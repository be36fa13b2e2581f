import type { InvalidInputError } from '../../lib'
import { createKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const { apiKeys, database, sequelize, sealAll, meddle, createOf } = useTrail()

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

/** Verifies a trail of more than two pages, and returns the rises of its progress, and the most calls in one turn of the event loop. */
async function watchProgress(isIntact: boolean) {
  let turn = 0
  const countTurns = () => {
    turn++
    counting = setImmediate(countTurns)
  }
  let counting = setImmediate(countTurns)
  const steps: { verified: number; total: number; turn: number }[] = []

  const result = await apiKeys.verifyAuditTrail({
    onProgress: (progress) => void steps.push({ ...progress, turn }),
  })
  clearImmediate(counting)

  expect(result).toMatchObject({ isIntact, entries: 9_001 })
  expect(new Set(steps.map(({ total }) => total))).toEqual(new Set([9_001]))
  const verified = [0, ...steps.map((step) => step.verified)]
  expect(verified.at(-1)).toBe(9_001)
  const rises = verified.slice(1).map((value, index) => value - Number(verified[index]))
  expect(Math.min(...rises)).toBeGreaterThanOrEqual(0)
  const callsIn = (one: number) => steps.filter((step) => step.turn === one).length
  return { rises, mostCalls: Math.max(...steps.map((step) => callsIn(step.turn))) }
}

describe('verifyAuditTrail, of a long trail', () => {
  it('holds 4,000 rows of a table at a time', async () => {
    await makeEntries(9_000)
    // So each seal and each key is read.
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #2`)
    let most = 0
    const sequelize = connectCounting((rows) => {
      most = Math.max(most, rows)
    })

    expect(await createOf({ sequelize, secrets: [secret] }).verifyAuditTrail()).toMatchObject({
      isIntact: false,
      entries: 9_001,
    })

    expect(most).toBe(4_000)
  })

  it('reports its progress, and lets other requests have their turn after 4,000 seals that have not changed', async () => {
    await makeEntries(9_000)

    const { rises, mostCalls } = await watchProgress(true)

    expect(Math.max(...rises)).toBeLessThanOrEqual(4_000)
    expect(rises.length).toBeGreaterThanOrEqual(3)
    expect(mostCalls).toBeLessThanOrEqual(3)
  })

  it('reports its progress, and lets other requests have their turn after 500 rows that it reads one by one', async () => {
    await makeEntries(9_000)
    await meddle('UPDATE api_key_event_seals SET block_digest = NULL')

    const { rises, mostCalls } = await watchProgress(false)

    expect(Math.max(...rises)).toBeLessThanOrEqual(500)
    expect(mostCalls).toBeLessThanOrEqual(3)
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
