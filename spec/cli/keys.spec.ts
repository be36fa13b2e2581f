import { readFile, stat } from 'node:fs/promises'

import { instanceModule, jsonLines, useCli } from '../support/cli'
import { newKey, newUser } from '../support/keys'

const cliOptions = { options: 'undoMinutes: 10' }
const {
  cli,
  terminal,
  shell,
  path,
  write,
  apiKeys,
  rows,
  createKey,
  createProcess,
  startCli,
  holdLock,
} = useCli(cliOptions)

const create = (user: string, ...others: string[]) =>
  ['create', '--user', user, '--name', 'CI', '--permission', 'READ_GRAPH', ...others] as const

async function countKeys(userId: string) {
  return (await apiKeys.list({ userId })).apiKeys.length
}

describe('create', () => {
  it('makes no key if its plain text would go into a pipe', async () => {
    const user = newUser()

    const [plain, json] = await Promise.all([cli(create(user)), cli(create(user, '--json'))])

    expect(plain).toMatchObject({ code: 2, stdout: '' })
    expect(plain.stderr).toContain('--output FILE')
    expect(json).toMatchObject({ code: 2, stdout: '' })
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { exitCode: 2, code: null } })
    expect(await countKeys(user)).toBe(0)
  })

  it('writes the plain text into a new file that its owner alone may read', async () => {
    const user = newUser()
    const file = path(user)

    const { code, stdout, stderr } = await cli(create(user, '--output', file, '--json'))

    const key = await readFile(file, 'utf8')
    const [printed] = jsonLines<{ apiKey: { id: string } }>(stdout)
    const verdict = await apiKeys.verify(key.trim())
    expect(code).toBe(0)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(verdict).toMatchObject({ valid: true, apiKey: { id: printed?.apiKey.id, userId: user } })
    expect(stdout + stderr).not.toContain(key.trim())
  })

  it('leaves no file behind at Ctrl-C, and goes on when it is begun again', async () => {
    const user = newUser()
    const file = path('interrupted.txt')
    const lock = await holdLock('LOCK TABLE api_keys')

    const first = startCli([...create(user), '--output', file])
    await first.isBlocked()
    expect((await stat(file)).size).toBe(0)
    first.kill('SIGINT')
    expect(await first.closed).toBe(130)
    await expect(stat(file)).rejects.toThrow('ENOENT')
    await lock.release()

    expect(await cli([...create(user), '--output', file])).toMatchObject({ code: 0 })
    expect(await apiKeys.verify((await readFile(file, 'utf8')).trim())).toMatchObject({
      valid: true,
    })
  })

  it('makes no key if the file is there already or has no folder, and none if its input is wrong', async () => {
    const user = newUser()
    await cli(create(user, '--output', path(user)))
    const before = await readFile(path(user), 'utf8')

    const [again, nowhere, wrong] = await Promise.all([
      cli(create(user, '--output', path(user))),
      cli(create(user, '--output', path('no/where'))),
      cli(create(user, '--expires-at', 'soon', '--output', path(`${user}-wrong`))),
    ])

    expect(again.code).toBe(2)
    expect(again.stderr).toMatch(/cannot be made: .* is there already.*Nothing was changed/)
    expect(await readFile(path(user), 'utf8')).toBe(before)
    expect(nowhere.code).toBe(2)
    expect(nowhere.stderr).toMatch(/there is no folder .*\/no\. Nothing was changed/)
    expect(wrong.code).toBe(2)
    expect(wrong.stderr).toContain('expiresAt must be')
    // No empty file is left behind.
    await expect(stat(path(`${user}-wrong`))).rejects.toThrow('ENOENT')
    expect(await countKeys(user)).toBe(1)
  })

  it('prints the plain text once on a terminal', async () => {
    const user = newUser()

    const { code, shown } = await terminal(create(user)).ended()

    const [key = ''] = /^agpt_[0-9A-Za-z]{51}$/m.exec(shown) ?? []
    expect(code).toBe(0)
    expect(shown.split(key)).toHaveLength(2)
    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
  })

  it('takes all fields of a key', async () => {
    const user = newUser()
    const fields = [
      '--description',
      'For CI',
      '--expires-in',
      '30d',
      '--allowed-ip',
      '203.0.113.7,198.51.100.0/24',
    ]
    const more = ['--metadata', '{"team":"a"}', '-p', 'READ_BLOCK', '--reason', 'For the build']

    const { code } = await cli(create(user, ...fields, ...more, '--output', path(user)))

    const [apiKey] = (await apiKeys.list({ userId: user })).apiKeys
    const { events } = await apiKeys.events({ apiKeyId: apiKey?.id })
    expect(code).toBe(0)
    expect(apiKey).toMatchObject({
      description: 'For CI',
      permissions: ['READ_GRAPH', 'READ_BLOCK'],
      allowedIps: ['203.0.113.7', '198.51.100.0/24'],
      metadata: { team: 'a' },
    })
    const days = ((apiKey?.expiresAt?.getTime() ?? 0) - Date.now()) / 86_400_000
    expect(Math.round(days)).toBe(30)
    expect(events[0]).toMatchObject({ actorType: 'system', reason: 'For the build' })
  })

  it.each([
    ['no owner', ['create', '--name', 'CI', '-p', 'READ_GRAPH'], 'Name the owner'],
    ['two owners', create('a', '--service', 'b'), 'cannot be used with'],
    ['no name', ['create', '--user', 'a', '-p', 'READ_GRAPH'], "required option '--name <name>'"],
    ['an unknown permission', [...create('a'), '-p', 'FLY', '-o', 'f1'], 'permissions/1'],
    ['metadata that is no JSON', create('a', '--metadata', '{', '-o', 'f2'), 'no JSON'],
    ['a length of time without a unit', create('a', '--expires-in', '30', '-o', 'f3'), '30d'],
    [
      'a kind of owner that the app does not have',
      ['create', '--service', 'x', '--name', 'CI', '-p', 'READ_GRAPH', '-o', 'f4'],
      'owner',
    ],
  ])('refuses %s', async (_, args, message) => {
    const { code, stderr, stdout } = await cli(args)

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(message)
  })
})

