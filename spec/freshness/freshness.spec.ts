import * as fc from 'fast-check'

import { runsOf } from '../support/runs'
import { isSameOwner } from '../../lib/keys/owner'
import { ownerOf, statusOf, type Status, type World } from '../verification/simulated-world'
import {
  actionsOf,
  answers,
  commonActions,
  maxStalenessMs,
  play,
  seldom,
  type Action,
  type Decided,
} from '../verification/simulation'

/*
 * Checks the rules of freshness against every order of events. Chance finds faults that many orders cause. A fault that
 * only a rare order causes has a scenario of its own.
 */

const key = fc.constantFrom(0, 0, 0, 1, 2, 2)

const actions = actionsOf(
  [14, fc.record({ do: fc.constant('verify'), key })],
  [
    6,
    fc.record({
      do: fc.constant('change'),
      key,
      to: fc.constantFrom('ACTIVE', 'ACTIVE', 'REVOKED', 'SUSPENDED', 'MISSING'),
    }),
  ],
  [
    4,
    fc.record({ do: fc.constant('create'), key, by: fc.constantFrom('this process', 'another') }),
  ],
  [3, fc.record({ do: fc.constant('suspend'), user: key, to: fc.boolean() })],
  [2, fc.record({ do: fc.constant('transfer'), key, user: key })],
  [4, fc.record({ do: fc.constant('unrevoke'), key })],
  [1, fc.record({ do: fc.constant('change all'), to: fc.constantFrom('ACTIVE', 'SUSPENDED') })],
  [24, answers(seldom)],
  [6, commonActions.look],
  [2, commonActions.ring],
  [4, commonActions.poll],
  [8, commonActions.wait],
  [1, fc.record({ do: fc.constant('sleep'), ms: fc.constantFrom(1, 400, 999, 1_000, 1_001) })],
  [1, fc.record({ do: fc.constant('set the clock'), ms: fc.integer({ min: -2_000, max: 2_000 }) })],
  [1, fc.constant({ do: 'lose the time' })],
  [1, fc.record({ do: fc.constant('lose changes'), count: fc.integer({ min: 1, max: 2 }) })],
  [1, commonActions.cutOff],
  [1, commonActions.switchTriggers],
  [1, fc.constant({ do: 'go idle' })],
)

/**
 * Plays the actions, and finds the verdicts that rest on a state from before the bound, or on a state that is known to
 * be over.
 */
function playWith(outageGraceMs: number, actions: readonly Action[]) {
  function faultsOf(decided: Decided, world: World): string[] {
    const { key, verdict } = decided
    const said = verdict.valid ? 'active' : verdict.code
    // An outage makes no bad key good, and no new key unknown.
    const graceMs = said !== 'unknown' && world.pollHasFailed ? outageGraceMs : 0
    const oldestAt = world.now - maxStalenessMs - graceMs
    const knownFrom = said === 'unknown' ? absenceKnownFrom(decided, world) : decided.knownFrom
    // A change that was read and then lost is not reported. The row may be used for as long as the bound.
    const since = world.hasLostWithin(maxStalenessMs) ? oldestAt : Math.max(oldestAt, knownFrom)
    const status = said === 'unknown' ? 'MISSING' : said.toUpperCase()
    const isTrue = world.wasSince(
      since,
      (content) =>
        statusOf(content, key) === status &&
        (!verdict.valid || isSameOwner(ownerOf(content, key), verdict.apiKey.owner)),
    )
    return isTrue ? [] : [`was called ${said}`]
  }

  return play(actions, { outageGraceMs }, faultsOf)
}

/** The time up to which the process knows if a key was added. The log does not report a key that another process has created. */
function absenceKnownFrom({ key, askedAt, knownFrom }: Decided, world: World): number {
  const addition = world.additionOf(key)
  if (addition === undefined || addition.isLogged) return knownFrom
  return addition.isOwn && addition.at <= askedAt ? addition.at : -Infinity
}

const verify = (key: number): Action => ({ do: 'verify', key })
const change = (key: number, to: Status): Action => ({ do: 'change', key, to })
const unrevoke = (key: number): Action => ({ do: 'unrevoke', key })
const suspend = (user: number): Action => ({ do: 'suspend', user, to: true })
const reactivate = (user: number): Action => ({ do: 'suspend', user, to: false })
const transfer = (key: number, user: number): Action => ({ do: 'transfer', key, user })
const create = (key: number): Action => ({ do: 'create', key, by: 'another' })
const createOwn = (key: number): Action => ({ do: 'create', key, by: 'this process' })
const loseChanges = (count: number): Action => ({ do: 'lose changes', count })
const look = (read: number): Action => ({ do: 'look', read })
const answer = (read: number): Action => ({ do: 'answer', read, fails: false, standby: false })
const fail = (read: number): Action => ({ do: 'answer', read, fails: true, standby: false })
const wait = (ms: number): Action => ({ do: 'wait', ms })
const sleep = (ms: number): Action => ({ do: 'sleep', ms })
const poll: Action = { do: 'poll' }
const switchTriggers: Action = { do: 'switch triggers' }
const loseTheTime: Action = { do: 'lose the time' }

