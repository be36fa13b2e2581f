import { jsonLines, useCli } from '../support/cli'
import { newUser } from '../support/keys'

const names = `(owners) => {
  if (process.env.NAMELESS) throw new Error('no\\u001b names')
  return owners.map((owner) => ({ ...owner, name: 'Al\\u001b\\u200cice' }))
}`
const { cli, createKey } = useCli({ options: `ownerNames: ${names},` })

describe('list and show, in an app that names owners', () => {
  it('print the name behind the id for people, and in JSON the record alone', async () => {
    const userId = newUser()
    const { id } = await createKey({ userId })

    const [list, show, json] = await Promise.all([
      cli(['list', '--user', userId]),
      cli(['show', id]),
      cli(['list', '--user', userId, '--json']),
    ])

    expect(list.stdout).toContain(`user ${userId} (Al\u200Cice)`)
    expect(show.stdout).toMatch(new RegExp(`^owner +user ${userId} \\(Al\u200Cice\\)$`, 'm'))
    expect(json.stdout).not.toContain('Al\u200Cice')
    expect(jsonLines(json.stdout)).toMatchObject([{ id, userId }])
  })

  it('note on standard error that the app has failed, and ask for no names in JSON', async () => {
    const userId = newUser()
    const { id } = await createKey({ userId })
    const env = { NAMELESS: 'yes' }

    const [list, show, ...inJson] = await Promise.all([
      cli(['list', '--user', userId], { env }),
      cli(['show', id], { env }),
      cli(['list', '--user', userId, '--json'], { env }),
      cli(['show', id, '--json'], { env }),
    ])

    for (const { code, stdout, stderr } of [list, show]) {
      expect([code, stderr]).toEqual([0, 'Names of owners are missing: no\uFFFD names\n'])
      expect(stdout).toContain(`user ${userId}`)
    }
    expect(inJson.map(({ code, stderr }) => [code, stderr])).toEqual([
      [0, ''],
      [0, ''],
    ])
  })
})
