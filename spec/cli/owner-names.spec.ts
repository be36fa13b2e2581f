import { jsonLines, useCli } from '../support/cli'
import { newUser } from '../support/keys'

const names = `(owners) => owners.map((owner) => ({ ...owner, name: 'Al\\u001bice' }))`
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

    expect(list.stdout).toContain(`user ${userId} (Alice)`)
    expect(show.stdout).toMatch(new RegExp(`^owner +user ${userId} \\(Alice\\)$`, 'm'))
    expect(json.stdout).not.toContain('Alice')
    expect(jsonLines(json.stdout)).toMatchObject([{ id, userId }])
  })
})