/** The log is read, then a key. There is a lease. */
const start = [verify(1), answer(0), answer(0)]
/** There is a lease all the time, and the rows that were read before are older than the bound. */
const outlastTheBound = [wait(600), poll, answer(0), wait(600)]
/** The log is read again, then the key. */
const askAgain = [answer(0), answer(0)]

/** The cases that only a rare order of events breaks, and the verdicts that are right. */
const scenarios: [name: string, steps: Action[][], verdicts: string[]][] = [
  [
    'does not rest on a look-up that was under way when a change became known',
    [
      start,
      [verify(0), look(0), wait(1), change(0, 'REVOKED'), poll, answer(1), wait(1)],
      [verify(0), answer(0)],
      askAgain,
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest on a look-up that was under way when the owner was suspended',
    [
      start,
      [verify(0), look(0), wait(1), suspend(0), poll, answer(1), wait(1)],
      [verify(0), answer(0)],
      askAgain,
    ],
    ['active', 'suspended', 'suspended'],
  ],
  [
    'refuses all cached keys of a suspended owner once the log is read, also a key that was transferred',
    [
      [...start, transfer(0, 1), poll, answer(0), verify(0), answer(0), verify(1)],
      [suspend(1), poll, answer(0), verify(0), answer(0), verify(1), answer(0)],
      [reactivate(1), poll, answer(0), verify(0), answer(0), verify(1), answer(0)],
    ],
    ['active', 'active', 'active', 'suspended', 'suspended', 'active', 'active'],
  ],
  [
    'lets a key that was transferred from a suspended owner work',
    [
      [suspend(0), ...start, verify(0), answer(0), transfer(0, 1), poll, answer(0)],
      [verify(0), answer(0)],
    ],
    ['active', 'suspended', 'active'],
  ],
  [
    'accepts a key whose revocation was undone once the log is read, and refuses it once it is revoked again',
    [
      [...start, change(1, 'REVOKED'), poll, answer(0), verify(1), answer(0)],
      [unrevoke(1), poll, answer(0), verify(1), answer(0)],
      [change(1, 'REVOKED'), poll, answer(0), verify(1), answer(0)],
    ],
    ['active', 'revoked', 'active', 'revoked'],
  ],
  [
    'does not rest on a look-up from between a revocation and its undoing, nor on a look-up from before a second revocation',
    [
      [...start, change(0, 'REVOKED'), poll, answer(0), verify(0), look(0), wait(1)],
      [unrevoke(0), wait(1), change(0, 'REVOKED'), poll, answer(1), wait(1)],
      [answer(0), answer(0), answer(0)],
    ],
    ['active', 'revoked'],
  ],
  [
    'does not rest on one that was under way when nobody knew what had changed',
    [
      start,
      [verify(0), look(0), wait(1)],
      [switchTriggers, change(0, 'REVOKED'), switchTriggers, poll, answer(1), wait(1)],
      [verify(0), answer(0)],
      askAgain,
      outlastTheBound,
      [verify(0)],
    ],
    ['active', 'revoked', 'revoked', 'revoked'],
  ],
  [
    'does not rest on one that was known to be old before it was asked for',
    [
      [...start, wait(600), poll, wait(100), verify(0), look(1)],
      [change(0, 'REVOKED'), wait(100), answer(0), wait(850)],
      [verify(0), fail(1), answer(1), answer(0)],
      askAgain,
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest on a change that was lost and whose number was given out once more',
    [
      start,
      [verify(0), change(1, 'SUSPENDED'), look(0), loseChanges(1)],
      [change(0, 'REVOKED'), poll, answer(1), answer(0)],
      askAgain,
      outlastTheBound,
      [verify(0)],
    ],
    ['active', 'revoked', 'revoked'],
  ],
  [
    'does not rest for long on a change that was lost and never logged',
    [
      [change(0, 'SUSPENDED'), ...start],
      [switchTriggers, change(0, 'ACTIVE'), verify(0), look(0), loseChanges(2), answer(0)],
      [answer(0), ...outlastTheBound],
      [verify(0), answer(0)],
    ],
    ['active', 'active', 'suspended'],
  ],
  [
    'does not take a key for unknown for long whose removal was lost',
    [
      [change(2, 'ACTIVE'), ...start],
      [change(2, 'MISSING'), verify(2), look(0), loseChanges(1), answer(0)],
      [answer(0), ...outlastTheBound],
      [verify(2), answer(0)],
    ],
    ['active', 'unknown', 'active'],
  ],
  [
    'never reports a key as unknown that was created longer ago than the bound, whatever is polled',
    [
      start,
      [verify(2), answer(0), create(2), wait(500), poll, answer(0), wait(499), verify(2)],
      [wait(1), verify(2), answer(0)],
    ],
    ['active', 'unknown', 'unknown', 'active'],
  ],
  [
    'does not add the time of a slow answer to the bound of a key that was created during it',
    [
      start,
      [verify(2), look(0), wait(1), create(2), wait(500), answer(0), poll, answer(0)],
      [wait(498), verify(2), wait(1), verify(2), answer(0)],
    ],
    ['active', 'unknown', 'unknown', 'active'],
  ],
  [
    'accepts a key that SQL has added once the log is read',
    [
      [...start, verify(2), answer(0), change(2, 'ACTIVE'), poll, answer(0)],
      [verify(2), answer(0)],
    ],
    ['active', 'unknown', 'active'],
  ],
  [
    'accepts a key at once that the process itself creates, although it was just looked up',
    [
      [...start, verify(2), answer(0), createOwn(2)],
      [verify(2), answer(0)],
    ],
    ['active', 'unknown', 'active'],
  ],
  [
    'accepts a key at once that the process itself creates, although it is being looked up',
    [
      [...start, verify(2), look(0), wait(1), createOwn(2), verify(2), answer(0)],
      askAgain,
      [verify(2)],
    ],
    ['active', 'active', 'active', 'active'],
  ],
  [
    'does not rest on a key whose creation was lost',
    [
      [...start, create(2), verify(2), answer(0), loseChanges(1), poll, answer(0)],
      [verify(2)],
      [answer(0)],
    ],
    ['active', 'active', 'unknown'],
  ],
  [
    'does not rest on the state before a sleep, although the clock was set back',
    [start, [sleep(1_001), loseTheTime, change(1, 'REVOKED'), wait(1), verify(1)], askAgain],
    ['active', 'revoked'],
  ],
  [
    'does not rest on an outage that is over',
    [
      start,
      [poll, fail(0), poll, answer(0), change(1, 'REVOKED'), wait(1_001)],
      [verify(1)],
      askAgain,
    ],
    ['active', 'revoked'],
  ],
  [
    'rests on the whole cache again after one poll',
    [start, [verify(0), answer(0), wait(1_001)], [verify(1), answer(0), verify(0)]],
    ['active', 'active', 'active', 'active'],
  ],
  [
    'may rest on a look-up that was sent after the last poll until the bound of the look-up is over, and no longer',
    [
      [...start, wait(600), verify(0), answer(0), wait(500), verify(0), wait(499), verify(0)],
      [wait(1), verify(0), fail(0), fail(0), fail(0)],
    ],
    ['active', 'active', 'active', 'active', 'unavailable'],
  ],
  [
    'does not wait for an answer that comes too late to be used',
    [
      start,
      [verify(0), look(0), change(1, 'SUSPENDED'), poll, answer(1)],
      [wait(600), poll, answer(1), wait(600)],
      [verify(0), answer(0), answer(1)],
    ],
    ['active', 'active', 'active'],
  ],
]

const runs = runsOf(10_000)

describe('a verdict', () => {
  it.each([0, 500])(
    'never rests on a state from before the bound, nor on a state that is known to be over, with a grace of %i ms',
    async (outageGraceMs) => {
      await fc.assert(
        fc.asyncProperty(actions, async (actions) => {
          expect((await playWith(outageGraceMs, actions)).faults).toEqual([])
        }),
        { numRuns: runs / 2 },
      )
    },
    Math.max(120_000, 20 * runs),
  )

  describe.each([0, 500])('with a grace of %i ms', (outageGraceMs) => {
    it.each(scenarios)('%s', async (_, steps, verdicts) => {
      expect(await playWith(outageGraceMs, steps.flat())).toEqual({ verdicts, faults: [] })
    })
  })

  it('does not report a key as unknown in the grace of an outage, although it was just looked up', async () => {
    const steps = [
      [...start, wait(600), verify(2), answer(0), create(2), poll, fail(0), wait(401)],
      [verify(1), verify(2), answer(0)],
    ]

    expect(await playWith(500, steps.flat())).toEqual({
      verdicts: ['active', 'unknown', 'active', 'active'],
      faults: [],
    })
  })
})
