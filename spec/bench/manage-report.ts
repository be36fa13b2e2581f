import type { BenchContext } from './bench'
import { withClient } from './database'
import type { ManageAnswer, ManageQuestion, Operation } from './manage'
import { fillForVariant } from './manage-database'
import { keysPerCall, manageVariants, type ManageVariant } from './manage-variants'
import { thisBuild } from './ours'
import { startHelper, type Helper } from './processes'
import { median, sum } from './statistics'
import { expectMedian, formatCount, formatSpread, formatTable, type Target } from './tables'

/*
 * The part `manage`: how fast keys are created and changed. A turn measures each variant once, for some seconds; each
 * turn begins with another variant, and every second turn goes backwards. Nothing is pinned, because four processes
 * need all processors.
 */

/** How many processes and callers make operations at the same time. */
const modes = {
  single: { title: 'one at a time', processes: 1, atOnce: 1 },
  many: { title: '16 at once', processes: 1, atOnce: 16 },
  processes: { title: '16 at once in each of four processes', processes: 4, atOnce: 16 },
} as const

type Mode = keyof typeof modes

const titles: Record<Operation, string> = {
  create: 'create',
  change: 'change permissions',
  suspend: 'suspend, reactivate',
  revoke: 'revoke',
  rotate: 'rotate',
  list: 'list a page of 20',
  createMany: `create ${keysPerCall.toLocaleString('en')} keys per call`,
}

/** The measurements besides operations. */
const others = new Set(['stall', 'verify'])

/** One variant in one turn. Numbers per operation are of all processes together. */
interface Sample {
  perSecond: number
  roundTrips: number
  polls: number
  sealing: number
  cpuMs: number
  serverCpuMs: number
  statementMs: number
  settleSeconds: number
}

type Process = Helper<ManageQuestion, ManageAnswer>

interface Running {
  variant: ManageVariant
  database: string
  processes: Process[]
  known: readonly Operation[]
}

type Samples = Map<string, Sample[]>

/** Measures how keys are created and changed, prints the tables, and returns the targets with their results. */
export async function measureManage(context: BenchContext): Promise<Target[]> {
  const { isQuick, only } = context
  const plan = isQuick
    ? { turns: 2, ms: 700, keys: 20_000 }
    : { turns: 3, ms: 3_000, keys: 100_000 }
  const unknown = only.filter((name) => !(name in titles) && !others.has(name))
  if (unknown.length > 0) throw new Error(`--only does not know ${unknown.join(', ')}`)
  const wanted = (name: string) => only.length === 0 || only.includes(name)
  const operations = (Object.keys(titles) as Operation[]).filter(wanted)
  const samples: Samples = new Map()
  const targets: Target[] = []

  const running = operations.length > 0 ? await startVariants(context, plan.keys) : []
  try {
    for (const operation of operations)
      await measureOperation(context, { operation, plan, running, samples })
  } finally {
    for (const { processes } of running) for (const process of processes) await process.stop()
  }
  if (operations.length > 0) {
    printSpeeds(context, operations, running, samples)
    printCosts(context, operations, running, samples)
    targets.push(...targetsOf(samples))
  }
  if (wanted('stall')) targets.push(...(await measureStall(context)))
  if (wanted('verify')) targets.push(...(await measureVerification(context)))
  return targets
}

function variantsOf({ against }: BenchContext): ManageVariant[] {
  const all = Object.keys(manageVariants) as ManageVariant[]
  return all.filter((variant) => against !== undefined || !variant.startsWith('before'))
}

function buildOf(variant: ManageVariant, { against = thisBuild }: BenchContext): string {
  return variant.startsWith('before') ? against : thisBuild
}

async function startVariants(context: BenchContext, keys: number): Promise<Running[]> {
  const { server, log } = context
  const templates = new Map<string, string>()
  const running: Running[] = []

  for (const variant of variantsOf(context)) {
    const { tables, title } = manageVariants[variant]
    log(`preparing ${title.replaceAll('*', '')}`)
    const build = buildOf(variant, context)
    let template = templates.get(tables + build)
    if (template === undefined) {
      template = `manage_template_${templates.size}`
      templates.set(tables + build, template)
      await fillForVariant(await server.createDatabase(template), { tables, build, keys })
    }

    const database = `manage_${variant.toLowerCase()}`
    const url = await server.createDatabase(database, template)
    await withClient(url, async (client) => {
      // Sequelize sends text that is planned each time, so planning is part of what an operation takes.
      await client.query(`ALTER DATABASE ${database} SET pg_stat_statements.track_planning = on`)
      if (variant === 'copyBare') await client.query('ALTER TABLE api_keys DISABLE TRIGGER USER')
    })
    const start = (share: string) => startProcess(context, { variant, url, share })
    const processes = [await start('0/4')]
    const [first] = processes
    const { known = [] } = (await first?.ask({ kind: 'operations' })) ?? {}
    if (known.includes('create'))
      processes.push(...(await Promise.all(['1/4', '2/4', '3/4'].map(start))))
    running.push({ variant, database, processes, known })
  }
  return running
}

