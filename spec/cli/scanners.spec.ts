import { readFile } from 'node:fs/promises'

import { jsonLines, useCli } from '../support/cli'

const { cli, path, write, apiKeys } = useCli({
  options: `imports: [sources.knox(), sources.gitea()],`,
})

describe('scanners', () => {
  it('prints the rules of the function, and the sources without a rule beside them', async () => {
    const [printed, json] = await Promise.all([
      cli(['scanners', '--for', 'gitleaks']),
      cli(['scanners', '--for', 'gitleaks', '--json']),
    ])

    const rules = apiKeys.scannerRules('gitleaks')
    expect(printed).toEqual({
      code: 0,
      stdout: rules,
      stderr:
        'There is no rule for the keys of knox, because they have no fixed start.\n' +
        'There is no rule for the keys of gitea, because they have no fixed start.\n',
    })
    expect(jsonLines(json.stdout)).toEqual([{ scanner: 'gitleaks', rules }])
  })

  it('writes a new file, and no file that is there', async () => {
    const args = ['scanners', '--for', 'secretlint', '--output', '.secretlintrc.json']
    const first = await cli(args)
    const before = await readFile(path('.secretlintrc.json'), 'utf8')
    await write('.secretlintrc.json', 'mine')
    const again = await cli(args)

    expect([first.code, first.stdout]).toEqual([0, ''])
    expect(before).toBe(apiKeys.scannerRules('secretlint'))
    expect(again.code).toBe(2)
    expect(again.stderr).toMatch(
      /The rules cannot be written: .* is there already, and is not overwritten/,
    )
    expect(again.stderr).toContain('Without --output, they are printed')
    expect(await readFile(path('.secretlintrc.json'), 'utf8')).toBe('mine')
  })

  it('needs no database', async () => {
    const { code } = await cli(['scanners', '--for', 'github'], {
      env: { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing' },
    })

    expect(code).toBe(0)
  })

  it.each([
    [[], "required option '--for <scanner>' not specified"],
    [['--for', 'grep'], 'gitleaks, git-secrets, github, secretlint'],
    [['--for', 'github', '--output', 'missing/file'], 'there is no folder'],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await cli(['scanners', ...args])

    expect(code).toBe(2)
    expect(stderr).toContain(message)
  })
})
