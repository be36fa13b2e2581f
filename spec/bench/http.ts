import { join } from 'node:path'

import { fillWithBetterAuthKeys } from './better-auth'
import {
  fillWithOurKeys,
  fillWithSequelizeKeys,
  purposeOf,
  statementsBetween,
  type Server,
  type StatementPurpose,
  type Statements,
} from './database'
import { forgeKeys, inventTokens, mintKeys, plainTexts, writeTokens } from './keys'
import type { LoadAnswer, LoadEnd, LoadQuestion, TokenList } from './load'
import { startHelper, type Helper, type Pinning } from './processes'
import type { ServerQuestion } from './server'
import { variants, type KeyStorage, type VariantName } from './variants'

/*
 * The variants behind HTTP. All servers are up at once and only one of them is ever under load. A round measures each
 * variant once, only for a moment. Each round begins with a different variant, and every second round goes backwards.
 * So a slow phase of the machine, even below a second, weighs on both sides of a comparison, and each variant follows
 * every other variant. Two processes with the same code differ by some percent for as long as they live. In close
 * comparisons, each variant has several processes in turn.
 */

export type LoadName = 'warm' | 'hot' | 'garbage' | 'forged' | 'computed' | 'cold'

export interface Plan {
  title: string
  rounds: number
  /** The number of processes of each variant that share the rounds. */
  processes?: number
  participants: readonly Participant[]
}

export interface Participant {
  variant: VariantName
  load: LoadName
  slice: LoadEnd
}

/** One participant in one round. */
export interface Sample {
  requestsPerSecond: number
  /** The resources that the server used for all of the requests. */
  cpuMicroseconds: number
  requests: number
  seconds: number
  statements: Statements
}

export type Measured = Participant & { samples: Sample[] }

export interface HttpBench {
  /** Rejects unless our guard and bare Express refuse a key with the same bytes. */
  compareRefusals(): Promise<void>
  measure(plan: Plan): Promise<Measured[]>
  stop(): Promise<void>
}

interface HttpBenchOptions {
  server: Server
  pinning: Pinning | undefined
  secret: string
  coldKeys: number
  log(line: string): void
}

const warmKeys = 1000
const forgeries = 50_000

interface RunningVariant {
  helper: Helper<ServerQuestion, number>
  port: number
  database: string
}

export async function startHttpBench(options: HttpBenchOptions): Promise<HttpBench> {
  const { server, pinning, secret, log } = options
  const tokens = await prepare(options)

  const load = await startHelper<LoadQuestion, LoadAnswer>({
    file: 'load.ts',
    cpus: pinning?.others,
  })
  const running = new Map<VariantName, RunningVariant>()
  const urls = new Map<VariantName, string>()

  async function databaseOf(variant: VariantName, database: string): Promise<string> {
    const { keys } = variants[variant]
    if (!isStored(keys)) return ''

    const url = urls.get(variant) ?? (await server.createDatabase(database, templateOf(keys)))
    urls.set(variant, url)
    return url
  }

  async function start(variant: VariantName): Promise<RunningVariant> {
    const database = variant.toLowerCase()
    const url = await databaseOf(variant, database)
    const helper = await startHelper<ServerQuestion, number>({
      file: 'server.ts',
      argument: variant,
      env: { DATABASE_URL: url, SECRET: secret, TOKENS: tokens.listOf('warm', 'map').file },
      cpus: pinning?.measured,
    })
    return { helper, port: await helper.ask('port'), database }
  }

  async function runningVariant(variant: VariantName) {
    const found = running.get(variant) ?? (await start(variant))
    running.set(variant, found)
    return found
  }

  async function stopServers() {
    for (const { helper } of running.values()) await helper.stop()
    running.clear()
  }

  async function run({ variant, load: name }: Participant, until: LoadEnd) {
    const { keys } = variants[variant]
    const { port } = await runningVariant(variant)
    const isGood = name === 'warm' || name === 'hot' || name === 'cold'
    // The strict guard answers the first bad keys of each minute with 401, and all further bad keys with 429.
    const refusals = variant === 'guardStrict' ? [401, 429] : [401]
    const expectedStatuses = isGood ? [200] : refusals
    return load.ask({ port, tokens: tokens.listOf(name, keys), expectedStatuses, until })
  }

  async function measureOnce(participant: Participant, warmUp: LoadEnd): Promise<Sample> {
    const { helper, database } = await runningVariant(participant.variant)
    await run(participant, warmUp)

    const statementsBefore = await server.countStatements(database)
    const cpuBefore = await helper.ask('cpu')
    const { requests, seconds } = await run(participant, participant.slice)
    const cpu = (await helper.ask('cpu')) - cpuBefore
    const statementsAfter = await server.countStatements(database)

    return {
      requestsPerSecond: requests / seconds,
      cpuMicroseconds: cpu,
      requests,
      seconds,
      statements: statementsBetween(statementsBefore, statementsAfter),
    }
  }

  /** The first run warms up: V8 compiles, and caches fill. */
  async function warmUp(participants: readonly Participant[]) {
    for (const participant of participants) {
      const { slice } = participant
      await measureOnce({ ...participant, slice: scale(slice, 0.2) }, firstWarmUp(slice))
    }
  }

  return {
    async compareRefusals() {
      const [ours, bare] = [await runningVariant('guardKeyed'), await runningVariant('bareRefusal')]
      const [one, other] = [await refusalOf(ours.port), await refusalOf(bare.port)]
      if (one !== other) throw new Error(`the refusals differ:\n${one}\n\n${other}`)
    },

    async measure({ title, rounds, processes = 1, participants }) {
      log(title)
      const measured = participants.map((participant) => ({
        ...participant,
        samples: [] as Sample[],
      }))
      const roundsOfProcess = Math.ceil(rounds / processes)

      for (let round = 0; round < rounds; round++) {
        if (round > 0 && round % roundsOfProcess === 0) await stopServers()
        if (round % roundsOfProcess === 0) await warmUp(measured)
        for (const participant of orderOf(measured, round)) {
          participant.samples.push(await measureOnce(participant, scale(participant.slice, 0.15)))
        }
        if ((round + 1) % 20 === 0) log(`  round ${round + 1} of ${rounds}`)
      }
      return measured
    },

    async stop() {
      await load.stop()
      await stopServers()
    },
  }
}

