import { join } from 'node:path'

import type { BenchContext } from './bench'
import type { CpuServerAnswer, CpuServerQuestion, Ports } from './cpu-server'
import { cpuVariants, type BuildName, type CpuVariantName } from './cpu-variants'
import type { LoadAnswer, LoadQuestion } from './load'
import { startHelper, type Helper } from './processes'
import { median } from './statistics'
import { expectMedian, formatSpread, formatTable, type Target } from './tables'

/*
 * CPU time of one server process with an app for each variant. A second build of the library can be measured in the same
 * process, in turn. So both sides of each comparison have the same process, the same compiler, the same moments.
 */

/** Microseconds of CPU time per request, once per round. */
type Times = Record<CpuVariantName, number[]>

type Measured = Partial<Record<BuildName, Times>>

interface Turn {
  build: BuildName
  variant: CpuVariantName
}

const requestsPerTurn = 300
/** The requests before them, which find the caches of the processor as the variant before has left them. */
const requestsBeforeTurn = 60
const callsPerTurn = 10_000
const warmUpTurns = 10

const variantNames = Object.keys(cpuVariants) as CpuVariantName[]

/** Measures the CPU time of each variant, prints the tables, and returns the targets with their results. */
export async function measureCpu(context: BenchContext): Promise<Target[]> {
  const { isQuick, against, log } = context
  const builds: BuildName[] = against === undefined ? ['this'] : ['this', 'other']
  const turns = variantNames.flatMap((variant) => builds.map((build) => ({ build, variant })))
  const measured: Measured = Object.fromEntries(builds.map((build) => [build, emptyTimes()]))

  await withProcesses(context, builds, async (take) => {
    for (let round = 0; round < warmUpTurns; round++) for (const turn of turns) await take(turn)
    const rounds = isQuick ? 12 : 120
    for (let round = 0; round < rounds; round++) {
      for (const turn of shuffle(turns)) {
        measured[turn.build]?.[turn.variant].push(await take(turn))
      }
      if ((round + 1) % 20 === 0) log(`  round ${round + 1} of ${rounds}`)
    }
  })
  return report(context, measured)
}

/** Starts the server with the apps of all builds, and the load, and passes the function that takes one turn. */
async function withProcesses(
  { server, pinning, secret, against, log }: BenchContext,
  builds: readonly BuildName[],
  work: (take: (turn: Turn) => Promise<number>) => Promise<void>,
) {
  log('CPU time of one process')
  const helpers: Helper<never, unknown>[] = []
  try {
    const load = await startHelper<LoadQuestion, LoadAnswer>({
      file: 'load.ts',
      cpus: pinning?.others,
    })
    helpers.push(load)
    const app = await startHelper<CpuServerQuestion, CpuServerAnswer>({
      file: 'cpu-server.ts',
      nodeOptions: ['--expose-gc'],
      env: {
        DATABASE_URL: await server.createDatabase('cpu'),
        SECRET: secret,
        FOLDER: server.folder,
        AGAINST: against ?? '',
      },
      cpus: pinning?.measured,
    })
    helpers.push(app)
    const ports: Partial<Record<BuildName, Ports>> = {}
    for (const build of builds) {
      // The answer to this question.
      ports[build] = (await app.ask({ kind: 'open', build })) as Ports
    }
    async function usedMicroseconds(question: CpuServerQuestion) {
      // The answer to all other questions.
      return (await app.ask(question)) as number
    }

    await work(async ({ build, variant }) => {
      if (variant === 'verify') {
        return (
          (await usedMicroseconds({ kind: 'verify', build, calls: callsPerTurn })) / callsPerTurn
        )
      }
      async function send(requests: number) {
        await load.ask({
          port: ports[build]?.[variant] ?? 0,
          tokens: {
            file: join(server.folder, `${build}-${cpuVariants[variant].tokens}`),
            isRepeatable: true,
          },
          expectedStatuses: [isRefusal(variant) ? 401 : 200],
          until: { requests },
        })
      }
      await send(requestsBeforeTurn)
      const before = await usedMicroseconds({ kind: 'cpu' })
      await send(requestsPerTurn)
      return ((await usedMicroseconds({ kind: 'cpu' })) - before) / requestsPerTurn
    })
  } finally {
    for (const helper of helpers) await helper.stop()
  }
}

