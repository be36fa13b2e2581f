import type { NamedOwner, Owner, UserOwner } from '../../lib'
import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { createVisitor, rowsOf, textOf } from '../support/visitor'

/** The answer of the app in the running spec, and the ids for which it was asked. */
let answer: (owners: readonly Owner[]) => unknown
let asked: string[][]

const options = {
  ownerNames: (owners: readonly Owner[]) => {
    asked.push(owners.map(({ id }) => String(id)))
    // Apps without types may answer anything.
    return answer(owners) as readonly NamedOwner<UserOwner<string>>[]
  },
}
const { as, createKey, apiKeys, createProcess } = useConsole(options, { admin: true })

const admin = as('admin-root')
const errors: { error: unknown; notice: string }[] = []

beforeAll(() => {
  apiKeys.on('error', (each) => errors.push(each))
})

beforeEach(() => {
  asked = []
  errors.length = 0
})

const withName = (name: unknown) => (owners: readonly Owner[]) =>
  owners.map((owner) => ({ ...owner, name }))

/** Makes a key of a new user, and returns the user and the cell of the user in the list. */
async function listed() {
  const userId = newUser()
  await createKey({ userId })
  const page = await admin.open(`${mount}?ownerId=${userId}`)
  return { userId, page, owner: rowsOf(page)[0]?.Owner }
}

describe('the names of owners', () => {
  it('stand beside the ids, wherever pages have links to owners', async () => {
    answer = withName('Alice <b>&amp; Söhne</b>')
    const { userId, owner, page } = await listed()

    expect(owner).toBe(`Alice <b>&amp; Söhne</b> ${userId}`)
    expect(page.html).toContain('Alice &lt;b>&amp;amp; Söhne&lt;/b>')
    const trail = await admin.open(`${mount}/audit?ownerId=${userId}`)
    expect(trail.text).toContain(`Söhne</b> ${userId}`)
    expect(asked).toEqual([[userId]])
    expect(JSON.stringify(await apiKeys.events({ userId }))).not.toContain('Söhne')
  })

  it('are asked for all owners of a page at once, and cached', async () => {
    answer = withName('Bob')
    const users = [newUser(), newUser(), newUser()]
    for (const userId of users) await createKey({ userId, name: 'Nightly' })

    const first = await admin.open(`${mount}?q=Nightly`)
    await admin.open(`${mount}?q=Nightly`)

    expect(rowsOf(first)).toHaveLength(3)
    expect(asked.map((ids) => ids.toSorted())).toEqual([users.toSorted()])
  })

  it.each<[string, (owners: readonly Owner[]) => unknown]>([
    ['does not name an owner', () => []],
    ['names other owners', () => [{ type: 'user', id: 'eve', name: 'Eve' }]],
    [
      'names an owner of another kind',
      ([owner]) => [{ type: 'organization', id: owner?.id, name: 'X' }],
    ],
    ['has null for a name', withName(null)],
    ['has a number for a name', withName(7)],
    ['has a name of characters that show nothing', withName('\u202E\u0007 ')],
    ['has entries that are no owners', () => [null, 7, 'x', {}]],
  ])('are missing if the answer %s', async (_, given) => {
    answer = given
    const { owner, userId } = await listed()

    expect(owner).toBe(userId)
    expect(errors).toEqual([])
  })

  it('are read by no page without owners', async () => {
    answer = withName('Alice')
    const page = await admin.open(`${mount}/health`)

    expect([page.status, asked]).toEqual([200, []])
    expect(textOf(page.root.querySelector('h1'))).not.toBe('')
  })

  it('lose what could turn a text, and what is too long', async () => {
    answer = withName(`\u202E${'ä😀'.repeat(500)}`)
    const { owner, userId } = await listed()

    expect(owner).toBe(`${'ä😀'.repeat(50)} ${userId}`)
  })
})

describe('an app whose ownerNames throws', () => {
  it('has pages with the ids alone, and is told', async () => {
    answer = () => {
      throw new Error('no names today')
    }
    const { http, apiKeys } = createProcess(options, (app, keys) =>
      app.use(mount, keys.console({ admin: true })),
    )
    const told: string[] = []
    apiKeys.on('error', ({ error, notice }) => told.push(`${notice}: ${String(error)}`))
    const userId = newUser()
    await createKey({ userId })
    const visitor = createVisitor(http, { 'X-User': 'admin-root' })

    const page = await visitor.open(`${mount}?ownerId=${userId}`)

    expect(rowsOf(page)[0]?.Owner).toBe(userId)
    expect(asked).toEqual([[userId]])
    expect(told).toEqual(['owner_names: Error: no names today'])
  })
})
