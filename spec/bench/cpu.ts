import type { BenchContext } from './bench'
import type { CpuServerAnswer, CpuServerQuestion } from './cpu-server'
import { cpuVariants, type BuildName, type CpuVariantName, type InstanceName } from './cpu-variants'
import type { LoadAnswer, LoadQuestion } from './load'
import { tokensFileOf } from './keys'
import { startHelper, type Helper } from './processes'
import { median } from './statistics'
import { expectMedian, formatSpread, formatTable, type Target } from './tables'

/*
 * CPU time of server processes, each with one app and one variant, of this build and of a second build, in turn. Processes of one
 * program differ by a few percent as long as they live, because V8 compiles and lays out the same code differently. So all processes
 * are started several times. The turns of one process are added up, because garbage of many turns is collected in one of them.
 */

/** Microseconds of CPU time per request, once per start of the processes. */
type Times = Record<CpuVariantName, number[]>

type Measured = Partial<Record<BuildName, Times>>

/** A variant of a build. */
interface Entry {
  build: BuildName
  variant: CpuVariantName
}

/** A process that has its turns. */
interface Contender extends Entry {
  /** Takes one turn, and returns its microseconds of CPU time per request. */
  take(): Promise<number>
}

type Load = Helper<LoadQuestion, LoadAnswer>
type Server = Helper<CpuServerQuestion, CpuServerAnswer>

const requestsPerTurn = 1_000
/** The requests before them, which find the caches of the processor as the variant before has left them. */
const requestsBeforeTurn = 60
const callsPerTurn = 10_000
const warmUpTurns = 4

const variantNames = Object.keys(cpuVariants) as CpuVariantName[]

/** Measures the CPU time of each variant, prints the tables, and returns the targets with their results. */
export async function measureCpu(context: BenchContext): Promise<Target[]> {
  const { server, pinning, isQuick, against, log } = context
  const builds: BuildName[] = against === undefined ? ['this'] : ['this', 'other']
  const measured = emptyTimesOf(builds)
  const url = await server.createDatabase('cpu')
  const entries: Entry[] = []
  for (const build of builds) entries.push(...(await fillTables(context, url, build)))

  const load = await startHelper<LoadQuestion, LoadAnswer>({
    file: 'load.ts',
    cpus: pinning?.others,
  })
  const [starts, rounds] = isQuick ? [2, 2] : [6, 8]
  try {
    for (let start = 1; start <= starts; start++) {
      await withContenders(context, url, load, entries, async (contenders) => {
        await takeTurns(contenders, measured, rounds)
      })
      log(`  start ${start} of ${starts}`)
    }
  } finally {
    await load.stop()
  }
  return report(context, measured)
}

/** Makes the tables and keys of a build, and returns the variants that are measured with it. */
async function fillTables(context: BenchContext, url: string, build: BuildName): Promise<Entry[]> {
  const server = await startServer(context, url, { build, variant: 'bare' })
  try {
    // The answer to this question.
    const instances = (await server.ask({ kind: 'fill' })) as readonly InstanceName[]
    return variantNames
      .filter((variant) => {
        const { instance } = cpuVariants[variant]
        return instance === null ? build === 'this' : instances.includes(instance)
      })
      .map((variant) => ({ build, variant }))
  } finally {
    await server.stop()
  }
}

/** Starts a process for each variant of each build, in an order by chance, and ends them after the work. */
async function withContenders(
  context: BenchContext,
  url: string,
  load: Load,
  entries: readonly Entry[],
  work: (contenders: readonly Contender[]) => Promise<void>,
) {
  const servers: Server[] = []
  const contenders: Contender[] = []
  try {
    for (const entry of shuffle(entries)) {
      const server = await startServer(context, url, entry)
      servers.push(server)
      contenders.push({ ...entry, take: await openContender(context, entry, server, load) })
    }
    await work(contenders)
  } finally {
    for (const server of servers) await server.stop()
  }
}

async function startServer(
  { server, pinning, secret, against }: BenchContext,
  url: string,
  { build, variant }: Entry,
): Promise<Server> {
  return startHelper({
    file: 'cpu-server.ts',
    argument: variant,
    nodeOptions: ['--expose-gc'],
    env: {
      DATABASE_URL: url,
      SECRET: secret,
      FOLDER: server.folder,
      BUILD: build,
      AGAINST: against ?? '',
    },
    cpus: pinning?.measured,
  })
}