/** A response without its date. */
async function refusalOf(port: number): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/graphs/7`, {
    headers: { authorization: 'Bearer garbage' },
  })
  const headers = [...response.headers].filter(([name]) => name !== 'date')
  return JSON.stringify([response.status, headers, await response.text()])
}

function orderOf<Turn>(all: readonly Turn[], round: number): Turn[] {
  const first = round % all.length
  const order = [...all.slice(first), ...all.slice(0, first)]
  return round % 2 === 0 ? order : order.toReversed()
}

function firstWarmUp(slice: LoadEnd): LoadEnd {
  return 'ms' in slice ? { ms: 4_000 } : scale(slice, 1.5)
}

function scale(end: LoadEnd, factor: number): LoadEnd {
  return 'ms' in end
    ? { ms: end.ms * factor }
    : { requests: Math.max(50, Math.round(end.requests * factor)) }
}

/** The variants that query the database for every request. */
function isRival(variant: VariantName) {
  return variant === 'sequelize' || variant === 'betterAuth'
}

function isStored(keys: KeyStorage) {
  return keys !== 'none' && keys !== 'map'
}

function templateOf(keys: KeyStorage) {
  return `template_${keys.toLowerCase()}`
}

/** Makes keys and tokens, and a database to copy for each way of storing them. */
async function prepare({ server, secret, coldKeys, log }: HttpBenchOptions) {
  log('preparing keys and databases')
  const cold = mintKeys(coldKeys)
  const coldKeyed = mintKeys(coldKeys, [secret])
  const warm = mintKeys(warmKeys)
  const warmKeyed = mintKeys(warmKeys, [secret])

  const all = [...warm, ...cold]
  await fillWithOurKeys(await server.createDatabase(templateOf('ours')), { keys: all })
  await fillWithOurKeys(await server.createDatabase(templateOf('oursKeyed')), {
    keys: [...warmKeyed, ...coldKeyed],
  })
  await fillWithOurKeys(await server.createDatabase(templateOf('oursBound')), {
    keys: warm,
    areBound: true,
  })
  await fillWithSequelizeKeys(await server.createDatabase(templateOf('sequelize')), all)
  await fillWithBetterAuthKeys(await server.createDatabase(templateOf('betterAuth')), all)

  const files = {
    warm: plainTexts(warm),
    warmKeyed: plainTexts(warmKeyed),
    hot: plainTexts(warm.slice(0, 1)),
    hotKeyed: plainTexts(warmKeyed.slice(0, 1)),
    cold: plainTexts(cold),
    coldKeyed: plainTexts(coldKeyed),
    garbage: inventTokens(forgeries),
    forged: forgeKeys(forgeries),
    computed: plainTexts(mintKeys(forgeries)),
  }
  for (const [name, tokens] of Object.entries(files)) {
    await writeTokens(join(server.folder, name), tokens)
  }

  return {
    listOf(load: LoadName, keys: KeyStorage): TokenList {
      const name = keys === 'oursKeyed' && `${load}Keyed` in files ? `${load}Keyed` : load
      return {
        file: join(server.folder, name),
        isRepeatable: load !== 'cold' && load !== 'computed',
      }
    },
  }
}

/** The statements of one purpose, over all rounds. All statements of other libraries count as sent for a request. */
export function countStatements({ variant, samples }: Measured, purpose: StatementPurpose): number {
  let count = 0
  for (const { statements } of samples) {
    for (const [text, calls] of statements) {
      if ((isRival(variant) ? 'request' : purposeOf(text)) === purpose) count += calls
    }
  }
  return count
}
