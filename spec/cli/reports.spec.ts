import { jsonLines, useCli } from '../support/cli'
import { forgeKey } from '../support/keys'

const { cli, startCli, terminal, write, apiKeys, createKey, rows, holdLock } = useCli()

describe('usage', () => {
  it('shows the uses of a key, and of all keys', async () => {
    const { id, plainTextKey } = await createKey()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    const [ofKey, ofAll, wrong] = await Promise.all([
      cli(['usage', id, '--by', 'day', '--json']),
      cli(['usage']),
      cli(['usage', '--by', 'week']),
    ])

    expect(jsonLines(ofKey.stdout)).toMatchObject([{ totals: { accepted: 1 } }])
    expect(ofAll.stdout).toMatch(/^FROM +ACCEPTED +DENIED +RATE-LIMITED\n(.*\n)*total +1 +0 +0\n$/)
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('hour, day') })
  })
})

describe('health', () => {
  it('asks the database, and counts keys', async () => {
    await createKey()

    const [text, json, away] = await Promise.all([
      cli(['health']),
      cli(['health', '--json']),
      cli(['health', '--json'], { env: { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing' } }),
    ])

    expect(text).toMatchObject({ code: 0, stdout: expect.stringMatching(/^ok +yes$/m) })
    expect(jsonLines(json.stdout)).toMatchObject([{ ok: true, unknownPermissions: [] }])
    expect(away.code).toBe(1)
    expect(jsonLines(away.stdout)).toMatchObject([
      { ok: false, reason: expect.stringContaining('ECONNREFUSED') },
    ])
  })
})

describe('explain', () => {
  it('reads the key from a pipe, and says why it is refused', async () => {
    const { plainTextKey } = await createKey({ allowedIps: ['203.0.113.7'] })

    const [refused, accepted, garbage] = await Promise.all([
      cli(['explain', '-p', 'READ_BLOCK', '--json'], { input: `${plainTextKey}\n` }),
      cli(['explain', '-p', 'READ_GRAPH', '--ip', '203.0.113.7'], { input: plainTextKey }),
      cli(['explain'], { input: '' }),
    ])

    expect(refused.code).toBe(1)
    expect(jsonLines(refused.stdout)).toMatchObject([{ reason: 'address_not_allowed' }])
    expect(accepted.code).toBe(0)
    expect(accepted.stdout).toContain('would be accepted')
    expect(accepted.stdout).toMatch(/^7 +yes +It may be used from the address\./m)
    expect(garbage).toMatchObject({ code: 1, stdout: expect.stringContaining('malformed') })
    expect(refused.stdout + accepted.stdout).not.toContain(plainTextKey)
  })

  it('does not show the key that is typed on a terminal', async () => {
    const key = forgeKey()
    const command = terminal(['explain'])

    await command.shows('API key: ')
    command.type(`${key}\r`)
    const { code, shown } = await command.ended()

    expect(code).toBe(1)
    expect(shown).toContain('would be refused: unknown')
    expect(shown).not.toContain(key.slice(5, 40))
  })

  it('takes no key as an argument, where other users of the machine would see it', async () => {
    expect(await cli(['explain', forgeKey()])).toMatchObject({ code: 2 })
  })

  it('names a permission that the app does not have', async () => {
    const { code, stderr } = await cli(['explain', '-p', 'READ_GRAHP'], { input: forgeKey() })

    expect(code).toBe(2)
    expect(stderr).toContain('Did you mean READ_GRAPH?')
  })
})

describe('audit', () => {
  it('prints entries and the head, which verify takes', async () => {
    const { id } = await createKey()
    await apiKeys.flush()

    const [exported, head] = await Promise.all([
      cli(['audit', 'export', '--key', id, '--json']),
      cli(['audit', 'head']),
    ])
    const file = await write('head.json', head.stdout)
    const [verified, wrong] = await Promise.all([
      cli(['audit', 'verify', '--head', file, '--json']),
      cli(['audit', 'verify', '--head', await write('wrong.json', 'no head')]),
    ])

    expect(jsonLines(exported.stdout)).toMatchObject([{ apiKeyId: id, action: 'created' }])
    expect(verified.code).toBe(0)
    expect(jsonLines(verified.stdout)).toMatchObject([{ isIntact: true, faults: [] }])
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('is no head') })
  })

  it('shows its progress on a terminal', async () => {
    const { code, raw } = await terminal(['audit', 'verify']).ended()

    expect(code).toBe(0)
    expect(raw).toMatch(/Verifying .*100%/)
  })

  it('ends at Ctrl-C, and goes through when it is begun again', async () => {
    const lock = await holdLock('LOCK TABLE api_key_origins IN ACCESS EXCLUSIVE MODE')
    const { kill, closed, output, isBlocked } = startCli(['audit', 'verify'])
    await isBlocked()

    kill('SIGINT')
    await lock.release()

    expect(await closed).toBe(130)
    expect(output.stdout).toBe('')
    expect(await cli(['audit', 'verify'])).toMatchObject({ code: 0 })
  })

  it('says that the trail is not intact, and what is wrong', async () => {
    const { id } = await createKey()
    await apiKeys.flush()
    await rows('ALTER TABLE api_key_events DISABLE TRIGGER ALL')
    await rows(`UPDATE api_key_events SET reason = 'forged' WHERE api_key_id = $1`, [id])

    const [text, json] = await Promise.all([
      cli(['audit', 'verify']),
      cli(['audit', 'verify', '--json']),
    ])

    expect(text).toMatchObject({ code: 1, stdout: expect.stringMatching(/^fault {2}/m) })
    expect(jsonLines(json.stdout)).toMatchObject([{ isIntact: false }])
  })
})