async function startProcess(
  context: BenchContext,
  { variant, url, share = '0/1' }: { variant: ManageVariant; url: string; share?: string },
): Promise<Process> {
  const build = buildOf(variant, context)
  const env = { DATABASE_URL: url, SECRET: context.secret, BUILD: build, SHARE: share }
  return startHelper({ file: 'manage.ts', argument: variant, env })
}

async function measureOperation(
  context: BenchContext,
  {
    operation,
    plan,
    running,
    samples,
  }: {
    operation: Operation
    plan: { turns: number; ms: number }
    running: readonly Running[]
    samples: Samples
  },
) {
  const able = running.filter(({ known }) => known.includes(operation))
  // A call that makes a thousand keys is a batch in itself.
  const names: Mode[] = operation === 'createMany' ? ['single'] : ['single', 'many', 'processes']
  for (const mode of names) {
    context.log(`${titles[operation]}, ${modes[mode].title}`)
    for (let turn = -1; turn < plan.turns; turn++) {
      for (const one of orderOf(able, Math.max(0, turn))) {
        // The first turn only warms up.
        const ms = turn < 0 ? plan.ms / 3 : plan.ms
        const sample = await measureOnce(context, one, { operation, mode, ms })
        if (turn >= 0) pushTo(samples, nameOf(one.variant, operation, mode), sample)
      }
    }
  }
}

async function measureOnce(
  { server }: BenchContext,
  { database, processes }: Running,
  { operation, mode, ms }: { operation: Operation; mode: Mode; ms: number },
): Promise<Sample> {
  const { atOnce, processes: count } = modes[mode]
  const processorBefore = await server.processorTime(database)
  const statementsBefore = await server.statementTime(database)
  const answers = await Promise.all(
    processes.slice(0, count).map((process) => process.ask({ kind: 'run', operation, atOnce, ms })),
  )
  const statements = (await server.statementTime(database)) - statementsBefore
  const processor = [...(await server.processorTime(database))].map(
    ([pid, time]) => time - (processorBefore.get(pid) ?? 0),
  )
  const done = sum(answers.map(({ count }) => count))
  if (done === 0) throw new Error(`no key was left for ${operation} in ${database}`)

  const per = (value: (answer: ManageAnswer) => number) => sum(answers.map(value)) / done
  return {
    perSecond: sum(answers.map(({ count, seconds }) => count / seconds)),
    roundTrips: per(({ roundTrips }) => roundTrips.own),
    polls: per(({ roundTrips }) => roundTrips.polls),
    sealing: per(({ roundTrips }) => roundTrips.sealing),
    cpuMs: per(({ cpuMicroseconds }) => cpuMicroseconds / 1000),
    serverCpuMs: processor.length > 0 ? sum(processor) / done : Number.NaN,
    statementMs: statements / done,
    settleSeconds: Math.max(...answers.map(({ settleSeconds }) => settleSeconds)),
  }
}

function orderOf<Turn>(all: readonly Turn[], round: number): Turn[] {
  const first = round % Math.max(1, all.length)
  const order = [...all.slice(first), ...all.slice(0, first)]
  return round % 2 === 0 ? order : order.toReversed()
}

function nameOf(variant: ManageVariant, operation: Operation, mode: Mode): string {
  return `${variant} ${operation} ${mode}`
}

function pushTo(samples: Samples, name: string, sample: Sample) {
  const list = samples.get(name) ?? []
  samples.set(name, [...list, sample])
}

function printSpeeds(
  { print }: BenchContext,
  operations: readonly Operation[],
  running: readonly Running[],
  samples: Samples,
) {
  const shown = running.filter(({ known }) => known.includes('create'))
  const rows: string[][] = []
  for (const operation of operations.filter((one) => one !== 'createMany')) {
    for (const mode of Object.keys(modes) as Mode[]) {
      const speeds = shown.map(({ variant }) => {
        const list = samples.get(nameOf(variant, operation, mode))
        return list ? formatCount(median(list.map(({ perSecond }) => perSecond))) : '–'
      })
      rows.push([`${titles[operation]}, ${modes[mode].title}`, ...speeds])
    }
  }
  const head = ['', ...shown.map(({ variant }) => manageVariants[variant].title)]
  if (rows.length > 0) {
    print('## Keys that are created and changed, per second')
    print(formatTable(head, rows))
  }

  if (!operations.includes('createMany')) return
  print(`## Many keys at once`)
  print(
    formatTable(
      [titles.createMany, 'keys/s'],
      running.flatMap(({ variant }) => {
        const list = samples.get(nameOf(variant, 'createMany', 'single'))
        if (!list) return []
        return [
          [
            manageVariants[variant].title,
            formatSpread(
              list.map(({ perSecond }) => perSecond),
              0,
            ),
          ],
        ]
      }),
    ),
  )
}

