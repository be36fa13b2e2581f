import { jsonLines, useCli } from '../support/cli'
import { newUser } from '../support/keys'

const { cli, terminal, apiKeys, createKey, rows } = useCli()

/** Makes keys of a new user, one of them revoked. Returns the user. */
async function createOwner() {
  const user = newUser()
  await createKey({ userId: user, name: 'Laptop' })
  await createKey({ userId: user, status: 'REVOKED' })
  return user
}

function erase(user: string, ...options: string[]) {
  return ['erase', '--user', user, '--reason', 'Request 4711', ...options]
}

/** True if a table of ours still names a user. */
async function isNamed(user: string): Promise<boolean> {
  const found = await rows(
    `SELECT FROM api_keys WHERE user_id = $1 UNION ALL SELECT FROM api_key_events AS event WHERE event::text LIKE '%' || $1 || '%'`,
    [user],
  )
  return found.length > 0
}

describe('erase', () => {
  it('counts in a dry run, asks on a terminal, and erases', async () => {
    const user = await createOwner()

    const dry = await cli(erase(user, '--revoke', '--dry-run', '--json'))
    const living = await apiKeys.countRevocable({ type: 'user', id: user })
    const command = terminal(erase(user, '--revoke'))
    await command.shows('[y/N]')
    command.type('y\r')
    const { code, shown } = await command.ended()

    expect(jsonLines(dry.stdout)).toEqual([{ keys: 2, createdKeys: 0, events: 3, hours: 0 }])
    expect(living).toEqual({ keys: 1 })
    expect({ code, isNamed: await isNamed(user) }).toEqual({ code: 0, isNamed: false })
    expect(shown).toContain(`Erase user ${user}? 2 keys, 0 keys of others that name the owner, `)
    const { events } = await apiKeys.events({ action: 'owner_erased' })
    expect(events[0]).toMatchObject({ actorType: 'system', reason: 'Request 4711' })
  })

  it('changes nothing without a yes, or if keys are not revoked', async () => {
    const user = await createOwner()

    const [unconfirmed, living] = await Promise.all([
      cli(erase(user, '--revoke')),
      cli(erase(user, '--yes')),
    ])

    expect(unconfirmed).toMatchObject({ code: 5, stdout: '' })
    expect(unconfirmed.stderr).toContain('Add --yes')
    expect(living).toMatchObject({ code: 3, stderr: expect.stringContaining('Revoke them first') })
    expect(await apiKeys.countRevocable({ type: 'user', id: user })).toEqual({ keys: 1 })
  })

  it('finds nothing the second time, and nothing of an owner that is unknown, and asks nothing then', async () => {
    const user = await createOwner()
    await cli(erase(user, '--revoke', '--yes'))

    const [again, unknown] = await Promise.all([
      cli(erase(user, '--json')),
      cli(erase(newUser(), '--json')),
    ])

    const nothing = '{"keys":0,"createdKeys":0,"events":0,"hours":0}\n'
    expect(again).toEqual({ code: 0, stdout: nothing, stderr: '' })
    expect(unknown).toEqual(again)
  })

  it('needs an owner, and a reason', async () => {
    const [nobody, noReason, empty] = await Promise.all([
      cli(['erase', '--reason', 'Request 4711', '--yes']),
      cli(['erase', '--user', 'alice', '--yes']),
      cli(['erase', '--user', 'alice', '--reason', '', '--yes']),
    ])

    expect([nobody, noReason, empty].map(({ code }) => code)).toEqual([2, 2, 2])
    expect(nobody.stderr).toContain('--user ID')
    expect(noReason.stderr).toContain('--reason')
    expect(empty.stderr).toContain('reason must have 1 to 500 characters')
  })

  it('has changed nothing if the database is away, and says so', async () => {
    const user = await createOwner()
    const env = { DATABASE_URL: 'postgres://127.0.0.1:9/none' }

    const { code, stderr } = await cli(erase(user, '--revoke', '--yes'), { env })

    expect({ code, stderr }).toMatchObject({
      code: 4,
      stderr: expect.stringMatching(/^error: The database cannot be used/),
    })
    expect(await apiKeys.countRevocable({ type: 'user', id: user })).toEqual({ keys: 1 })
  })
})
