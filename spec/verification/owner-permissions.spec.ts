import * as fc from 'fast-check'

import { systemClock } from '../../lib/database/clock'
import { createLease } from '../../lib/freshness/lease'
import { createOwnerPermissions } from '../../lib/verification/owner-permissions'
import { cachedUser } from '../support/owners'
import { runsOf } from '../support/runs'
import { permissions, type World } from './simulated-world'
import {
  actionsOf,
  answers,
  background,
  commonActions,
  maxStalenessMs,
  play,
  settle,
  type Decided,
} from './simulation'

/** Checks the permissions of owners against every order of events, with changes that the app does not report, too. */
const user = fc.constantFrom(0, 0, 0, 1)

const actions = actionsOf(
  [12, fc.record({ do: fc.constant('verify'), key: user })],
  [
    8,
    fc.record({
      do: fc.constant('change user'),
      user,
      to: fc.constantFrom([], ['READ'], ['WRITE'], ['READ', 'WRITE']),
    }),
  ],
  [24, answers(fc.constant(false))],
  [12, commonActions.look],
  [4, commonActions.poll],
  [2, commonActions.ring],
  [8, commonActions.wait],
  [3, commonActions.cutOff],
  [2, commonActions.switchTriggers],
)

interface Rules {
  maxAgeMs: number
  outageGraceMs: number
  /** True if the app reports its changes. */
  isReported: boolean
}

describe('the permissions of a key', () => {
  const runs = runsOf(4_000)

  it.each<[string, Rules]>([
    ['the bound', { maxAgeMs: 60_000, outageGraceMs: 0, isReported: true }],
    ['the bound and a grace', { maxAgeMs: 60_000, outageGraceMs: 500, isReported: true }],
    ['twice an age of 300 ms', { maxAgeMs: 300, outageGraceMs: 0, isReported: false }],
    ['twice an age of 5 s', { maxAgeMs: 5_000, outageGraceMs: 500, isReported: false }],
    ['the request, with an age of 0', { maxAgeMs: 0, outageGraceMs: 0, isReported: false }],
  ])(
    'never rest on permissions that the owner held longer ago than %s',
    async (_, { outageGraceMs, ...grantable }) => {
      function faultsOf({ key, verdict, askedAt }: Decided, world: World): string[] {
        if (!verdict.valid) return [`was ${verdict.code}`]

        const since = grantable.isReported
          ? world.now - maxStalenessMs - outageGraceMs
          : askedAt - 2 * grantable.maxAgeMs
        return permissions.names.flatMap((permission) => {
          const isHeld = verdict.apiKey.permissions.includes(permission)
          const isTrue = world.wasSince(
            since,
            ({ roles }) => roles[key]?.includes(permission) === isHeld,
          )
          return isTrue ? [] : [`${isHeld ? 'held' : 'lacked'} ${permission}`]
        })
      }

      await fc.assert(
        fc.asyncProperty(actions, async (actions) => {
          expect((await play(actions, { outageGraceMs, grantable }, faultsOf)).faults).toEqual([])
        }),
        { numRuns: runs / 5 },
      )
    },
  )
})

const alice = cachedUser('alice')
const lease = createLease({ clock: systemClock, maxStalenessMs, outageGraceMs: 0, report() {} })
/** A lease that does not end. */
const endless = { ...lease, grantedAt: { monotonic: 0, wall: 0 }, lengthMs: Infinity }

