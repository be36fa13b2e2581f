import { jsonLines, useCli } from '../support/cli'
import { listTables } from '../support/tables'

describe('migrate', () => {
  const { cli, startCli, rows, holdLock } = useCli({ template: 'empty' })

  it('prints the SQL of a dry run, which makes the same, and changes nothing', async () => {
    const [text, json] = await Promise.all([
      cli(['migrate', '--dry-run']),
      cli(['migrate', '--dry-run', '--json']),
    ])

    expect(text).toMatchObject({ code: 0, stderr: '' })
    expect(text.stdout).toContain('CREATE TABLE')
    expect(jsonLines<{ sql: string }>(json.stdout).length).toBeGreaterThan(3)
    expect(await listTables({ rows })).toEqual([])

    // A program of the operator's may run the text.
    await rows(`BEGIN; ${text.stdout}; COMMIT`)
    expect(await cli(['migrate', '--dry-run'])).toEqual({
      code: 0,
      stdout: '',
      stderr: 'The tables are up to date.\n',
    })
  })

  it('ends at Ctrl-C, and goes on when it is begun again', async () => {
    const lock = await holdLock(
      `SELECT pg_advisory_xact_lock(hashtextextended('express-api-keys migrations public', 0))`,
    )
    const { kill, closed, isBlocked } = startCli(['migrate'])
    await isBlocked()

    kill('SIGINT')
    expect(await closed).toBe(130)
    await lock.release()

    expect(await cli(['migrate'])).toEqual({
      code: 0,
      stdout: 'tables  up to date\n',
      stderr: '',
    })
  })
})

describe('prune', () => {
  const { cli, terminal, createKey, rows, apiKeys } = useCli()

  async function createOldRevokedKey() {
    const { id } = await createKey({ status: 'REVOKED' })
    await rows(
      `UPDATE api_keys SET created_at = '2019-01-01Z', revoked_at = '2020-01-01Z' WHERE id = $1`,
      [id],
    )
    return id
  }

  it('counts in a dry run, asks, and deletes', async () => {
    const id = await createOldRevokedKey()
    const args = ['prune', '--revoked-keys', '90', '--usage', '400']

    const dry = await cli([...args, '--dry-run', '--json'])
    const refused = await cli(args)
    const there = await apiKeys.get(id)
    const command = terminal(args)
    await command.shows('Delete 1 revoked keys, 0 hours of usage? [y/N]')
    command.type('y\r')
    const { code } = await command.ended()

    expect(jsonLines(dry.stdout)).toEqual([{ revokedKeys: 1, usage: 0 }])
    expect(refused.code).toBe(5)
    expect(there).toMatchObject({ status: 'REVOKED' })
    expect(code).toBe(0)
    await expect(apiKeys.get(id)).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it('asks nothing if there is nothing to delete', async () => {
    const { code, stdout } = await cli(['prune', '--revoked-keys', '90', '--json'])

    expect({ code, printed: jsonLines(stdout) }).toEqual({ code: 0, printed: [{ revokedKeys: 0 }] })
  })

  it('needs to be told what, and how old', async () => {
    const [nothing, zero] = await Promise.all([
      cli(['prune', '--yes']),
      cli(['prune', '--usage', '0', '--yes']),
    ])

    expect(nothing).toMatchObject({ code: 2, stderr: expect.stringContaining('--events DAYS') })
    expect(zero).toMatchObject({ code: 2, stderr: expect.stringContaining('olderThanDays') })
  })
})
