import * as fc from 'fast-check'

import { ApiKeysError, type ApiKeyEvent, type ApiKeyRecord } from '../../lib'
import type { Permission, TestApp } from '../support/app'
import { runsOf } from '../support/runs'
import { useWorld } from '../support/world'

type Key = ApiKeyRecord<TestApp>

/** The moves of a round. Each has a reason of its own, so that its entry can be found in the audit trail. */
type Move =
  | { action: 'suspended' | 'reactivated' | 'revoked' }
  | { action: 'updated'; name: string }
  | { action: 'permissions_changed'; permissions: Permission[] }

const rounds = Number(process.env.RACES_ROUNDS ?? runsOf(250, 50))
const movesPerRound = 20
const roundsAtOnce = 4
const mostSeen = 4
const timeLimitMs = 120_000

const move = fc.oneof<fc.MaybeWeightedArbitrary<Move>[]>(
  { weight: 6, arbitrary: fc.constant({ action: 'suspended' }) },
  { weight: 6, arbitrary: fc.constant({ action: 'reactivated' }) },
  { weight: 1, arbitrary: fc.constant({ action: 'revoked' }) },
  {
    weight: 3,
    arbitrary: fc.record({
      action: fc.constant('updated'),
      name: fc.constantFrom('Red', 'Green'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      action: fc.constant('permissions_changed'),
      permissions: fc.subarray<Permission>(['READ_GRAPH', 'READ_BLOCK'], { minLength: 1 }),
    }),
  },
)

const { apiKeys: first, createKey, createProcess } = useWorld()
const { apiKeys: second } = createProcess()

async function make(move: Move, id: string, number: number): Promise<Key> {
  const apiKeys = number % 2 === 0 ? first : second
  const options = { reason: `${number}` }

  switch (move.action) {
    case 'suspended':
      return apiKeys.suspend(id, options)
    case 'reactivated':
      return apiKeys.reactivate(id, options)
    case 'revoked':
      return apiKeys.revoke(id, options)
    case 'updated':
      return apiKeys.update(id, { name: move.name }, options)
    case 'permissions_changed':
      return apiKeys.setPermissions(id, move.permissions, options)
  }
}

/** Makes all moves at once, and watches the key. */
async function play(moves: readonly Move[]) {
  const { id } = await createKey()

  const watch = new AbortController()
  const watching = watchUntil(watch.signal, id)
  const outcomes = await Promise.allSettled(moves.map((each, number) => make(each, id, number)))
  watch.abort()

  const seen = await watching
  const end = await first.get(id)
  const { events } = await first.events({ apiKeyId: id, limit: 100 })
  return { moves, outcomes, seen, end, events: events.toReversed() }
}

async function watchUntil(signal: AbortSignal, id: string): Promise<Key[]> {
  const seen: Key[] = []
  while (!signal.aborted && seen.length < mostSeen) seen.push(await first.get(id))
  return seen
}

type Round = Awaited<ReturnType<typeof play>>

/** Returns every rule that a round has broken. */
function findFaults({ moves, outcomes, seen, end, events }: Round): string[] {
  const faults: string[] = []
  function demand(isFine: boolean, claim: string) {
    if (!isFine) faults.push(claim)
  }
  const isRevoked = moves.some(({ action }) => action === 'revoked')
  const results = outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  const keys = [...results, ...seen, end]

  // The entries lead from the created key to the present key.
  const states = followTrail(events, faults)
  demand(states.at(-1) === stateOf(end), 'the last entry is how the key ended')
  for (const key of keys) demand(states.includes(stateOf(key)), `${stateOf(key)} is in the trail`)

  // Each entry belongs to one move, and each move that changed the key has its entry.
  const entries = new Map(events.slice(1).map((event) => [Number(event.reason), event]))
  demand(entries.size === events.length - 1, 'no move has two entries')
  for (const [number, { action }] of moves.entries()) {
    const outcome = outcomes[number]
    const entry = entries.get(number)
    if (outcome?.status === 'rejected') {
      const { reason: error } = outcome
      const isRefusal = error instanceof ApiKeysError && error.code === 'api_key_revoked'
      demand(isRefusal && isRevoked && action !== 'revoked', `${error} is a refusal`)
      demand(!entry, 'what was refused has no entry')
    } else {
      demand(!entry || entry.action === action, 'an entry has the action of its move')
    }
  }

  // A revoked key stays revoked, with one `revokedAt`.
  demand((end.status === 'REVOKED') === isRevoked, 'revoke wins')
  demand(!isRevoked || events.at(-1)?.action === 'revoked', 'nothing comes after revoke')
  const revoked = keys.filter(({ status }) => status === 'REVOKED')
  demand(
    revoked.every(({ revokedAt }) => revokedAt?.getTime() === end.revokedAt?.getTime()),
    'revokedAt does not move',
  )
  demand(
    keys.every(({ status, revokedAt }) => (status === 'REVOKED') === (revokedAt !== null)),
    'revokedAt is there once the key is revoked',
  )
  demand(
    seen.every(({ status }, place) => {
      return status === 'REVOKED' || seen[place - 1]?.status !== 'REVOKED'
    }),
    'REVOKED stays',
  )
  return faults
}

/** The states that the entries lead through, each from the one before. */
function followTrail(events: readonly ApiKeyEvent[], faults: string[]): string[] {
  let state: Record<string, unknown> = {}
  return events.map(({ action, before, after }, place) => {
    const names = Object.keys(after ?? {})
    const known = place === 0 ? null : Object.fromEntries(names.map((name) => [name, state[name]]))
    if (JSON.stringify(known) !== JSON.stringify(before)) faults.push(`${action} is off the chain`)
    if (names.length === 0) faults.push(`${action} changes nothing`)

    state = { ...state, ...after }
    return stateOf(state as never)
  })
}

function stateOf({ name, permissions, status }: Pick<Key, 'name' | 'permissions' | 'status'>) {
  return JSON.stringify([name, permissions, status])
}

describe('a key', () => {
  it(
    `keeps to its states and to the truth under ${movesPerRound} moves at once, ${rounds} times`,
    async () => {
      const games = fc.sample(
        fc.array(move, { minLength: movesPerRound, maxLength: movesPerRound }),
        { numRuns: rounds, seed: 2026 },
      )
      const played: Round[] = []
      async function playOn() {
        for (let moves = games.pop(); moves; moves = games.pop()) played.push(await play(moves))
      }

      await Promise.all(Array.from({ length: roundsAtOnce }, playOn))

      expect(played).toHaveLength(rounds)
      expect(played.flatMap((round) => findFaults(round))).toEqual([])
      // The moves did compete: some were refused, some were not, and the key was seen in between.
      const outcomes = played.flatMap((round) => round.outcomes.map(({ status }) => status))
      expect(new Set(outcomes)).toEqual(new Set(['fulfilled', 'rejected']))
      const seen = played.flatMap((round) => round.seen.map(({ status }) => status))
      expect(new Set(seen).size).toBe(3)
    },
    timeLimitMs,
  )
})