async function openContender(
  { server: { folder } }: BenchContext,
  { build, variant }: Entry,
  server: Server,
  load: Load,
): Promise<Contender['take']> {
  async function askNumber(question: CpuServerQuestion) {
    // The answer to all questions but `fill`.
    return (await server.ask(question)) as number
  }
  if (variant === 'verify') {
    return async () => (await askNumber({ kind: 'verify', calls: callsPerTurn })) / callsPerTurn
  }

  const port = await askNumber({ kind: 'listen' })
  const { tokens } = cpuVariants[variant]
  const file = tokensFileOf(folder, build, tokens)
  const expectedStatuses = [isRefusal(variant) ? 401 : 200]
  async function send(requests: number) {
    await load.ask({
      port,
      tokens: { file, isRepeatable: true },
      expectedStatuses,
      until: { requests },
    })
  }
  return async () => {
    await send(requestsBeforeTurn)
    const before = await askNumber({ kind: 'cpu' })
    await send(requestsPerTurn)
    return ((await askNumber({ kind: 'cpu' })) - before) / requestsPerTurn
  }
}

/** Adds the mean of all turns of each process to what is measured. All turns have as many requests. */
async function takeTurns(contenders: readonly Contender[], measured: Measured, rounds: number) {
  for (let round = 0; round < warmUpTurns; round++) {
    for (const { take } of contenders) await take()
  }
  const sums = new Map(contenders.map((contender) => [contender, 0]))
  for (let round = 0; round < rounds; round++) {
    for (const contender of shuffle(contenders)) {
      sums.set(contender, (sums.get(contender) ?? 0) + (await contender.take()))
    }
  }
  for (const [{ build, variant }, total] of sums) measured[build]?.[variant].push(total / rounds)
}

function isRefusal(variant: CpuVariantName): boolean {
  return variant === 'garbage' || variant === 'bareRefusal'
}

/** Both builds share the times of the variants without the library. */
function emptyTimesOf(builds: readonly BuildName[]): Measured {
  const shared = new Map(variantNames.filter(isWithoutLibrary).map((name) => [name, []]))
  return Object.fromEntries(
    builds.map((build) => [
      build,
      Object.fromEntries(variantNames.map((name) => [name, shared.get(name) ?? []])),
    ]),
  )
}

function isWithoutLibrary(variant: CpuVariantName): boolean {
  return cpuVariants[variant].instance === null
}

/** By chance, so that no variant always comes after the same one. */
function shuffle<Value>(values: readonly Value[]): Value[] {
  return values
    .map((value) => ({ value, place: Math.random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ value }) => value)
}

/** The keys that are to cost no more than a plain key of a user. */
const others = ['guardOrganization', 'guardImplied', 'guardResources'] as const

function report({ print, against }: BenchContext, { this: ours, other }: Measured): Target[] {
  if (!ours) return []

  print(
    `## CPU time of server processes\n\nEach variant in a process of its own, ${ours.bare.length} times started, in turns of ${requestsPerTurn} requests.`,
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
  print('### This build against that build, in the same run')
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
    measuredIn(times).map((name) => {
      const { title, base } = cpuVariants[name]
      const own = formatSpread(times[name], name === 'verify' ? 3 : 1)
      if (base === null) return [title, own, '', '', '']
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
    measuredIn(other)
      .filter((name) => !isWithoutLibrary(name))
      .map((name) => {
        const { title, base } = cpuVariants[name]
        return [
          title,
          formatSpread(ratios(ours[name], other[name]), 3),
          base === null ? '' : (added(ours, name, base) / added(other, name, base)).toFixed(3),
        ]
      }),
  )
}

/** The variants that a build has. */
function measuredIn(times: Times): CpuVariantName[] {
  return variantNames.filter((name) => times[name].length > 0)
}

function addedRatio(ours: Times, other: Times): number {
  return added(ours, 'guard', 'bare') / added(other, 'guard', 'bare')
}

function added(times: Times, name: CpuVariantName, base: CpuVariantName): number {
  return median(differences(times[name], times[base]))
}

/** One value per start. */
function ratios(some: readonly number[], others: readonly number[]): number[] {
  return some.map((time, round) => time / (others[round] ?? NaN))
}

function differences(some: readonly number[], others: readonly number[]): number[] {
  return some.map((time, round) => time - (others[round] ?? NaN))
}
