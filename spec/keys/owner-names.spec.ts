import { ApiKeysError } from '../../lib'
import { createBackground } from '../../lib/database/background'
import { createEmitter } from '../../lib/keys/emitter'
import { createOwnerNames, type AskOwnerNames } from '../../lib/keys/owner-names'
import type { Owner } from '../../lib/keys/owner'

const user = (id: string): Owner => ({ type: 'user', id })
const [alice, bob, eve] = [user('alice'), user('bob'), user('eve')]

const upperCase: AskOwnerNames = (owners) =>
  owners.map((owner) => ({ ...owner, name: String(owner.id).toUpperCase() }))

const fail = () => {
  throw new Error('no names today')
}

/** Creates the function with a clock that the spec moves, and an answer that it may replace. */
function createNames(limitMs?: number) {
  let nowMs = 0
  const clock = { monotonic: () => nowMs, wall: () => nowMs }
  const emitter = createEmitter()
  const asked: string[][] = []
  const errors: unknown[] = []
  emitter.on('error', ({ error }) => errors.push(error))
  const app: { answer: (owners: readonly Owner[]) => unknown } = { answer: upperCase }
  const ask = (owners: readonly Owner[]) => {
    asked.push(owners.map(({ id }) => String(id)))
    // Apps without types may answer anything.
    return app.answer(owners) as ReturnType<AskOwnerNames>
  }
  const namesOf = createOwnerNames(ask, {
    background: createBackground(),
    clock,
    emitter,
    ...(limitMs !== undefined && { limitMs }),
  })

  return {
    app,
    asked,
    errors,
    async namesOf(...owners: Owner[]) {
      return Object.fromEntries(await namesOf(owners))
    },
    pass(ms: number) {
      nowMs += ms
    },
  }
}

describe('a name', () => {
  it('is cached for a minute, and no name is, too', async () => {
    const { app, asked, namesOf, pass } = createNames()
    app.answer = (owners) => upperCase(owners.filter(({ id }) => id === 'alice'))
    await namesOf(alice, bob)

    pass(59_999)
    expect(await namesOf(alice, bob)).toEqual({ 'user alice': 'ALICE' })
    expect(asked).toEqual([['alice', 'bob']])

    pass(1)
    await namesOf(alice, bob)
    expect(asked).toEqual([
      ['alice', 'bob'],
      ['alice', 'bob'],
    ])
  })

  it('is shown no longer than a minute while the app fails', async () => {
    const { app, namesOf, pass } = createNames()
    await namesOf(alice)
    app.answer = fail

    pass(59_999)
    expect(await namesOf(alice, bob)).toEqual({ 'user alice': 'ALICE' })
    pass(1)
    expect(await namesOf(alice, bob)).toEqual({})
    pass(10_000)
    expect(await namesOf(alice, bob)).toEqual({})
  })

  it('keeps the joiners between letters, which Persian and Hindi need', async () => {
    const { app, namesOf } = createNames()
    const name = 'علی\u200Cرضا क्\u200Dष'
    app.answer = () => [{ ...alice, name: `\u202E${name}\u200B` }]

    expect(await namesOf(alice)).toEqual({ 'user alice': name })
  })

  it('of joiners alone is none', async () => {
    const { app, namesOf } = createNames()
    app.answer = () => [{ ...alice, name: '\u200D \u200C' }]

    expect(await namesOf(alice)).toEqual({})
  })
})

describe('ten thousand cached names', () => {
  const many = Array.from({ length: 9_998 }, (_, place) => user(`user-${place}`))

  it('lose the oldest for a new one', async () => {
    const { asked, namesOf } = createNames()
    await namesOf(alice)
    await namesOf(bob, ...many)
    await namesOf(eve)
    asked.length = 0

    await namesOf(bob, ...many, eve)
    await namesOf(alice)

    expect(asked).toEqual([['alice']])
  })

  it('are all on a page that has more of them', async () => {
    const { namesOf } = createNames()

    const names = await namesOf(...many, ...many.map(({ id }) => user(`other-${id}`)))

    expect(Object.keys(names)).toHaveLength(19_996)
  })

  it('are evicted by no page while another page waits for a name', async () => {
    const { app, namesOf } = createNames()
    await namesOf(alice)
    app.answer = async (owners) => {
      app.answer = upperCase
      await namesOf(eve, ...many, user('one'), user('other'))
      return upperCase(owners)
    }

    const names = await namesOf(alice, bob)

    expect(names).toEqual({ 'user alice': 'ALICE', 'user bob': 'BOB' })
  })
})

describe('an app that gives no names', () => {
  it.each<[string, string, () => unknown]>([
    ['throws', 'Error: no names today', fail],
    ['rejects', 'Error: no names today', async () => fail()],
    [
      'returns no list',
      'TypeError: createApiKeys: the option ownerNames must return a list of owners',
      () => ({ alice: 'Alice' }),
    ],
  ])('because it %s, is asked again after ten seconds', async (_, reason, answer) => {
    const { app, asked, errors, namesOf, pass } = createNames()
    app.answer = answer

    expect(await namesOf(alice)).toEqual({})
    pass(9_999)
    expect(await namesOf(bob)).toEqual({})
    expect([asked, errors.map(String)]).toEqual([[['alice']], [reason]])

    pass(1)
    app.answer = upperCase
    expect(await namesOf(bob)).toEqual({ 'user bob': 'BOB' })
    expect(errors).toHaveLength(1)
  })

  it('in time is waited for no longer', async () => {
    const { app, asked, errors, namesOf } = createNames(1)
    app.answer = () => new Promise(() => {})

    expect([await namesOf(alice), await namesOf(bob)]).toEqual([{}, {}])

    expect(asked).toEqual([['alice']])
    const message = 'createApiKeys: the option ownerNames has not answered within 1 ms'
    expect(errors.map(String)).toEqual([`Error: ${message}`])
  })

  it('because it met an outage, is not said to be late', async () => {
    const { app, errors, namesOf } = createNames()
    const outage = new ApiKeysError('database_unavailable')
    app.answer = () => Promise.reject(outage)

    await namesOf(alice)

    expect(errors).toEqual([new Error('createApiKeys: the option ownerNames has failed')])
    expect((errors[0] as Error).cause).toBe(outage)
  })
})
