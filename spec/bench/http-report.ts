import type { BenchContext } from './bench'
import { purposeOf } from './database'
import {
  countStatements,
  startHttpBench,
  type LoadName,
  type Measured,
  type Participant,
  type Sample,
} from './http'
import { median, sum } from './statistics'
import { expectMedian, formatCount, formatSpread, formatTable, type Target } from './tables'
import { variants, type VariantName } from './variants'

/** Measures all variants behind HTTP, prints the tables, and returns the targets with their results. */
export async function measureHttp(context: BenchContext): Promise<Target[]> {
  const { server, pinning, secret, isQuick, log, print } = context
  const bench = await startHttpBench({ server, pinning, secret, coldKeys: 60_000, log })
  const rounds = (count: number) => (isQuick ? Math.ceil(count / 10) : count)
  const moment = { ms: 50 }

  try {
    await bench.compareRefusals()
    const warm = await bench.measure({
      title: 'warm keys',
      rounds: rounds(600),
      processes: isQuick ? 2 : 6,
      participants: of('warm', moment, [
        'bare',
        'guard',
        'control',
        'guardKeyed',
        'guardPolicies',
        'map',
        'passportMap',
        'passport',
      ]),
    })
    const warmRivals = await bench.measure({
      title: 'warm keys, and a database asked for each',
      rounds: rounds(80),
      participants: of('warm', moment, ['bare', 'guard', 'sequelize', 'betterAuth']),
    })
    const hot = await bench.measure({
      title: 'one hot key',
      rounds: rounds(80),
      participants: of('hot', moment, [
        'bare',
        'guard',
        'guardKeyed',
        'map',
        'passportMap',
        'passport',
        'sequelize',
        'betterAuth',
      ]),
    })
    const refused = await bench.measure({
      title: 'garbage and forged keys',
      rounds: rounds(400),
      participants: [
        ...of('garbage', moment, ['guardKeyed', 'bareRefusal']),
        ...of('forged', moment, ['guardKeyed', 'guardStrict']),
      ],
    })
    const refusedElsewhere = await bench.measure({
      title: 'garbage and forged keys, everybody else',
      rounds: rounds(40),
      participants: [
        ...of('garbage', moment, [
          'bareRefusal',
          'guard',
          'map',
          'passportMap',
          'passport',
          'sequelize',
          'betterAuth',
        ]),
        ...of('forged', moment, [
          'guard',
          'map',
          'passportMap',
          'passport',
          'sequelize',
          'betterAuth',
        ]),
        ...of('computed', { requests: 300 }, ['guard']),
      ],
    })
    const cold = await bench.measure({
      title: 'cold keys',
      rounds: rounds(20),
      participants: of('cold', { requests: 300 }, [
        'guard',
        'guardKeyed',
        'passport',
        'sequelize',
        'betterAuth',
      ]),
    })

    print(
      '"Busy" is the share of its processor that the server used; about 1 means that nothing else held it up. Ratios are of ' +
        'turns that lie side by side; CPU time is that of all turns together.',
    )
    print('## Warm valid keys (1,000 in turn)')
    print(formatLoads([warm, warmRivals], 'bare'))
    printControl(context, warm)
    print('### What our guard sent to the database meanwhile')
    print(formatStatements(find(warm, 'guard')))
    print('### And for cold keys')
    print(formatStatements(find(cold, 'guard')))
    print('## One hot key')
    print(formatLoads([hot], 'bare'))
    print('## Garbage, and well-formed forged keys, all answered with 401')
    print(formatLoads([refused, refusedElsewhere], 'bareRefusal'))
    print('## Cold keys (each used once)')
    print(formatLoads([cold], 'sequelize'))

    return [
      ...targetsOfWarm(warm),
      ...targetsOfRivals(warmRivals),
      ...targetsOfRefusals(refused),
      targetOfCold(cold),
    ]
  } finally {
    await bench.stop()
  }
}

function of(
  load: LoadName,
  slice: Participant['slice'],
  names: readonly VariantName[],
): Participant[] {
  return names.map((variant) => ({ variant, load, slice }))
}

