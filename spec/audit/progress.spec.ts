import type { InvalidInputError } from '../../lib'
import { createKey } from '../support/keys'
import { useTrail } from '../support/trail'

const { apiKeys, sequelize, sealAll } = useTrail()

/** Makes keys without the library: triggers write their entries. */
async function makeEntries(count: number) {
  await sequelize.query(`
    INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
    SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
      FROM generate_series(1, ${count}) AS n`)
  await createKey(apiKeys, { userId: 'bob' })
  await sealAll()
}

describe('verifyAuditTrail, of a long trail', () => {
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
    // Each entry is counted once with its seal, and once with its key.
    expect(Math.max(...rises)).toBeLessThanOrEqual(250)
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
