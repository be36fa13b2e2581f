import { createHash, randomBytes } from 'node:crypto'
import { readFile, symlink } from 'node:fs/promises'

import { sources, type ImportReport } from '../../lib'
import type { Options } from '../support/app'
import { instanceModule, jsonLines, useCli } from '../support/cli'
import { startProxy } from '../support/proxy'
import { until } from '../support/until'

const { cli, startCli, terminal, write, path, createProcess, rows, holdLock, database } = useCli({
  options: 'imports: [sources.betterAuth()],',
})

/** The report that the command prints and writes. */
type Report = ImportReport & { isComplete: boolean }

/** Makes a key of better-auth, and its row. */
function makeKey(user: string, others: object = {}) {
  const key = Array.from(randomBytes(64), (byte) => String.fromCharCode(97 + (byte % 26))).join('')
  const row = {
    id: randomBytes(8).toString('hex'),
    name: 'From before',
    key: createHash('sha256').update(key).digest('base64url'),
    referenceId: user,
    enabled: true,
    permissions: '{"READ_GRAPH":[]}',
    ...others,
  }
  return { key, row }
}

const permission = ['--permission', 'READ_GRAPH'] as const

function csvOf(list: readonly object[]): string {
  const lines = list.map((row) => Object.values(row).map(cell).join(','))
  return [Object.keys(list[0] ?? {}).join(','), ...lines].join('\r\n')
}

function cell(value: unknown): string {
  return `"${String(value).replaceAll('"', '""')}"`
}

function linesOf(list: readonly object[]): string {
  return list.map((row) => JSON.stringify(row)).join('\n')
}

function reportOf(stdout: string): Report {
  const [report] = jsonLines<Report>(stdout)
  if (!report) throw new Error(`no report: ${stdout}`)
  return report
}

async function countKeys(userId: string) {
  return Number(
    (await rows(`SELECT count(*) FROM api_keys WHERE user_id = $1`, [userId]))[0]?.count,
  )
}

/** Makes a file whose second thousand waits for a lock. */
async function prepareStop(user: string) {
  const list = Array.from({ length: 2_500 }, (_, place) =>
    makeKey(user, { name: place === 1_500 ? 'held' : 'From before' }),
  )
  const file = await write(`${user}.jsonl`, linesOf(list.map(({ row }) => row)))
  await rows(`
    CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
    CREATE TRIGGER pause BEFORE INSERT ON api_keys FOR EACH ROW WHEN (NEW.name = 'held') EXECUTE FUNCTION pause()`)
  const lock = await holdLock('SELECT pg_advisory_xact_lock(4711)')
  return { file, lock, drop: () => rows('DROP FUNCTION pause CASCADE') }
}

