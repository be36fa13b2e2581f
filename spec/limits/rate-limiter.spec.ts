import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

import * as fc from 'fast-check'

import type { NamedLimit } from '../../lib/keys/limits'
import { createFailedAttempts } from '../../lib/verification/failed-attempts'
import type { Consumption, Use } from '../../lib/limits/memory'
import { createRateLimiter } from '../../lib/limits/rate-limiter'
import { runsOf } from '../support/runs'

/** A limiter that counts in this process, on a clock that the spec sets. */
function createLimiter() {
  let now = 0
  const limiter = createRateLimiter({
    redis: undefined,
    onLimiterOutage: 'refuse',
    emitter: { emit: () => {} },
    cacheSize: 100_000,
    clock: { monotonic: () => now, wall: () => now },
  })
  return {
    read: (id: string, limits: readonly NamedLimit[]) => limiter.read({ key: { id }, limits }),
    pass(ms: number) {
      now += ms
    },
    consume(use: Use): Consumption {
      const consumption = limiter.consume(use)
      if (consumption instanceof Promise) throw new Error('there was something to wait for')
      return consumption
    },
  }
}

/** Returns the memory in use after all garbage was collected. */
function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed
}

type Limiter = Pick<ReturnType<typeof createLimiter>, 'pass' | 'consume'>

/** The simplest limiter: it keeps every use that it allowed. */
function createModel(): Limiter {
  let now = 0
  const windows = new Map<string, { endsAt: number; uses: number[] }>()

  return {
    pass(ms) {
      now += ms
    },
    consume({ key: { id }, limits, cost }) {
      const open = limits.map((limit) => {
        const name = `${id} ${limit.name} ${limit.windowSeconds}`
        const known = windows.get(name)
        const window =
          known && known.endsAt > now
            ? known
            : { endsAt: now + limit.windowSeconds * 1_000, uses: [] }
        windows.set(name, window)
        return { ...limit, window }
      })
      const isAllowed = open.every(({ limit, window }) => window.uses.length + cost <= limit)
      for (const { window } of isAllowed ? open : []) {
        for (let use = 0; use < cost; use++) window.uses.push(now)
      }
      return {
        isAllowed,
        limits: open.map(({ name, limit, windowSeconds, window }) => {
          const remaining = Math.max(limit - window.uses.length, 0)
          return { name, limit, windowSeconds, remaining, resetMs: window.endsAt - now }
        }),
      }
    },
  }
}

const minutely: NamedLimit = { name: 'burst', limit: 2, windowSeconds: 60 }
const monthly: NamedLimit = { name: 'monthly', limit: 3, windowSeconds: 30 * 86_400 }