/** The cost of an operation: one at a time, and in brackets 16 at once. */
function printCosts(
  { print }: BenchContext,
  operations: readonly Operation[],
  running: readonly Running[],
  samples: Samples,
) {
  const rows = operations.flatMap((operation) =>
    running.flatMap(({ variant }) => {
      const single = samples.get(nameOf(variant, operation, 'single'))
      const many = samples.get(nameOf(variant, operation, 'many'))
      if (!single) return []
      const show = (name: keyof Sample, digits: number) => {
        const of = (list: readonly Sample[]) =>
          median(list.map((sample) => sample[name])).toFixed(digits)
        return many ? `${of(single)} (${of(many)})` : of(single)
      }
      return [
        [
          `${titles[operation]}: ${manageVariants[variant].title}`,
          show('roundTrips', 2),
          show('polls', 2),
          show('sealing', 2),
          show('cpuMs', 2),
          show('serverCpuMs', 2),
          show('statementMs', 2),
          show('settleSeconds', 2),
        ],
      ]
    }),
  )
  print('## What one operation takes, one at a time (16 at once)')
  print(
    [
      'Milliseconds of a processor in the process, and in the connections of the server; milliseconds of statements by',
      'pg_stat_statements, which count what a statement waits for, and not its commit. The last column says how long it took after',
      'a turn until nothing was left to do, in seconds.',
    ].join('\n'),
  )
  print(
    formatTable(
      [
        '',
        'round trips',
        'polls',
        'sealing',
        'process, ms',
        'server, ms',
        'statements, ms',
        'after, s',
      ],
      rows,
    ),
  )
}

function targetsOf(samples: Samples): Target[] {
  const perSecond = (variant: ManageVariant, operation: Operation, mode: Mode) =>
    (samples.get(nameOf(variant, operation, mode)) ?? []).map((sample) => sample.perSecond)

  /** A target for the ratio of ours to another variant, turn by turn. */
  function against(
    operation: Operation,
    mode: Mode,
    variant: ManageVariant,
    atLeast: number,
  ): Target[] {
    const ours = perSecond('ours', operation, mode)
    const others = perSecond(variant, operation, mode)
    if (ours.length === 0 || others.length === 0) return []
    const what = `${titles[operation]}, ${modes[mode].title}, against ${manageVariants[variant].title}`
    return [expectMedian(what, ratios(ours, others), { atLeast, digits: 2 })]
  }

  function roundTrips(operation: Operation, atMost: number): Target[] {
    const list = samples.get(nameOf('ours', operation, 'single'))
    if (!list) return []
    const what = `${titles[operation]}, one at a time: round trips`
    return [
      expectMedian(
        what,
        list.map((sample) => sample.roundTrips),
        { atMost, digits: 2 },
      ),
    ]
  }

  const targets = [
    ...against('create', 'many', 'betterAuth', 1.2),
    ...against('create', 'many', 'sequelize', 0.65),
    ...against('create', 'many', 'sequelizeAudit', 1.8),
    ...against('create', 'single', 'betterAuth', 1),
    ...against('change', 'many', 'betterAuth', 1.3),
    ...against('revoke', 'many', 'betterAuth', 1.3),
    ...against('createMany', 'single', 'copy', 0.3),
    ...roundTrips('create', 1),
    ...roundTrips('revoke', 2),
  ]
  const four = perSecond('ours', 'create', 'processes')
  const single = perSecond('ours', 'create', 'many')
  const batches = perSecond('ours', 'createMany', 'single')
  if (four.length > 0) {
    const what = 'create, four processes against one, 16 at once in each'
    targets.push(expectMedian(what, ratios(four, single), { atLeast: 1.5, digits: 2 }))
  }
  if (batches.length > 0 && single.length > 0) {
    const what = `${titles.createMany}, against single creates 16 at once`
    targets.push(expectMedian(what, ratios(batches, single), { atLeast: 10, digits: 1 }))
  }
  return targets
}