function find(measured: readonly Measured[], variant: VariantName, load?: LoadName): Measured {
  const found = measured.find((one) => one.variant === variant && (!load || one.load === load))
  if (!found) throw new Error(`${variant} was not measured`)
  return found
}

/** One value per round, each from two neighbouring turns. */
function speedRatios(one: Measured, other: Measured): number[] {
  return one.samples.flatMap((sample, round) => {
    const partner = other.samples[round]
    return partner ? [speed(sample) / speed(partner)] : []
  })
}

function speed({ requestsPerSecond }: Sample): number {
  return requestsPerSecond
}

/** The sum of all turns, because the system counts the time of a process in steps of several milliseconds. */
function cpuPerRequest({ samples }: Measured): number {
  return cpuOf(samples) / sum(samples.map(({ requests }) => requests))
}

function busyOf({ samples }: Measured): number {
  return cpuOf(samples) / 1e6 / sum(samples.map(({ seconds }) => seconds))
}

function cpuOf(samples: readonly Sample[]): number {
  return sum(samples.map(({ cpuMicroseconds }) => cpuMicroseconds))
}

const loadTitles: Record<LoadName, string> = {
  warm: 'warm',
  hot: 'hot',
  cold: 'cold',
  garbage: 'garbage',
  forged: 'forged',
  computed: 'forged, with the right check',
}

/** Takes one plan or more. Each has measured the variant with which the other variants are compared. */
function formatLoads(plans: readonly (readonly Measured[])[], reference: VariantName): string {
  const isMixed = new Set(plans.flat().map(({ load }) => load)).size > 1
  const shown = new Set<string>()
  const rows = plans.flatMap((plan) => {
    const base = find(plan, reference)
    return plan.flatMap((one) => {
      const title = isMixed ? titleWithLoad(one) : variants[one.variant].title
      // The first plan has measured it best.
      if (shown.has(title)) return []
      shown.add(title)
      return [{ title, one, base }]
    })
  })

  return formatTable(
    [
      '',
      'requests/s',
      `of ${variants[reference].title}`,
      'busy',
      'CPU µs/request',
      'more CPU',
      'SQL/request',
      'other SQL/s',
    ],
    rows.map(({ title, one, base }) => {
      const isItself = one === base
      const { keys } = variants[one.variant]
      const hasQueries = keys !== 'none' && keys !== 'map'
      return [
        title,
        formatCount(median(one.samples.map(speed))),
        isItself ? '' : formatSpread(speedRatios(one, base), 2),
        busyOf(one).toFixed(2),
        cpuPerRequest(one).toFixed(1),
        isItself ? '' : (cpuPerRequest(one) - cpuPerRequest(base)).toFixed(1),
        hasQueries ? sqlPerRequest(one).toFixed(2) : '',
        hasQueries ? sqlPerSecond(one).toFixed(1) : '',
      ]
    }),
  )
}

function titleWithLoad({ variant, load }: Measured): string {
  return `${variants[variant].title}: ${loadTitles[load]}`
}

function sqlPerRequest(measured: Measured): number {
  return (
    countStatements(measured, 'request') / sum(measured.samples.map(({ requests }) => requests))
  )
}

/** The number of statements in the background, for example polls, which does not depend on the number of requests. */
function sqlPerSecond(measured: Measured): number {
  const count =
    countStatements(measured, 'poll') +
    countStatements(measured, 'usage') +
    countStatements(measured, 'frame')
  return count / sum(measured.samples.map(({ seconds }) => seconds))
}

function formatStatements({ samples }: Measured): string {
  const counts = new Map<string, number>()
  for (const { statements } of samples) {
    for (const [text, calls] of statements) counts.set(text, (counts.get(text) ?? 0) + calls)
  }

  return formatTable(
    ['statement', 'for', 'times'],
    [...counts].map(([text, calls]) => [
      `\`${text.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|').slice(0, 100)}\``,
      purposeOf(text),
      String(calls),
    ]),
  )
}