function isRefusal(variant: CpuVariantName): boolean {
  return variant === 'garbage' || variant === 'bareRefusal'
}

function emptyTimes(): Times {
  // The names are the names of the variants.
  return Object.fromEntries(variantNames.map((name) => [name, []])) as unknown as Times
}

/** By chance, so that no variant always comes after the same one. */
function shuffle(turns: readonly Turn[]): Turn[] {
  return turns
    .map((turn) => ({ turn, place: Math.random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ turn }) => turn)
}

/** The pairs that are compared: a variant, and the variant beside it. */
const bases: Partial<Record<CpuVariantName, CpuVariantName>> = {
  control: 'bare',
  guard: 'bare',
  guardKeyed: 'bare',
  guardPolicies: 'bare',
  guardOrganization: 'guard',
  guardImplied: 'guard',
  guardResources: 'guard',
  passportMap: 'bare',
  passport: 'passportMap',
  garbage: 'bareRefusal',
}

/** The keys that are to cost no more than a plain key of a user. */
const others = ['guardOrganization', 'guardImplied', 'guardResources'] as const

function report({ print, against }: BenchContext, { this: ours, other }: Measured): Target[] {
  if (!ours) return []

  print(
    `## CPU time of one process\n\n${ours.bare.length} rounds of ${requestsPerTurn} requests for each variant, in turn.`,
  )
  print(formatTimes(ours))
  const targets = [
    ...others.map((name) =>
      expectMedian(
        `CPU: ${cpuVariants[name].title.replaceAll('*', '')}, against the plain guard`,
        ratios(ours[name], ours.guard),
        { atMost: 1.02, digits: 3 },
      ),
    ),
    expectMedian('CPU: bare Express against itself', ratios(ours.control, ours.bare), {
      atMost: 1.02,
      digits: 3,
    }),
    expectMedian(
      'CPU: through Passport, against passport-http-bearer with a Map',
      ratios(ours.passport, ours.passportMap),
      { atMost: 1.05, digits: 3 },
    ),
  ]
  if (!other) return targets

  print(`### The build in ${against}`)
  print(formatTimes(other))
  print('### This build against that build, in the same rounds')
  print(formatComparison(ours, other))
  return [
    ...targets,
    expectMedian('CPU that the guard adds, against the other build', [addedRatio(ours, other)], {
      atMost: 0.6,
      digits: 3,
    }),
    expectMedian('CPU of `verify()`, against the other build', ratios(ours.verify, other.verify), {
      atMost: 1,
      digits: 3,
    }),
  ]
}

function formatTimes(times: Times): string {
  return formatTable(
    ['', 'CPU µs/request', 'against', 'ratio', 'more CPU'],
    variantNames.map((name) => {
      const { title } = cpuVariants[name]
      const base = bases[name]
      const own = formatSpread(times[name], name === 'verify' ? 3 : 1)
      if (base === undefined) return [title, own, '', '', '']
      return [
        title,
        own,
        cpuVariants[base].title,
        formatSpread(ratios(times[name], times[base]), 3),
        formatSpread(differences(times[name], times[base]), 1),
      ]
    }),
  )
}

function formatComparison(ours: Times, other: Times): string {
  return formatTable(
    ['', 'ratio of CPU time', 'ratio of what it adds'],
    variantNames.map((name) => {
      const base = bases[name]
      const isAdded = base !== undefined && name !== 'control' && name !== 'passportMap'
      return [
        cpuVariants[name].title,
        formatSpread(ratios(ours[name], other[name]), 3),
        isAdded ? (added(ours, name, base) / added(other, name, base)).toFixed(3) : '',
      ]
    }),
  )
}

function addedRatio(ours: Times, other: Times): number {
  return added(ours, 'guard', 'bare') / added(other, 'guard', 'bare')
}

function added(times: Times, name: CpuVariantName, base: CpuVariantName): number {
  return median(differences(times[name], times[base]))
}

/** One value per round. */
function ratios(some: readonly number[], others: readonly number[]): number[] {
  return some.map((time, round) => time / (others[round] ?? NaN))
}

function differences(some: readonly number[], others: readonly number[]): number[] {
  return some.map((time, round) => time - (others[round] ?? NaN))
}