describe('list and show', () => {
  it('print a table for people, and a line of JSON for each key', async () => {
    const userId = newUser()
    const { id } = await createKey({ userId, name: 'Bär 日本\u202Etxt' })
    await createKey({ userId, status: 'REVOKED' })

    const [table, json, shown] = await Promise.all([
      cli(['list', '--user', userId]),
      cli(['list', '--user', userId, '--status', 'active', '--json']),
      cli(['show', id, '--json']),
    ])

    const [heads, ...lines] = table.stdout.trimEnd().split('\n')
    expect(heads).toMatch(/^ID +NAME +OWNER +KEY +STATUS +PERMISSIONS +LAST USED +EXPIRES$/)
    expect(lines).toHaveLength(2)
    // No character that changes the direction of a line reaches the terminal.
    expect(lines.find((line) => line.includes(id))).toContain('Bär 日本�txt')
    expect(jsonLines(json.stdout)).toMatchObject([{ id, status: 'ACTIVE' }])
    expect(jsonLines(shown.stdout)).toEqual(jsonLines(json.stdout))
  })

  it('send nothing to a terminal that does more than to show a text, as JSON neither', async () => {
    // It clears the screen, turns the text around, ends a line, and hides a tag outside the basic plane.
    const text = 'a\u009b2Jb\u202Ec\u2028d\u{E0041}e'
    const { id } = await createKey({ userId: newUser(), metadata: { text } })
    await rows(`UPDATE api_keys SET resources = $2 WHERE id = $1`, [
      id,
      JSON.stringify({ graph: [text] }),
    ])
    await write('bound.cjs', instanceModule('resources: { graph: true }'))

    const shown = await cli(['show', id, '--config', 'bound.cjs'])
    const json = await cli(['show', id, '--json', '--config', 'bound.cjs'])
    const refused = await cli(['list', '--config', text])

    expect(shown.stdout).toContain('"graph"')
    for (const { stdout, stderr } of [shown, json, refused]) {
      expect(stdout + stderr).not.toMatch(/[^\P{C}\n]|[\u2028\u2029]/u)
    }
    expect(jsonLines(json.stdout)).toMatchObject([
      { metadata: { text }, resources: { graph: [text] } },
    ])
  })

  it('say of an exposed key when it was found, and by whom', async () => {
    const { http } = createProcess({}, (app, keys) => app.use(keys.leakRouter({ reports: true })))
    const { id, plainTextKey } = await createKey()
    await http.post('/reports', { credentials: [plainTextKey] })

    const { stdout } = await cli(['show', id])

    expect(stdout).toMatch(/^exposed +\d{4}-\d\d-\d\dT[\d:]{8}Z report$/m)
  })

  it('list as many keys as they are asked for, and say that there are more', async () => {
    const userId = newUser()
    await apiKeys.createMany(Array.from({ length: 205 }, () => newKey({ userId })))

    const [some, all, none] = await Promise.all([
      cli(['list', '--user', userId, '--limit', '2', '--json']),
      cli(['list', '--user', userId, '--all', '--json']),
      cli(['list', '--user', newUser()]),
    ])

    expect(jsonLines(some.stdout)).toHaveLength(2)
    expect(some.stderr).toContain('There are more keys')
    expect(new Set(jsonLines(all.stdout).map(({ id }) => id)).size).toBe(205)
    expect(all.stderr).toBe('')
    expect(none).toMatchObject({ code: 0, stderr: '' })
  })

  it('end quietly if their output is not read to its end', async () => {
    const userId = newUser()
    const description = 'x'.repeat(500)
    await apiKeys.createMany(Array.from({ length: 500 }, () => newKey({ userId, description })))

    const { stdout, stderr } = await shell(
      `$CLI list --user ${userId} --all --json | head -n 1; echo "\${PIPESTATUS[0]}"`,
    )

    const [line = '', code] = stdout.split('\n')
    expect(JSON.parse(line)).toMatchObject({ description })
    expect({ code, stderr }).toEqual({ code: '141', stderr: '' })
  })

  it.each(['nonsense', '01993b5e-0000-7000-8000-000000000000'])(
    'report the wrong id %s',
    async (id) => {
      const [shown, revoked] = await Promise.all([
        cli(['show', id]),
        cli(['revoke', id, '--yes', '--json']),
      ])

      expect(shown).toEqual({ code: 3, stdout: '', stderr: 'error: There is no such API key.\n' })
      expect(revoked.code).toBe(3)
      expect(JSON.parse(revoked.stderr)).toMatchObject({ error: { code: 'api_key_not_found' } })
    },
  )
})