function ratios(ones: readonly number[], others: readonly number[]): number[] {
  return ones.map((one, turn) => one / (others[turn] ?? Number.NaN))
}

/** One user sends 500 creates at once: how long do the queries of the app wait that shares the pool of 5? */
async function measureStall(context: BenchContext): Promise<Target[]> {
  const { server, isQuick, print, log } = context
  const creates = 500
  const rows: string[][] = []
  const targets: Target[] = []
  log(`${creates} creates of one user at once`)

  for (const variant of variantsOf(context).filter((one) => /^(?:ours|before)$/.test(one))) {
    const url = await server.createDatabase(`manage_stall_${variant}`)
    const build = buildOf(variant, context)
    await fillForVariant(url, { tables: 'ours', build, keys: 1_000 })
    const process = await startProcess(context, { variant, url })
    const answers: ManageAnswer[] = []
    for (let turn = 0; turn < (isQuick ? 2 : 5); turn++) {
      answers.push(await process.ask({ kind: 'stall', creates }))
    }
    await process.stop()

    const worst = answers.map(({ waits = [] }) => Math.max(...waits))
    const usual = answers.map(({ waits = [] }) => median(waits))
    const seconds = answers.map(({ seconds }) => seconds * 1000)
    const { title } = manageVariants[variant]
    rows.push([title, formatSpread(worst, 0), formatSpread(usual, 1), formatSpread(seconds, 0)])
    if (variant === 'ours') {
      const what = `the app's \`SELECT 1\` beside ${creates} creates of one user, worst wait`
      targets.push(expectMedian(what, worst, { atMost: 100, digits: 0, unit: ' ms' }))
    }
  }
  print(
    `## The app's own \`SELECT 1\` through its pool of 5, while one user sends ${creates} creates at once`,
  )
  print(formatTable(['', 'worst wait, ms', 'median wait, ms', 'all creates, ms'], rows))
  return targets
}

async function measureVerification(context: BenchContext): Promise<Target[]> {
  const { server, isQuick, print, log, against } = context
  const entries = isQuick ? 20_000 : 200_000
  const variants = variantsOf(context).filter((one) => /^(?:ours|before)$/.test(one))
  const measured = new Map<ManageVariant, ManageAnswer[]>()
  const processes = new Map<ManageVariant, Process>()

  for (const variant of variants) {
    log(`an audit trail of ${formatCount(entries)} entries`)
    const url = await server.createDatabase(`manage_trail_${variant}`)
    await fillForVariant(url, { tables: 'ours', build: buildOf(variant, context), keys: 0 })
    const filling = await startProcess(context, { variant, url })
    await filling.ask({ kind: 'fillTrail', entries })
    // The most memory of a process is for all of its time, so another process verifies.
    await filling.stop()
    await withClient(url, async (client) => {
      await client.query('VACUUM ANALYZE')
    })
    processes.set(variant, await startProcess(context, { variant, url }))
  }
  for (let turn = -1; turn < (isQuick ? 2 : 3); turn++) {
    for (const [variant, process] of orderOf([...processes], Math.max(0, turn))) {
      const answer = await process.ask({ kind: 'verify' })
      // The first turn only warms up.
      if (turn >= 0) measured.set(variant, [...(measured.get(variant) ?? []), answer])
    }
  }
  for (const process of processes.values()) await process.stop()

  const of = (variant: ManageVariant, read: (answer: ManageAnswer) => number) =>
    (measured.get(variant) ?? []).map(read)
  const speedsOf = (variant: ManageVariant) => of(variant, ({ count, seconds }) => count / seconds)
  const blocksOf = (variant: ManageVariant) => of(variant, (one) => one.longestBlockMs ?? 0)
  print(`## \`verifyAuditTrail\` on ${formatCount(entries)} entries, half of them signed`)
  print(
    formatTable(
      ['', 'entries/s', 'the event loop is blocked at most, ms', 'more memory at most, MB'],
      [...measured.keys()].map((variant) => [
        manageVariants[variant].title,
        formatSpread(speedsOf(variant), 0),
        formatSpread(blocksOf(variant), 1),
        formatSpread(
          of(variant, ({ growthMb = 0 }) => growthMb),
          0,
        ),
      ]),
    ),
  )
  const isResponsive = expectMedian('`verifyAuditTrail` blocks the event loop', blocksOf('ours'), {
    atMost: 20,
    digits: 1,
    unit: ' ms',
  })
  if (against === undefined) return [isResponsive]
  const change = ratios(speedsOf('ours'), speedsOf('before'))
  const what = '`verifyAuditTrail`, against the other build'
  return [isResponsive, expectMedian(what, change, { atLeast: 8, digits: 1 })]
}
