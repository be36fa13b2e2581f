import { hash, randomBytes } from 'node:crypto'
import { cpus } from 'node:os'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'

import { measureCpu } from './cpu'
import { startServer, type Server } from './database'
import { measureHttp } from './http-report'
import { measureImport } from './import'
import { measureInProcess, measureScale } from './in-process-report'
import { measureManage } from './manage-report'
import { pinProcesses } from './processes'
import { formatTargets, type Target } from './tables'
import { measureTransport } from './transport'

/*
 * npm run bench               everything but `scale`, in some twenty-five minutes
 * npm run bench -- quick      the same with fewer rounds, for trying out: it proves nothing
 * npm run bench -- scale      a million keys in the cache, five million in the table; takes minutes
 * npm run bench -- http       one part; also: in-process
 * npm run bench -- cpu        CPU time per request, in two minutes; --against DIR compares with the build of another checkout
 * npm run bench -- import     importing keys of other systems, and verifying them
 * npm run bench -- transport  the time of answers over plain HTTP, in three minutes
 * npm run bench -- manage     the speed of creating and changing keys, in half an hour; --against DIR as above
 *
 * npm run bench -- manage --only create,list     some operations; also: stall, verify
 *
 * Tables go to stdout, progress to stderr.
 */

export interface BenchContext {
  server: Server
  pinning: ReturnType<typeof pinProcesses>
  secret: string
  isQuick: boolean
  /** The folder of another checkout of the library, which is built. */
  against: string | undefined
  /** The operations that the part `manage` measures; empty for all. */
  only: readonly string[]
  log(line: string): void
  print(text: string): void
}

const parts = {
  http: measureHttp,
  'in-process': measureInProcess,
  scale: measureScale,
  cpu: measureCpu,
  manage: measureManage,
  import: measureImport,
  transport: measureTransport,
}

type Part = keyof typeof parts

async function runBench() {
  const { values, positionals: words } = parseArgs({
    allowPositionals: true,
    options: { against: { type: 'string' }, only: { type: 'string' } },
  })
  const unknown = words.filter((word) => word !== 'quick' && !(word in parts))
  if (unknown.length > 0) {
    const known = ['quick', ...Object.keys(parts)].join(', ')
    throw new Error(`the bench knows ${known}, not ${unknown.join(', ')}`)
  }
  const named = words.filter((word): word is Part => word in parts)
  const wanted: Part[] = named.length > 0 ? named : ['http', 'in-process']

  // These parts keep an app and the database busy at the same time.
  const sharesProcessors = wanted.includes('manage') || wanted.includes('import')
  const pinning = sharesProcessors ? undefined : pinProcesses()
  const server = await startServer()
  const context: BenchContext = {
    server,
    pinning,
    secret: randomBytes(32).toString('base64'),
    isQuick: words.includes('quick'),
    against: values.against && resolve(values.against),
    only: values.only?.split(',') ?? [],
    log: (line) => console.error(line),
    print: (text) => console.log(`${text}\n`),
  }
  printCircumstances(context)

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void server.stop().finally(() => process.exit(1)))
  }

  const targets: Target[] = []
  try {
    for (const part of wanted) targets.push(...(await parts[part](context)))
  } finally {
    await server.stop()
  }
  context.print('## Targets')
  context.print(formatTargets(targets))
}

function printCircumstances({ pinning, isQuick, print }: BenchContext) {
  const [cpu] = cpus()
  print(
    `# npm run bench${process.argv.slice(2).length > 0 ? ' -- ' : ''}${process.argv.slice(2).join(' ')}`,
  )
  print(
    [
      `Node ${process.version}, ${process.platform} ${process.arch}, ${cpus().length} x ${cpu?.model ?? 'unknown'}.`,
      pinning
        ? `The measured process has processor ${pinning.measured} to itself; load and Postgres run on ${pinning.others}.`
        : 'Nothing is pinned: all processes share all processors.',
      `One SHA-256 of 48 characters takes ${nanosecondsPerHash().toFixed(0)} ns here: measure for measure, compare with that.`,
      'In brackets: what half of all rounds lie between.',
      ...(isQuick ? ['**A quick run: it proves nothing.**'] : []),
    ].join('\n'),
  )
}

/** Prints the present speed of this machine, to compare it with another machine. */
function nanosecondsPerHash(): number {
  const text = 'x'.repeat(48)
  const calls = 200_000
  let begunAt = 0
  // The first turn only warms up.
  for (let turn = 0; turn < 2; turn++) {
    begunAt = performance.now()
    for (let call = 0; call < calls; call++) hash('sha256', text, 'binary')
  }
  return ((performance.now() - begunAt) * 1e6) / calls
}

runBench().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
