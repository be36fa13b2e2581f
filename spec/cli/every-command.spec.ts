import { randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'

import { createProgram } from '../../lib/cli/program'
import { useCli } from '../support/cli'

const { together, startCli, cli, write, path, createKey, rows, database, holdLock } = useCli({
  options: 'undoMinutes: 60, imports: [sources.betterAuth()],',
})

const away = 'postgres://nobody@127.0.0.1:1/nothing'

/** Each command, and what it answers while the database is away, and to a role that may only read. */
async function prepare() {
  const [active, suspended, revoked, old] = await Promise.all([
    createKey(),
    createKey({ status: 'SUSPENDED' }),
    createKey({ status: 'REVOKED' }),
    createKey({ status: 'REVOKED' }),
  ])
  await rows(
    `UPDATE api_keys SET created_at = now() - interval '20 days', revoked_at = now() - interval '10 days' WHERE id = $1`,
    [old.id],
  )
  const row = { key: 'RNq5XnsGaRCzii32z37oVVkBXQ2F9Eag8XJ4f6veZUI', referenceId: 'bob' }
  const file = await write('every.jsonl', JSON.stringify(row))
  const files = [path(randomUUID()), path(randomUUID())]
  const [created = '', rotated = ''] = files
  const all: [line: string[], whileAway: number, forReader: number][] = [
    [['migrate'], 4, 0],
    [['prune', '--revoked-keys', '5', '--yes'], 4, 7],
    [['import', file, '--permission', 'READ_GRAPH'], 4, 7],
    [['create', '--user', 'a', '--name', 'n', '-p', 'READ_GRAPH', '--output', created], 4, 7],
    [['list'], 4, 0],
    [['show', active.id], 4, 0],
    [['revoke', active.id, '--yes'], 4, 7],
    [['suspend', active.id, '--yes'], 4, 7],
    [['reactivate', suspended.id], 4, 7],
    [['unrevoke', revoked.id], 4, 7],
    [['rotate', active.id, '--yes', '--output', rotated], 4, 7],
    [['transfer', active.id, '--user', 'zoe', '--yes'], 4, 7],
    [['erase', '--user', 'alice', '--reason', 'x', '--revoke', '--yes'], 4, 7],
    [['usage'], 4, 0],
    [['health'], 1, 0],
    // It registers as a reader of the log of changes, as every process does that verifies keys.
    [['explain'], 4, 7],
    [['scanners', '--for', 'gitleaks'], 0, 0],
    [['audit', 'verify'], 4, 0],
    [['audit', 'export'], 4, 0],
    [['audit', 'head'], 4, 0],
    [['doctor'], 1, 1],
  ]
  return { all, files, active }
}

/** Everything that a command could have changed. */
async function contents() {
  const [row] = await rows<{ text: string }>(
    `SELECT (SELECT json_agg(key ORDER BY key.id) FROM api_keys AS key)::text || (SELECT count(*) FROM api_key_events WHERE action <> 'created') AS text`,
  )
  return row?.text
}

async function areThere(files: readonly string[]) {
  const found = await Promise.allSettled(files.map((file) => stat(file)))
  return found.some(({ status }) => status === 'fulfilled')
}

describe('each command', () => {
  it('is one of these', async () => {
    const { all } = await prepare()

    const names = createProgram('0').commands.map((command) => command.name())
    expect(new Set(all.map(([[name]]) => name))).toEqual(new Set(names))
  })

  it('says that the database is away, and changes nothing', async () => {
    const { all, files, active } = await prepare()
    const before = await contents()

    const results = await together(
      all.map(([line]) => line),
      { env: { DATABASE_URL: away }, input: active.plainTextKey },
    )

    expect(results.map(({ command, exitCode }) => [command, exitCode])).toEqual(
      all.map(([[command], code]) => [command, code]),
    )
    for (const { exitCode, message } of results) {
      expect(message).toMatch(exitCode === 4 ? /ECONNREFUSED/ : /^$/)
    }
    expect(await areThere(files)).toBe(false)
    expect(await contents()).toBe(before)
  })

  it('names the right that a reading role lacks, and changes nothing', async () => {
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    const { all, files, active } = await prepare()
    await rows(
      `CREATE ROLE ${role} LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`,
    )
    const url = new URL(database.url)
    Object.assign(url, { username: role, password: 'x' })
    const before = await contents()

    const results = await together(
      all.map(([line]) => line),
      { env: { DATABASE_URL: url.href }, input: active.plainTextKey },
    )
    const after = await contents()
    await rows(`DROP OWNED BY ${role}; DROP ROLE ${role}`)

    expect(results.map(({ command, exitCode }) => [command, exitCode])).toEqual(
      all.map(([[command], , code]) => [command, code]),
    )
    for (const { exitCode, message } of results) {
      expect(message).toMatch(
        exitCode === 7 ? /permission denied for .*doctor, which names the GRANT/ : /^$/,
      )
    }
    expect(await areThere(files)).toBe(false)
    expect(after).toBe(before)
  })

  it('changes nothing at Ctrl-C, and goes on when it is begun again', async () => {
    const [revoked, rotated] = await Promise.all([createKey(), createKey()])
    const file = path('interrupted-rotation')
    const lines = [
      ['revoke', revoked.id, '--yes'],
      ['rotate', rotated.id, '--yes', '--output', file],
    ]
    const before = await contents()
    const lock = await holdLock('LOCK TABLE api_keys')

    const started = lines.map((line) => startCli(line))
    await Promise.all(started.map(({ isBlocked }) => isBlocked()))
    for (const { kill } of started) kill('SIGINT')
    const codes = await Promise.all(started.map(({ closed }) => closed))
    const isThere = await areThere([file])
    await lock.release()
    const after = await contents()
    const again = await Promise.all(lines.map((line) => cli(line)))

    expect(codes).toEqual([130, 130])
    expect(isThere).toBe(false)
    expect(after).toBe(before)
    expect(again.map(({ code }) => code)).toEqual([0, 0])
    expect(await readFile(file, 'utf8')).toMatch(/^agpt_/)
  })
})