describe('import', () => {
  it('imports a CSV file, whose keys then work', async () => {
    const user = 'csv'
    const [one, two] = [makeKey(user), makeKey(user, { enabled: 'false', name: 'Zwei, "drei"' })]
    const file = await write('keys.csv', `\uFEFF${csvOf([one.row, two.row])}\r\n`)

    const { code, stdout } = await cli([
      'import',
      file,
      ...permission,
      '--reason',
      'Moved',
      '--json',
    ])

    const verifier = createProcess({ imports: [sources.betterAuth()] } as Options).apiKeys
    expect(code).toBe(0)
    expect(reportOf(stdout)).toMatchObject({ imported: 2, known: 0, refused: [], isComplete: true })
    expect(await verifier.verify(one.key)).toMatchObject({ valid: true, apiKey: { userId: user } })
    expect(await verifier.verify(two.key)).toMatchObject({ code: 'suspended' })
    const [explained, health, listed] = await Promise.all([
      cli(['explain'], { input: one.key }),
      cli(['health']),
      cli(['list', '--user', user, '--json']),
    ])
    expect(explained.code).toBe(0)
    expect(health.stdout).toMatch(/^keys by source +\d+ of better-auth$/m)
    const [{ id } = { id: '' }] = jsonLines<{ id: string }>(listed.stdout)
    expect((await cli(['show', id])).stdout).toMatch(/^source +better-auth$/m)
    const names = await rows(`SELECT name FROM api_keys WHERE user_id = '${user}' ORDER BY name`)
    expect(names).toEqual([{ name: 'From before' }, { name: 'Zwei, "drei"' }])
    const { events } = await verifier.events({ userId: user })
    expect(events[0]).toMatchObject({ action: 'imported', actorType: 'system', reason: 'Moved' })
    await verifier.close()
  })

  it('imports the rows of a file that can be, and reports the others by their places and ids', async () => {
    const user = 'jsonl'
    const good = [makeKey(user).row, makeKey(user).row]
    const text = [
      linesOf(good.slice(0, 1)),
      'no JSON',
      '{"id":7,"name":"no key"}',
      '',
      `{"id":"${makeKey(user).key}","name":"no key"}`,
      linesOf(good.slice(1)),
    ]
    const file = await write('keys.jsonl', text.join('\n'))
    const report = path('report.json')

    const { code, stdout, stderr } = await cli(['import', file, ...permission, '--report', report])

    expect(code).toBe(1)
    expect(stdout).toMatch(/^imported +2\nknown +0\nchanged +0\nrefused +3\n$/)
    expect(stderr).toContain('row 1 was refused: # must be an object\n')
    const fault = '#/key is missing: the row has id, name'
    expect(stderr).toContain(`2 rows, row 2 (id 7) first, were refused: ${fault}\n`)
    const written = JSON.parse(await readFile(report, 'utf8')) as Report
    expect(written.refused).toMatchObject([
      { row: 1, id: null },
      { row: 2, id: '7' },
      // A table may have the keys themselves as ids.
      { row: 3, id: null },
    ])
    expect(await countKeys(user)).toBe(2)
  })

  it('says that a report has all refused rows, unless there is one', async () => {
    const file = await write('refused.jsonl', '"no object"\n"no object"')
    const run = (...args: string[]) => cli(['import', file, ...permission, ...args])

    const without = await run()
    const others = [await run('--report', path('refused.json')), await run('--report', '-')]

    const note = '--report FILE has all refused rows.\n'
    expect(without.stderr).toContain(note)
    for (const { code, stderr } of others) {
      expect([code, stderr]).toEqual([1, expect.stringContaining('2 rows, row 0 first, were')])
      expect(stderr).not.toContain(note)
    }
  })

  it.each([
    { json: [], notes: /^imported +1$[^]*^row 1 was refused: # must be an object$/m },
    { json: ['--json'], notes: /^$/ },
  ])(
    'writes its report to standard output alone, with what people read beside it: $json',
    async ({ json, notes }) => {
      const user = `piped${json.length}`
      const file = await write(`${user}.jsonl`, `${linesOf([makeKey(user).row])}\n"no object"`)

      const { code, stdout, stderr } = await cli([
        'import',
        file,
        ...permission,
        '--report',
        '-',
        ...json,
      ])

      expect(code).toBe(1)
      expect(jsonLines(stdout)).toMatchObject([
        { imported: 1, refused: [{ row: 1, id: null }], rows: 2, isComplete: true },
      ])
      expect(stdout).toMatch(/^\{.*\}\n$/)
      await expect(readFile(path('-'))).rejects.toThrow('ENOENT')
      expect(stderr).toMatch(notes)
    },
  )

  it('imports nothing if its report has no place, or would go where a link leads', async () => {
    const user = 'no-place'
    const file = await write('no-place.jsonl', linesOf([makeKey(user).row]))
    const target = await write('target.txt', 'mine')
    await symlink(target, path('link.json'))
    const into = (report: string) => cli(['import', file, ...permission, '--report', report])

    const [nowhere, linked, ...streams] = await Promise.all(
      [path('no/where'), path('link.json'), '/dev/stdout', '/dev/fd/1'].map(into),
    )

    const codes = [nowhere, linked, ...streams].map((ran) => ran?.code)
    expect(codes).toEqual([2, 2, 2, 2])
    expect(nowhere?.stderr).toMatch(
      /The report cannot be written: there is no folder .*no\. Nothing was imported/,
    )
    expect(linked?.stderr).toMatch(
      /The report cannot be written: .* is a symbolic link, which is not followed\. Nothing was imported/,
    )
    for (const { stderr } of streams) {
      expect(stderr).toContain(
        'is a symbolic link, which is not followed; - is standard output. Nothing was imported',
      )
    }
    expect(await readFile(target, 'utf8')).toBe('mine')
    expect(await countKeys(user)).toBe(0)
  })

  it.each([
    'key,name\nsecret"x,n',
    'key,name\n"secret"x,n',
    'key,name\n"secret',
    'key,name\nsecret,n,x',
  ])('names the line of a fault in a CSV file, and not its text: %j', async (text) => {
    const file = await write('faulty.csv', text)

    const { code, stderr } = await cli(['import', file, ...permission])

    expect(code).toBe(2)
    expect(stderr).toMatch(/faulty\.csv is no CSV: line [12] has a fault \([A-Z_]+\)/)
    expect(stderr).not.toContain('secret')
  })

  it('imports the table of a system, and passes over known keys when it is repeated', async () => {
    const user = 'table'
    const keys = Array.from({ length: 3 }, () => makeKey(user))
    await rows(
      `CREATE TABLE apikey (id text, name text, key text, "referenceId" text, enabled boolean, permissions text)`,
    )
    for (const { row } of keys) {
      await rows('INSERT INTO apikey VALUES ($1, $2, $3, $4, $5, $6)', Object.values(row))
    }
    const args = ['import', '--from', 'better-auth', ...permission, '--json']

    const dry = await cli([...args, '--dry-run'])
    const before = await countKeys(user)
    const first = await cli(args)
    const again = await cli(args)

    expect(reportOf(dry.stdout)).toMatchObject({ imported: 3, dryRun: true })
    expect(before).toBe(0)
    expect(reportOf(first.stdout)).toMatchObject({ imported: 3, known: 0, rows: 3 })
    expect(reportOf(again.stdout)).toMatchObject({ imported: 0, known: 3 })
    expect(await countKeys(user)).toBe(3)
  })

  it('ends at Ctrl-C with a report, and goes on when it is begun again', async () => {
    const user = 'interrupted'
    const list = Array.from({ length: 2_500 }, () => makeKey(user).row)
    const file = await write('many.jsonl', linesOf(list))
    const lock = await holdLock('LOCK TABLE api_keys IN SHARE MODE')
    const { kill, closed, output, isBlocked } = startCli(['import', file, ...permission, '--json'])
    await isBlocked()

    kill('SIGINT')
    await until(() => Promise.resolve(output.stderr.includes('Ctrl-C again ends at once')))
    await lock.release()
    const code = await closed
    const imported = await countKeys(user)
    const again = await cli(['import', file, ...permission, '--json'])

    expect(code).toBe(130)
    // The thousand that was being written is there as a whole, and the next if it had been read.
    expect([1_000, 2_000]).toContain(imported)
    expect(reportOf(output.stdout)).toMatchObject({ imported, isComplete: false })
    expect(reportOf(again.stdout)).toMatchObject({ imported: 2_500 - imported, known: imported })
    expect(await countKeys(user)).toBe(2_500)
  })

  it('reports what it has imported if the database goes away, and goes on when it is begun again', async () => {
    const { file, lock, drop } = await prepareStop('away')
    const proxy = await startProxy(Number(new URL(database.url).port))
    const DATABASE_URL = proxy.through(database.url)
    const args = ['import', file, ...permission, '--json']
    const { closed, output, isBlocked } = startCli(args, { DATABASE_URL })
    await isBlocked()

    proxy.refuse()
    const code = await closed
    await lock.release()
    await proxy.close()
    const again = await cli(args)
    await drop()

    expect(code).toBe(4)
    expect(reportOf(output.stdout)).toMatchObject({
      imported: 1_000,
      known: 0,
      refused: [],
      isComplete: false,
    })
    expect(output.stderr).toContain('Begin it again')
    expect(output.stderr).toContain('"code":"database_unavailable"')
    const { imported, known } = reportOf(again.stdout)
    expect({ sum: imported + known, code: again.code }).toEqual({ sum: 2_500, code: 0 })
    expect(await countKeys('away')).toBe(2_500)
  })

  it('goes on when it is begun again after it was killed', async () => {
    const { file, lock, drop } = await prepareStop('killed')
    const args = ['import', file, ...permission, '--json']
    const { kill, closed, output, isBlocked } = startCli(args)
    await isBlocked()

    kill('SIGKILL')
    await closed
    await lock.release()
    const again = await cli(args)
    await drop()

    expect(output.stdout).toBe('')
    const { imported, known } = reportOf(again.stdout)
    expect({ sum: imported + known, code: again.code }).toEqual({ sum: 2_500, code: 0 })
    expect([1_000, 2_000]).toContain(known)
    expect(await countKeys('killed')).toBe(2_500)
  })

  it('shows its progress on a terminal', async () => {
    const file = await write('one.jsonl', linesOf([makeKey('terminal').row]))

    const { code, raw } = await terminal(['import', file, ...permission]).ended()

    expect(code).toBe(0)
    expect(raw).toMatch(/Importing .*100%/)
  })

  it.each([
    ['a file that is not there', ['nowhere.csv'], 'cannot be read'],
    ['a file of another kind', ['keys.txt'], 'must be a .csv or a .jsonl file'],
    ['a file that is no CSV', ['broken.csv'], 'is no CSV'],
    ['an unknown source', ['keys.jsonl', '--from', 'better-oauth'], 'Did you mean better-auth?'],
    ['an unknown source without a file', ['--from', 'better-oauth'], 'Did you mean better-auth?'],
    ['a table that is not there', ['--table', 'nothing'], 'There is no table "nothing"'],
    ['an unknown rule', ['keys.jsonl', '--enforce', 'nothing'], 'enforce must be a list of'],
  ])('refuses %s', async (_, args, message) => {
    await write('broken.csv', 'a,b\n1,2,3\n')
    await write('keys.jsonl', linesOf([makeKey('refused').row]))

    const { code, stderr } = await cli(['import', ...args])

    expect(code).toBe(2)
    expect(stderr).toContain(message)
    expect(await countKeys('refused')).toBe(0)
  })
})

describe('import from a table, in an app with one connection', () => {
  it('says that it needs two', async () => {
    const module = instanceModule('imports: [sources.betterAuth()],').replace(
      'logging: false',
      'logging: false, pool: { max: 1 }',
    )
    const config = await write('one-connection.cjs', module)

    const { code, stderr } = await cli(['import', '--config', config])

    expect(code).toBe(2)
    expect(stderr).toContain('give the pool of your Sequelize a max of 2 or more')
  })
})

describe('import in an app that accepts no other keys', () => {
  const { cli, write } = useCli()

  it('names the option', async () => {
    const { code, stderr } = await cli(['import', await write('keys.jsonl', '')])

    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: 'error: The app accepts no keys of other systems: name them in its option imports.\n',
    })
  })
})