const controlBounds = { low: 0.98, high: 1.02 }

function isControlGood(warm: readonly Measured[]) {
  const ratio = median(speedRatios(find(warm, 'control'), find(warm, 'bare')))
  return ratio >= controlBounds.low && ratio <= controlBounds.high
}

function printControl({ print }: BenchContext, warm: readonly Measured[]) {
  const ratios = speedRatios(find(warm, 'control'), find(warm, 'bare'))
  print(
    isControlGood(warm)
      ? `The control counts: bare Express against itself came out at ${formatSpread(ratios, 3)}.`
      : `**This run does not count**: bare Express against itself came out at ${formatSpread(ratios, 3)}, not within 0.98–1.02.`,
  )
}

function targetsOfWarm(warm: readonly Measured[]): Target[] {
  const [bare, control] = [find(warm, 'bare'), find(warm, 'control')]
  const [guard, guardKeyed] = [find(warm, 'guard'), find(warm, 'guardKeyed')]
  const guardPolicies = find(warm, 'guardPolicies')
  const controlRatios = speedRatios(control, bare)

  return [
    {
      what: 'the control: bare Express against itself',
      wanted: '0.98–1.02',
      measured: formatSpread(controlRatios, 3),
      isMet: isControlGood(warm),
    },
    ...[
      { one: guard, base: bare, title: 'guard', atLeast: 0.9 },
      { one: guardKeyed, base: control, title: 'guard with `secrets`', atLeast: 0.9 },
      { one: guardPolicies, base: bare, title: 'guard with policies and limits', atLeast: 0.85 },
    ].flatMap(({ one, base, title, atLeast }) => [
      expectMedian(`${title}, warm, against bare Express`, speedRatios(one, base), {
        atLeast,
        digits: 2,
      }),
      expectMedian(
        `${title}, warm: more CPU per request`,
        [cpuPerRequest(one) - cpuPerRequest(base)],
        { atMost: 10, digits: 1, unit: ' µs' },
      ),
      expectExactly(`${title}, warm: SQL per request`, sqlPerRequest(one)),
      expectMedian(`${title}, warm: notes of use per second`, [usagePerSecond(one)], {
        atMost: 1,
        digits: 2,
      }),
    ]),
    expectMedian(
      'through Passport, against passport-http-bearer with a Map',
      speedRatios(find(warm, 'passport'), find(warm, 'passportMap')),
      { atLeast: 0.95, digits: 2 },
    ),
  ]
}

function targetsOfRivals(measured: readonly Measured[]): Target[] {
  const guard = find(measured, 'guard')
  return [
    { rival: 'sequelize' as const, title: 'Sequelize by hand', atLeast: 5 },
    { rival: 'betterAuth' as const, title: 'better-auth', atLeast: 8 },
  ].map(({ rival, title, atLeast }) =>
    expectMedian(`guard, against ${title}`, speedRatios(guard, find(measured, rival)), {
      atLeast,
      digits: 1,
    }),
  )
}

function usagePerSecond(measured: Measured): number {
  return countStatements(measured, 'usage') / sum(measured.samples.map(({ seconds }) => seconds))
}

function targetsOfRefusals(refused: readonly Measured[]): Target[] {
  const bare = find(refused, 'bareRefusal')

  return (['garbage', 'forged'] as const).flatMap((load) => {
    const guard = find(refused, 'guardKeyed', load)
    return [
      expectMedian(`${load}, with \`secrets\`, against the same 401`, speedRatios(guard, bare), {
        atLeast: 0.9,
        digits: 2,
      }),
      expectExactly(`${load}, with \`secrets\`: SQL per request`, sqlPerRequest(guard)),
    ]
  })
}

function targetOfCold(cold: readonly Measured[]): Target {
  return expectMedian('a cold key: SQL per request', [sqlPerRequest(find(cold, 'guard'))], {
    atMost: 1,
    digits: 2,
  })
}

function expectExactly(what: string, sql: number): Target {
  return { what, wanted: '0.00', measured: sql.toFixed(4), isMet: sql < 0.005 }
}
