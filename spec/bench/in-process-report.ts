import { join } from 'node:path'

import type { BenchContext } from './bench'
import { fillWithOurKeys, purposeOf, statementsBetween } from './database'
import type { InProcessAnswer, InProcessQuestion, TokenRange } from './in-process'
import { mintKeys, plainTexts, writeTokens, type MintedKey } from './keys'
import type { OurOptions } from './ours'
import { startHelper, type Helper } from './processes'
import { median } from './statistics'
import { expectMedian, formatCount, formatSpread, formatTable, type Target } from './tables'

type InProcess = Helper<InProcessQuestion, InProcessAnswer>

/** The kinds of hashes, and the cost that each may have. */
const kinds = [
  {
    title: 'unkeyed',
    isKeyed: false,
    guardNanoseconds: 2000,
    verifyPerSecond: 800_000,
    manyPerSecond: 350_000,
  },
  {
    title: 'with `secrets`',
    isKeyed: true,
    guardNanoseconds: 4000,
    verifyPerSecond: 400_000,
    manyPerSecond: 200_000,
  },
] as const

/** Measures the library without HTTP, prints the tables, and returns the targets with their results. */
export async function measureInProcess(context: BenchContext): Promise<Target[]> {
  const { print, log, server } = context
  const rows: string[][] = []
  const targets: Target[] = []
  const rounds = context.isQuick ? 3 : 15

  for (const { title, isKeyed, guardNanoseconds, verifyPerSecond } of kinds) {
    log(`in process, ${title}`)
    const name = isKeyed ? 'alone_keyed' : 'alone'
    const secrets = isKeyed ? [context.secret] : []
    const keys = mintKeys(1000 + 20, secrets)
    const { ours, all } = await prepareKeys(context, { name, keys, secrets })
    const warm = { ...all, count: 1000 }

    await withProcess(context, async (helper) => {
      const nothing = await helper.ask({ kind: 'nothing', ours, tokens: warm, rounds })
      const guard = await helper.ask({ kind: 'guard', ours, tokens: warm, rounds })
      rows.push(
        [`a middleware that does nothing, in the same loop, ${title}`, ...formatTimes(nothing)],
        [`the guard alone, ${title}`, ...formatTimes(guard)],
      )
      targets.push(
        expectMedian(`the guard alone, ${title}`, microseconds(guard), {
          atMost: guardNanoseconds / 1000,
          digits: 2,
          unit: ' µs',
        }),
      )
    })
    if (!isKeyed) targets.push(await compareImplied(context, { ours, warm, rounds }))
    await withProcess(context, async (helper) => {
      const verify = await helper.ask({ kind: 'verify', ours, tokens: warm, rounds })
      rows.push([`\`verify()\`, 1,000 keys, ${title}`, ...formatTimes(verify)])
      targets.push(expectPerSecond(`\`verify()\` at 1,000 keys, ${title}`, verify, verifyPerSecond))
    })
    await withProcess(context, async (helper) => {
      // The first only opens connections.
      await helper.ask({ kind: 'together', ours, tokens: { ...all, count: 1 }, rounds })
      const lookUps: number[] = []
      for (let turn = 1; turn < 20; turn++) {
        const before = await server.countStatements(name)
        const tokens = { ...all, from: 1000 + turn, count: 1, times: 500 }
        await helper.ask({ kind: 'together', ours, tokens, rounds })
        const sent = statementsBetween(before, await server.countStatements(name))
        lookUps.push(countRequests(sent))
      }
      targets.push({
        what: `500 concurrent requests for one cold key, ${title}: look-ups`,
        wanted: '1',
        measured: `${Math.min(...lookUps)} to ${Math.max(...lookUps)} in ${lookUps.length} turns`,
        isMet: lookUps.every((count) => count === 1),
      })
    })
  }

  print('## In process')
  print(formatTable(['', 'ns per call', 'per second'], rows))
  return targets
}

/** Compares the guards of two apps in turn: in one of them, the permission of the keys implies the permission that the guard demands. */
async function compareImplied(
  context: BenchContext,
  { ours, warm, rounds }: { ours: OurOptions; warm: TokenRange; rounds: number },
): Promise<Target> {
  const permissions = {
    READ_GRAPH: { description: 'Read graphs', implies: '*' },
    EXECUTE_GRAPH: 'Execute graphs',
  } as const
  const plain = { kind: 'guard', ours, tokens: warm, rounds: 1 } as const
  const implied = { ...plain, ours: { ...ours, permissions }, demand: 'EXECUTE_GRAPH' } as const

  const ratios = await withProcess(context, async (helper) => {
    const ratios: number[] = []
    for (let round = 0; round < rounds; round++) {
      const turns = round % 2 === 0 ? [plain, implied] : [implied, plain]
      const times = new Map<object, number>()
      for (const turn of turns) times.set(turn, median((await helper.ask(turn)).nanoseconds))
      ratios.push((times.get(implied) ?? NaN) / (times.get(plain) ?? NaN))
    }
    return ratios
  })
  return expectMedian('the guard with an implied permission against the plain guard', ratios, {
    atMost: 1.02,
    digits: 3,
  })
}

/** Measures with a million keys in the cache, and five million in the table. */
export async function measureScale(context: BenchContext): Promise<Target[]> {
  const targets: Target[] = []
  for (const kind of kinds) targets.push(...(await measureManyKeys(context, kind)))
  targets.push(await measureLargeTable(context))
  return targets
}

