import { newUser } from '../support/keys'
import { runsOf } from '../support/runs'
import { until } from '../support/until'
import { useWorld, type CreatedKey } from '../support/world'

/*
 * Two processes change an owner, or hand a key on, at the same moment. Each round checks what must hold whichever of the two comes
 * first.
 */

const rounds = Number(process.env.RACES_ROUNDS ?? runsOf(200, 5))
const timeLimitMs = 600_000

const maxStalenessMs = 300
const world = useWorld({ options: { maxStalenessMs } })
const { apiKeys: first, createKey, rows } = world
const { apiKeys: second } = world.createProcess({ maxStalenessMs })
const { apiKeys: small } = world.createProcess({ maxStalenessMs, cacheSize: 2 })

function user() {
  return { type: 'user', id: newUser() } as const
}

/** The number of rounds that run beside each other. Each has an owner and a key of its own. */
const atOnce = 50

/** Runs the rounds, and returns the faults that they find. */
async function race(round: () => Promise<string | null>): Promise<string[]> {
  const faults: string[] = []
  let started = 0
  async function run() {
    while (started < rounds) {
      const number = started++
      const fault = await round()
      if (fault !== null) faults.push(`round ${number}: ${fault}`)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, run))
  return faults
}

/** Returns why calls failed, apart from refusals with these codes. */
function failuresOf(results: readonly PromiseSettledResult<unknown>[], ...allowed: string[]) {
  return results.flatMap((result) => {
    if (result.status === 'fulfilled') return []
    const { code } = result.reason as { code?: string }
    return code !== undefined && allowed.includes(code) ? [] : [String(result.reason)]
  })
}

/** Verifies a key, again after a 503: a busy machine does not always answer within a second. */
async function isValid(by: Pick<typeof first, 'verify'>, plainTextKey: string): Promise<boolean> {
  for (;;) {
    try {
      return (await by.verify(plainTextKey)).valid
    } catch (error) {
      if ((error as { code?: string }).code !== 'database_unavailable') throw error
    }
  }
}

async function isRefused({ plainTextKey }: Pick<CreatedKey, 'plainTextKey'>) {
  for (const each of [first, second]) if (await isValid(each, plainTextKey)) return false
  return true
}

async function owners(id: string) {
  const { events } = await first.events({ apiKeyId: id, limit: 100 })
  return events.map(({ owner }) => owner?.id)
}

describe('at the same moment', () => {
  it(
    'a suspension and a look-up: no process accepts the key after the bound',
    async () => {
      const faults = await race(async () => {
        const owner = user()
        const key = await createKey({ userId: owner.id })
        const results = await Promise.allSettled([
          isValid(second, key.plainTextKey),
          first.suspendOwner(owner, { everywhere: true }),
          isValid(small, key.plainTextKey),
          isValid(second, key.plainTextKey),
        ])
        const isGood = (await isRefused(key)) && !(await isValid(small, key.plainTextKey))
        return failuresOf(results)[0] ?? (isGood ? null : 'accepted')
      })
      expect(faults).toEqual([])
    },
    timeLimitMs,
  )

  it(
    'a suspension and a creation: the key is not made, or it is refused',
    async () => {
      const faults = await race(async () => {
        const owner = user()
        const results = await Promise.allSettled([
          second.create({ userId: owner.id, name: 'A', permissions: ['READ_GRAPH'] }),
          first.suspendOwner(owner),
        ])
        const [created] = results
        const fault = failuresOf(results, 'owner_suspended')[0]
        if (fault !== undefined || created.status === 'rejected') return fault ?? null
        return (await isValid(first, created.value.plainTextKey)) ? 'accepted' : null
      })
      expect(faults).toEqual([])
    },
    timeLimitMs,
  )

  it(
    'a transfer and a revocation: the key is revoked, and both are in the trail or the transfer is refused',
    async () => {
      const faults = await race(async () => {
        const [key, to] = [await createKey({ userId: newUser() }), user()]
        const results = await Promise.allSettled([
          first.transfer(key.id, to),
          second.revoke(key.id),
        ])
        const fault = failuresOf(results, 'api_key_revoked')[0]
        const { status, owner } = await first.get(key.id)
        const isRight = results[0].status === 'fulfilled' ? owner.id === to.id : owner.id !== to.id
        return fault ?? (status === 'REVOKED' && isRight ? null : `${status} ${owner.id}`)
      })
      expect(faults).toEqual([])
    },
    timeLimitMs,
  )

  it.each(['before', 'after'] as const)(
    'a transfer and revokeAll of the owner %s: no living key is left behind',
    async (whose) => {
      const faults = await race(async () => {
        const [key, to] = [await createKey({ userId: newUser() }), user()]
        const from = { type: 'user', id: key.userId } as const
        const results = await Promise.allSettled([
          first.transfer(key.id, to),
          second.revokeAll(whose === 'before' ? from : to),
        ])
        const fault = failuresOf(results, 'api_key_revoked')[0]
        if (fault !== undefined) return fault
        const { status, owner } = await first.get(key.id)
        // The revocation saw the key if and only if its owner had it at that moment.
        const isRevoked = results[1].status === 'fulfilled' && results[1].value.keys === 1
        const isFree = whose === 'before' ? owner.id === to.id : true
        return isRevoked === (status === 'REVOKED') && (isRevoked || isFree)
          ? null
          : `${status} ${owner.id}`
      })
      expect(faults).toEqual([])
    },
    timeLimitMs,
  )

  it(
    'a transfer and a transfer back: the trail tells one story that ends with the owner of the key',
    async () => {
      const faults = await race(async () => {
        const [key, to] = [await createKey({ userId: newUser() }), user()]
        const from = { type: 'user', id: key.userId } as const
        const results = await Promise.allSettled([
          first.transfer(key.id, to),
          second.transfer(key.id, from),
          first.transfer(key.id, to),
        ])
        const { owner } = await first.get(key.id)
        const [last] = await owners(key.id)
        return failuresOf(results)[0] ?? (last === owner.id ? null : `${last} ${owner.id}`)
      })
      expect(faults).toEqual([])
      expect(await first.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    },
    timeLimitMs,
  )

  it(
    'suspensions by SQL and evictions of owners: no process accepts a key after the bound',
    async () => {
      // Each round suspends half of the owners. The cache has two keys.
      const keys = await Promise.all(
        Array.from({ length: runsOf(100, 10) }, () => createKey({ userId: newUser() })),
      )
      const half = keys.length / 2
      const accepted: string[] = []
      for (let round = 0; round < rounds / half; round++) {
        const suspended = keys.filter((_, index) => index % 2 === round % 2)
        const userIds = suspended.map(({ userId }) => userId)
        await Promise.all(suspended.map(async ({ plainTextKey }) => isValid(small, plainTextKey)))
        await Promise.all([
          rows('INSERT INTO api_key_suspended_owners (user_id) SELECT unnest($1::text[])', [
            userIds,
          ]),
          ...keys.map(async ({ plainTextKey }) => isValid(small, plainTextKey)),
        ])
        const endsAt = Date.now() + maxStalenessMs
        while (Date.now() < endsAt) {
          for (const { plainTextKey } of keys) await isValid(small, plainTextKey)
        }
        for (const { id, plainTextKey } of suspended) {
          if (await isValid(small, plainTextKey)) accepted.push(`round ${round}: ${id}`)
        }
        await rows('DELETE FROM api_key_suspended_owners')
        for (const { plainTextKey } of suspended) {
          await until(async () => isValid(small, plainTextKey))
        }
      }
      expect(accepted).toEqual([])
    },
    timeLimitMs,
  )
})