describe('the permissions of owners', () => {
  const maxAgeMs = 60_000

  /** The cache of a process to which every change is reported, and an app that answers on demand. */
  function createMemory({ maxOwners = 10 } = {}) {
    let now = 0
    const asked: { answer(held: readonly string[]): void; fail(error: Error): void }[] = []
    const changed: unknown[] = []
    const owners = createOwnerPermissions({
      background,
      grantable: () =>
        new Promise((answer, fail) => {
          asked.push({ answer, fail })
        }),
      permissions,
      feed: { lease: endless, maxStalenessMs },
      clock: { monotonic: () => now, wall: () => now },
      maxOwners,
      maxAgeMs,
      emitter: { emit() {} },
    })
    owners.listen((name) => changed.push(name))

    return {
      owners,
      asked,
      changed,
      pass(ms: number) {
        now += ms
      },
      /** The permissions of a user, if they are cached. */
      recall(userId: string) {
        return owners.get(cachedUser(userId), now, now)?.permissions.names
      },
      async answer(held: readonly string[]) {
        await settle()
        asked.shift()?.answer(held)
        await settle()
      },
      async fail() {
        await settle()
        asked.shift()?.fail(new Error('away'))
        await settle()
      },
    }
  }

  async function createFilled() {
    const memory = createMemory()
    const asking = memory.owners.ask(alice)
    await memory.answer(['READ'])
    await asking
    return memory
  }

  it('are used up to their age, and up to twice that age while they are asked for once', async () => {
    const { recall, pass, answer, asked, changed } = await createFilled()

    pass(maxAgeMs - 1)
    expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(0)

    pass(1)
    for (let use = 0; use < 3; use++) expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(1)
    pass(maxAgeMs - 1)
    expect(recall('alice')).toEqual(['READ'])
    pass(1)
    expect(recall('alice')).toBeUndefined()

    await answer(['WRITE'])
    expect(changed).toEqual(['user alice'])
  })

  it('are as old as the question, not the answer', async () => {
    const { owners, recall, pass, answer } = createMemory()
    const asking = owners.ask(alice)
    pass(2 * maxAgeMs - 1)
    await answer(['READ'])
    await asking

    expect(recall('alice')).toEqual(['READ'])
    pass(1)
    expect(recall('alice')).toBeUndefined()
  })

  it('are asked for again a second after a failure, and not with every request', async () => {
    const { recall, pass, fail, asked } = await createFilled()
    pass(maxAgeMs)
    recall('alice')
    await fail()

    pass(999)
    expect(recall('alice')).toEqual(['READ'])
    await settle()
    expect(asked).toHaveLength(0)
    pass(1)
    expect(recall('alice')).toEqual(['READ'])
    await settle()

    expect(asked).toHaveLength(1)
  })

  it('are evicted with the user, and a question under way is not joined after that', async () => {
    const { owners, recall, answer, asked } = await createFilled()
    const early = owners.ask(alice)
    await settle()

    owners.evict('user alice')
    owners.evict('user nobody')
    expect(recall('alice')).toBeUndefined()
    const late = owners.ask(alice)
    const later = owners.ask(alice)
    await settle()
    expect(asked).toHaveLength(2)

    await answer(['READ'])
    expect(recall('alice')).toBeUndefined()
    await answer(['WRITE'])
    expect(recall('alice')).toEqual(['WRITE'])
    expect((await early).freshness.isFollowed).toBe(false)
    expect(await late).toBe(await later)
  })

  it('are not replaced by an answer to an older question', async () => {
    const { owners, recall, pass, asked, answer } = createMemory()
    const first = owners.ask(alice)
    await settle()
    pass(maxAgeMs)
    const second = owners.ask(alice)
    await settle()
    const [older] = asked.splice(0, 1)

    await answer(['WRITE'])
    older?.answer(['READ'])
    await Promise.all([first, second])

    expect(recall('alice')).toEqual(['WRITE'])
  })

  it('are cached for a number of users, and stay for users in use', async () => {
    const { owners, recall, answer } = createMemory({ maxOwners: 3 })
    for (const userId of ['alice', 'bob', 'carol']) {
      const asking = owners.ask(cachedUser(userId))
      await answer(['READ'])
      await asking
    }
    recall('alice')
    recall('carol')

    const asking = owners.ask(cachedUser('dave'))
    await answer(['READ'])
    await asking

    const known = ['alice', 'bob', 'carol', 'dave'].filter((userId) => recall(userId))
    expect(known).toEqual(['alice', 'carol', 'dave'])
  })
})