async function measureManyKeys(
  context: BenchContext,
  { title, isKeyed, manyPerSecond }: (typeof kinds)[number],
): Promise<Target[]> {
  const { log, print, isQuick } = context
  const count = isQuick ? 100_000 : 1_000_000
  log(`${formatCount(count)} keys, ${title}`)
  const secrets = isKeyed ? [context.secret] : []
  const keys = mintKeys(count, secrets)
  const name = isKeyed ? 'many_keyed' : 'many'
  const { ours, all } = await prepareKeys(context, { name, keys, secrets })

  const answer = await withProcess(context, async (helper) =>
    helper.ask({
      kind: 'manyKeys',
      ours: { ...ours, cacheSize: count },
      tokens: all,
      rounds: isQuick ? 3 : 15,
    }),
  )
  const { p99Microseconds = NaN, memoryMiB = NaN, fillSeconds = NaN } = answer
  print(`## ${formatCount(count)} keys in the cache, ${title}`)
  print(
    formatTable(
      ['', 'ns per call', 'per second', 'p99 µs', 'more RSS, MiB', 'filled in s'],
      [
        [
          '`verify()`',
          ...formatTimes(answer),
          p99Microseconds.toFixed(1),
          memoryMiB.toFixed(0),
          fillSeconds.toFixed(1),
        ],
      ],
    ),
  )
  const what = `\`verify()\` at ${formatCount(count)} keys, ${title}`
  return [
    expectPerSecond(what, answer, manyPerSecond),
    expectMedian(`${what}: p99`, [p99Microseconds], { atMost: 6, digits: 1, unit: ' µs' }),
    expectMedian(`${what}: more RSS`, [memoryMiB], { atMost: 448, digits: 0, unit: ' MiB' }),
  ]
}

async function measureLargeTable(context: BenchContext): Promise<Target> {
  const { log, print, isQuick } = context
  const [rounds, perRound] = [15, 300]
  const [small, large] = [5000, isQuick ? 500_000 : 5_000_000]
  log(`tables of ${formatCount(small)} and ${formatCount(large)} keys`)
  const tables = [
    await prepareKeys(context, { name: 'small', keys: mintKeys(small) }),
    await prepareKeys(context, { name: 'large', keys: mintKeys(small), tableSize: large }),
  ]

  const times = tables.map(() => [] as number[])
  await withProcess(context, async (helper) => {
    for (let round = -1; round < rounds; round++) {
      const turns = [...tables.entries()]
      for (const [index, { ours, all }] of round % 2 === 0 ? turns : turns.toReversed()) {
        const tokens = { ...all, from: (round + 1) * perRound, count: perRound }
        const { nanoseconds } = await helper.ask({ kind: 'coldLookups', ours, tokens, rounds: 1 })
        // The first round only warms up.
        if (round >= 0) times[index]?.push(...nanoseconds)
      }
    }
  })

  const [ofSmall = [], ofLarge = []] = times
  print('## Cold look-ups, one at a time')
  print(
    formatTable(
      ['', 'µs per look-up'],
      [
        [`table of ${formatCount(small)} keys`, formatSpread(inMicroseconds(ofSmall), 1)],
        [`table of ${formatCount(large)} keys`, formatSpread(inMicroseconds(ofLarge), 1)],
      ],
    ),
  )
  return expectMedian(
    `cold look-up, table of ${formatCount(large)} keys against ${formatCount(small)}`,
    ofLarge.map((time, round) => time / (ofSmall[round] ?? NaN)),
    { atMost: 1.5, digits: 2 },
  )
}

interface KeysToPrepare {
  name: string
  keys: readonly MintedKey[]
  secrets?: readonly string[]
  tableSize?: number
}

async function prepareKeys(
  { server }: BenchContext,
  { name, keys, secrets = [], ...size }: KeysToPrepare,
) {
  const url = await server.createDatabase(name)
  await fillWithOurKeys(url, { keys, ...size })
  const file = await writeTokens(join(server.folder, `tokens_${name}`), plainTexts(keys))
  const all: TokenRange = { file, from: 0, count: keys.length }

  return { ours: { url, secrets }, all }
}

async function withProcess<Result>(
  { pinning }: BenchContext,
  work: (helper: InProcess) => Promise<Result>,
): Promise<Result> {
  const helper: InProcess = await startHelper({
    file: 'in-process.ts',
    nodeOptions: ['--expose-gc'],
    cpus: pinning?.measured,
  })
  try {
    return await work(helper)
  } finally {
    await helper.stop()
  }
}

function countRequests(statements: ReadonlyMap<string, number>): number {
  let count = 0
  for (const [text, calls] of statements) if (purposeOf(text) === 'request') count += calls
  return count
}

function formatTimes({ nanoseconds }: InProcessAnswer): string[] {
  return [formatSpread(nanoseconds, 0), formatCount(1e9 / median(nanoseconds))]
}

function microseconds({ nanoseconds }: InProcessAnswer): number[] {
  return inMicroseconds(nanoseconds)
}

function inMicroseconds(nanoseconds: readonly number[]): number[] {
  return nanoseconds.map((value) => value / 1000)
}

function expectPerSecond(what: string, { nanoseconds }: InProcessAnswer, wanted: number): Target {
  const perSecond = 1e9 / median(nanoseconds)
  return {
    what: `${what}, per second`,
    wanted: `≥ ${formatCount(wanted)}`,
    measured: formatCount(perSecond),
    isMet: perSecond >= wanted,
  }
}