describe('limits in this process', () => {
  it('begin again when a window is over, and a window begins with its first use', () => {
    const { consume, pass } = createLimiter()
    const use = () => consume({ key: { id: 'a' }, limits: [minutely], cost: 1 }).isAllowed
    pass(12_345)

    expect([use(), use(), use()]).toEqual([true, true, false])
    pass(59_999)
    expect(use()).toBe(false)
    pass(1)
    expect(use()).toBe(true)
  })

  it('hold for a month', () => {
    const { consume, pass } = createLimiter()
    const use = () => consume({ key: { id: 'a' }, limits: [monthly], cost: 1 })

    expect([use(), use(), use(), use()].map(({ isAllowed }) => isAllowed)).toEqual([
      true,
      true,
      true,
      false,
    ])
    pass(29 * 86_400_000)
    expect(use()).toEqual({
      isAllowed: false,
      limits: [{ ...monthly, remaining: 0, resetMs: 86_400_000 }],
    })
    pass(86_400_000)
    expect(use().isAllowed).toBe(true)
  })

  it('go on counting if only the number of uses that they allow has changed', () => {
    const { consume } = createLimiter()
    const use = (limit: number) =>
      consume({ key: { id: 'a' }, limits: [{ ...minutely, limit }], cost: 1 }).isAllowed

    expect([use(2), use(2), use(2), use(3), use(3), use(1)]).toEqual([
      true,
      true,
      false,
      true,
      false,
      false,
    ])
  })

  it('are read without a use, which begins no window', async () => {
    const { consume, pass, read } = createLimiter()
    const limits = [minutely, monthly]
    const unused = await read('a', limits)
    pass(59_000)
    consume({ key: { id: 'a' }, limits, cost: 1 })
    pass(10_000)
    const used = await read('a', limits)
    pass(50_000)

    expect(unused).toEqual([
      { ...minutely, remaining: 2, resetMs: 60_000 },
      { ...monthly, remaining: 3, resetMs: 30 * 86_400_000 },
    ])
    expect(used).toEqual([
      { ...minutely, remaining: 1, resetMs: 50_000 },
      { ...monthly, remaining: 2, resetMs: 30 * 86_400_000 - 10_000 },
    ])
    expect(await read('a', limits)).toEqual([
      { ...minutely, remaining: 2, resetMs: 60_000 },
      { ...monthly, remaining: 2, resetMs: 30 * 86_400_000 - 60_000 },
    ])
    expect(await read('another', [minutely])).toMatchObject([{ remaining: 2 }])
    expect(await read('a', [])).toEqual([])
  })

  it('are read by the limits of the moment', async () => {
    const { consume, read } = createLimiter()
    consume({ key: { id: 'a' }, limits: [minutely], cost: 2 })

    expect(await read('a', [{ ...minutely, limit: 10 }])).toMatchObject([{ remaining: 8 }])
    expect(await read('a', [{ ...minutely, limit: 1 }])).toMatchObject([{ remaining: 0 }])
    expect(await read('a', [{ ...minutely, windowSeconds: 30 }])).toMatchObject([{ remaining: 2 }])
  })

  it('allow the same uses as a simple model, in any order and with changing limits', () => {
    const limit = fc.record({
      name: fc.constantFrom('a', 'b', 'c'),
      limit: fc.integer({ min: 1, max: 6 }),
      windowSeconds: fc.constantFrom(1, 2, 5, 86_400 * 40),
    })
    const limits = fc.uniqueArray(limit, { selector: ({ name }) => name, maxLength: 3 })
    const step = fc.oneof(
      fc.record({ pass: fc.constantFrom(1, 300, 999, 1_000, 4_000, 86_400_000 * 40) }),
      fc.record({ change: limits }),
      {
        weight: 4,
        arbitrary: fc.record({ secret: fc.nat({ max: 2 }), cost: fc.integer({ min: 1, max: 4 }) }),
      },
    )

    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 60 }), (firstLimits, steps) => {
        const run = ({ pass, consume }: Limiter) => {
          // The first has two secrets.
          const keys = [{ id: 'x' }, { id: 'x' }, { id: 'y' }]
          let limits: readonly NamedLimit[] = firstLimits
          return steps.map((step) => {
            if ('pass' in step) return pass(step.pass)
            if ('change' in step) {
              limits = step.change
              return undefined
            }
            const key = keys[step.secret] ?? { id: 'none' }
            const { isAllowed, limits: states } = consume({ key, limits, cost: step.cost })
            return [isAllowed, ...states.map(({ remaining }) => remaining)]
          })
        }

        expect(run(createLimiter())).toEqual(run(createModel()))
      }),
      { numRuns: runsOf(2_000) },
    )
  })

  it('go on counting a key that comes back after it was evicted', () => {
    const { consume, pass } = createLimiter()
    const [key, sameKey] = [{ id: 'a' }, { id: 'a' }]
    const use = (key: { id: string }) =>
      consume({ key, limits: [minutely], cost: 1 }).limits.map(({ remaining }) => remaining)
    use(key)
    pass(60_000)
    for (let number = 0; number < 3; number++) use({ id: `other ${number}` })

    const first = use(sameKey)

    expect(use(key)).toEqual(first.map((remaining) => remaining - 1))
  })

  it('evict keys whose windows are over', () => {
    const { consume, pass } = createLimiter()
    const before = heapUsed()
    for (let number = 0; number < 300_000; number++) {
      consume({ key: { id: `key ${number}` }, limits: [minutely], cost: 1 })
      pass(60)
    }

    // The windows of a thousand keys last. All keys together would take 60 MB.
    expect(heapUsed() - before).toBeLessThan(5_000_000)
  })
})

function createAttempts() {
  let now = 0
  const attempts = createFailedAttempts({
    clock: { monotonic: () => now, wall: () => now },
    maxFailedAttemptsPerMinute: 2,
  })
  return {
    note: (ip: string) => attempts.note({ ip }),
    mayLookUp: (ip: string | undefined) => attempts.mayLookUp({ ip }),
    pass(ms: number) {
      now += ms
    },
  }
}

describe('failed attempts', () => {
  it('are forgiven when their minute is over', () => {
    const { note, pass } = createAttempts()

    expect([note('a'), note('a'), note('a')]).toEqual([0, 0, 60_000])
    pass(59_999)
    expect(note('a')).toBe(1)
    pass(1)
    expect(note('a')).toBe(0)
  })

  it('leave ten look-ups in each second', () => {
    const { note, mayLookUp, pass } = createAttempts()
    for (let time = 0; time < 3; time++) note('a')
    const lookUp = (times: number) =>
      Array.from({ length: times }, () => mayLookUp('a')).filter(Boolean).length

    expect(lookUp(30)).toBe(10)
    pass(1_000)
    expect(lookUp(30)).toBe(10)
    expect(mayLookUp('b')).toBe(true)
    expect(mayLookUp(undefined)).toBe(true)
  })

  it('are kept of the latest 10,000 addresses', () => {
    const { note } = createAttempts()
    for (let time = 0; time < 3; time++) note('first')
    for (let number = 0; number < 10_000; number++) note(`address ${number}`)

    expect(note('first')).toBe(0)
    expect(note('address 9999')).toBe(0)
    expect(note('address 9999')).toBe(60_000)
  })
})