describe('revoke, suspend, reactivate, rotate and transfer', () => {
  it('change nothing without a terminal, unless --yes is there', async () => {
    const { id } = await createKey()

    const refused = await Promise.all(
      [
        ['revoke', id],
        ['suspend', id],
        ['rotate', id, '--output', path(id)],
        ['transfer', id, '--user', 'bob'],
      ].map((args) => cli(args)),
    )

    expect(refused.map(({ code }) => code)).toEqual([5, 5, 5, 5])
    expect(refused[0]?.stderr).toContain('Add --yes')
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE', userId: 'alice' })
    await expect(stat(path(id))).rejects.toThrow('ENOENT')
  })

  it('make the change with --yes, and note that the app made it', async () => {
    const { id, plainTextKey } = await createKey()
    const to = newUser()

    const suspended = await cli(['suspend', id, '--yes', '--reason', 'Leaked?', '--json'])
    const reactivated = await cli(['reactivate', id, '--json'])
    const rotated = await cli([
      'rotate',
      id,
      '--yes',
      '--output',
      path(id),
      '--grace-period',
      '0s',
      '--json',
    ])
    const transferred = await cli(['transfer', id, '--user', to, '--yes', '--json'])
    const fresh = (await readFile(path(id), 'utf8')).trim()
    const before = await apiKeys.verify(fresh)
    const revoked = await cli(['revoke', id, '--yes', '--everywhere', '--json'])

    const codes = [suspended, reactivated, rotated, transferred, revoked].map(({ code }) => code)
    expect(codes).toEqual([0, 0, 0, 0, 0])
    expect(jsonLines(suspended.stdout)).toMatchObject([{ status: 'SUSPENDED' }])
    expect(jsonLines(reactivated.stdout)).toMatchObject([{ status: 'ACTIVE' }])
    expect(before).toMatchObject({ valid: true, apiKey: { userId: to } })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ code: 'revoked' })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events.map(({ action, actorType }) => [action, actorType])).toEqual([
      ['revoked', 'system'],
      ['transferred', 'system'],
      ['rotated', 'system'],
      ['reactivated', 'system'],
      ['suspended', 'system'],
      ['created', 'system'],
    ])
    expect(events[4]).toMatchObject({ reason: 'Leaked?' })
  })

  it('are undone by unrevoke, if it is a revocation of just now', async () => {
    const [{ id }, { id: late }] = [await createKey(), await createKey()]
    await Promise.all([apiKeys.revoke(id), apiKeys.revoke(late)])
    await rows(`UPDATE api_keys SET revoked_at = revoked_at - interval '1 hour' WHERE id = $1`, [
      late,
    ])

    const undone = await cli(['unrevoke', id, '--reason', 'wrong key', '--json'])
    const refused = await cli(['unrevoke', late])

    expect(undone.code).toBe(0)
    expect(jsonLines(undone.stdout)).toMatchObject([{ id, status: 'ACTIVE', revokedAt: null }])
    expect(refused).toMatchObject({ stdout: '', stderr: expect.stringContaining('stays so') })
    expect(refused.code).not.toBe(0)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({ action: 'unrevoked', reason: 'wrong key' })
  })

  it('say if unrevoke can undo a revocation', async () => {
    const { id } = await createKey()
    await write('final.js', instanceModule())
    const final = (...args: string[]) => cli([...args, '--config', 'final.js'])

    const asked = await Promise.all([cli(['revoke', id]), final('revoke', id)])
    await apiKeys.revoke(id)
    const { code, stderr } = await final('unrevoke', id)

    expect(asked[0].stderr).toContain(
      '? unrevoke can undo this for 10 minutes. Nothing was changed',
    )
    expect(asked[1].stderr).toContain('? It can never be used again. Nothing was changed')
    expect([code, stderr]).toEqual([
      2,
      'error: The app undoes no revocations: set its option undoMinutes.\n',
    ])
  })

  it('rotate with --on-first-use, and show the secret that waits', async () => {
    const { id, plainTextKey } = await createKey()

    const rotated = await cli([
      'rotate',
      id,
      '--yes',
      '--on-first-use',
      '--output',
      path(id),
      '--grace-period',
      '1h',
    ])
    const shown = await cli(['show', id])
    const fresh = (await readFile(path(id), 'utf8')).trim()

    expect([rotated.code, shown.code]).toEqual([0, 0])
    expect(shown.stdout).toContain('waits for its first use')
    expect((await apiKeys.get(id)).pendingRotation).toMatchObject({ gracePeriodSeconds: 3_600 })
    expect(await apiKeys.verify(fresh)).toMatchObject({ valid: true })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('ask on a terminal, and take y for yes', async () => {
    const { id } = await createKey({ name: 'Nightly' })
    const command = terminal(['revoke', id])

    await command.shows('[y/N]')
    command.type('y\r')
    const { code, shown } = await command.ended()

    expect(code).toBe(0)
    expect(shown).toContain('Revoke the key "Nightly" of user alice (agpt_')
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
  })

  it.each([
    ['n', 'n\r', 5],
    ['nothing', '\r', 5],
    ['the end of the input', '\u0004', 5],
    ['Ctrl-C', '\u0003', 130],
  ])('change nothing after %s', async (_, typed, exitCode) => {
    const { id } = await createKey()
    const command = terminal(['revoke', id])

    await command.shows('[y/N]')
    command.type(typed)

    expect(await command.ended()).toMatchObject({ code: exitCode })
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it('say why a change is refused', async () => {
    const { id } = await createKey({ status: 'REVOKED' })

    const { code, stderr } = await cli(['suspend', id, '--yes'])

    expect({ code, stderr }).toEqual({
      code: 3,
      stderr: 'error: The API key is revoked, and stays so. Create a new one.\n',
    })
  })
})

describe('colours', () => {
  it('are on a terminal, unless NO_COLOR is set, and in no pipe', async () => {
    await createKey()

    const [coloured, plain, piped] = await Promise.all([
      terminal(['list', '--limit', '1']).ended(),
      terminal(['list', '--limit', '1'], { NO_COLOR: '1' }).ended(),
      cli(['list', '--limit', '1']),
    ])

    expect(coloured.raw).toContain('\u001B[')
    expect(plain.raw).not.toContain('\u001B[')
    expect(piped.stdout).not.toContain('\u001B[')
  })
})
