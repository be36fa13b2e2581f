import { execFile } from 'node:child_process'
import { join } from 'node:path'

import { createKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'killed.ts')

const { apiKeys, database, sequelize, makeOld } = useTrail()

/** More than two pages of entries. */
const count = 4_500

/** More statements than such a pruning has. */
const mostStatements = 60

/** Prunes in a process that is killed after a number of statements. Returns the way in which the process ended. */
function pruneKilled(statements: number): Promise<string> {
  const change = ['pruneAuditTrail', 'no key', `${statements}`, secret.toString('hex')]
  const args = ['--require', register, program, database.url, ...change]
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, (_, stdout, stderr) => {
      resolve(child.signalCode ?? (stdout || stderr))
    })
  })
}

describe('pruneAuditTrail', () => {
  it('leaves a trail without a fault, whenever its process is killed, and goes on from there', async () => {
    await sequelize.query(`
      ALTER TABLE api_key_events ALTER COLUMN created_at SET DEFAULT clock_timestamp() - interval '400 days';
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'crowd', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, ${count}) AS n`)
    await makeOld(400)
    await createKey(apiKeys, { userId: 'bob' })
    const whole = await apiKeys.verifyAuditTrail()

    const pruned = [whole.pruned]
    let ending: string | undefined
    for (let statements = 1; ending !== 'done'; statements += 2) {
      expect(statements).toBeLessThan(mostStatements)
      ending = await pruneKilled(statements)
      expect(['SIGKILL', 'done']).toContain(ending)
      const trail = await apiKeys.verifyAuditTrail({ head: whole.head ?? undefined })
      expect(trail).toMatchObject({ isIntact: true, faults: [] })
      expect(trail.entries + trail.pruned).toBe(whole.entries)
      pruned.push(trail.pruned)
    }

    expect(pruned).toEqual(pruned.toSorted((a, b) => a - b))
    expect(new Set(pruned).size).toBeGreaterThan(2)
    expect(pruned.at(-1)).toBe(count + 1)
  })
})
