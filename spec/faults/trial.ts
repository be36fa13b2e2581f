import { setTimeout as sleep } from 'node:timers/promises'

import type { TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import type { Fleet } from './fleet'
import { monotonicMs, waitUntil } from './waiting'
import type { Load, Sighting, WorkerReport } from './worker'

/** The library's default for `maxStalenessMs`. */
export const boundMs = 1000
/** The time after the return of the database within which a 503 is still excused. */
const recoveryMs = 1000

export interface IssuedKey {
  id: string
  plainTextKey: string
}

/** A key that stopped being good. Times are those of `monotonicMs`. */
export interface End {
  begunAt: number
  committedAt: number
}

/** Keys that a fleet watches through a fault, and the promises about them. */
export interface Trial {
  /** Keys that stay good throughout. */
  good: readonly IssuedKey[]
  /** Keys that the spec ends. */
  doomed: readonly IssuedKey[]
  /** Ends doomed keys (all, or the keys given) by `work`. They may be refused from its beginning on. */
  end(work: () => Promise<unknown>, keys?: readonly IssuedKey[]): Promise<End>
  /** Says that the database is away while the work is done. */
  outage<Result>(work: () => Promise<Result>): Promise<Result>
  /** Leaves keys out of the judgement, because a failover undid their changes. */
  exclude(keys: readonly IssuedKey[]): void
  /**
   * Waits until every late acceptance would have shown, and lists the broken promises. `any` excuses missing answers.
   */
  judge(answers: 'all' | 'any'): Promise<Judgement>
}

interface Judgement {
  reports: readonly WorkerReport[]
  faults: readonly string[]
  /** The ends of processes that should live. */
  dead: readonly string[]
}

interface TrialSettings {
  fleet: Fleet
  /** Makes the keys. */
  apiKeys: TestApiKeys
  good?: number
  doomed?: number
  userId?: string
  load?: Load
  /** If true, the trial begins when every process has accepted every key. */
  isWarm?: boolean
}

export async function createKeys(
  apiKeys: TestApiKeys,
  count: number,
  userId = 'alice',
): Promise<IssuedKey[]> {
  const keys: IssuedKey[] = []
  while (keys.length < count) {
    const atOnce = Array.from({ length: Math.min(8, count - keys.length) })
    const created = await Promise.all(atOnce.map(() => apiKeys.create(newKey({ userId }))))
    keys.push(...created.map(({ apiKey: { id }, plainTextKey }) => ({ id, plainTextKey })))
  }
  return keys
}

export async function startTrial({
  fleet,
  apiKeys,
  good: goodCount = 8,
  doomed: doomedCount = 2,
  userId = 'alice',
  load,
  isWarm = true,
}: TrialSettings): Promise<Trial> {
  const good = await createKeys(apiKeys, goodCount)
  const doomed = await createKeys(apiKeys, doomedCount, userId)
  return watchTrial({ fleet, good, doomed, load, isWarm })
}

interface WatchSettings extends Pick<TrialSettings, 'fleet' | 'isWarm'> {
  good: readonly IssuedKey[]
  doomed: readonly IssuedKey[]
  load?: Load | undefined
}

/** Watches keys that exist already. */
export async function watchTrial({
  fleet,
  good,
  doomed,
  load,
  isWarm = true,
}: WatchSettings): Promise<Trial> {
  const keys = [...good, ...doomed]
  const ends = new Map<string, End>()
  const excluded = new Set<string>()
  const outages: { from: number; backAt: number }[] = []

  await fleet.watch(
    keys.map(({ plainTextKey }) => plainTextKey),
    load,
  )
  if (isWarm) {
    await waitUntil('every process accepts every key', async () =>
      (await fleet.reports()).every(({ sightings }) =>
        sightings.every(({ accepted }) => accepted > 1),
      ),
    )
  }

  // Until then a process has only just begun, and the machine may be busy with the start of more processes.
  const warmAt = isWarm ? monotonicMs() : 0

  return {
    good,
    doomed,

    async end(work, ending = doomed) {
      const begunAt = monotonicMs()
      await work()
      const end = { begunAt, committedAt: monotonicMs() }
      for (const { id } of ending) ends.set(id, end)
      return end
    },

    async outage(work) {
      const outage = { from: monotonicMs(), backAt: Infinity }
      outages.push(outage)
      try {
        return await work()
      } finally {
        outage.backAt = monotonicMs()
      }
    },

    exclude(keys) {
      for (const { id } of keys) excluded.add(id)
    },

    async judge(answers) {
      const lastCommit = Math.max(0, ...[...ends.values()].map(({ committedAt }) => committedAt))
      const lastReturn = Math.max(0, ...outages.map(({ backAt }) => backAt))
      const showsAt = Math.max(lastCommit + boundMs, lastReturn + recoveryMs) + 400
      await sleep(Math.max(0, showsAt - monotonicMs()))

      const reports =
        answers === 'all' ? await freshReports(fleet, keys, ends) : await fleet.reports()
      const faults = reports.flatMap((report, number) => [
        ...keys.flatMap(({ id }, index) => {
          const sighting = report.sightings[index]
          if (excluded.has(id)) return []
          return judge(sighting, ends.get(id)).map(
            (fault) => `process ${number}, key ${index}: ${fault}`,
          )
        }),
        ...(answers === 'all'
          ? judgeRejections(report, { warmAt, outages }).map(
              (fault) => `process ${number}: ${fault}`,
            )
          : []),
      ])
      const dead = fleet.workers.flatMap((worker) => worker.ending() ?? [])
      return { reports, faults, dead }
    },
  }
}

/**
 * Expects the promises of the library. No key is accepted later than the bound after the commit. No good key is
 * refused. No answer is missing except during outages and a second after them.
 */
export async function expectHeld(
  trial: Trial,
  { answers }: { answers: 'all' | 'any' } = { answers: 'all' },
): Promise<readonly WorkerReport[]> {
  const { reports, faults, dead } = await trial.judge(answers)
  expect({ faults, dead }).toEqual({ faults: [], dead: [] })
  return reports
}

/** Returns reports in which every process has answered for every key since now. A silent process proves nothing. */
async function freshReports(
  fleet: Fleet,
  keys: readonly IssuedKey[],
  ends: ReadonlyMap<string, End>,
): Promise<WorkerReport[]> {
  const since = monotonicMs()
  let reports: WorkerReport[] = []
  let silent: string[] = []
  await waitUntil('every process answers for every key again', async () => {
    reports = await fleet.reports()
    silent = reports.flatMap(({ sightings }, number) =>
      keys.flatMap(({ id }, index) => {
        const { lastAcceptedAt = 0, lastRefusedAt = 0 } = sightings[index] ?? {}
        const answeredAt = ends.has(id) ? lastRefusedAt : Math.max(lastAcceptedAt, lastRefusedAt)
        return answeredAt > since ? [] : [`process ${number}, key ${index}`]
      }),
    )
    return silent.length === 0
  }).catch((error: unknown) => {
    const rejections = JSON.stringify(reports.map(({ rejections }) => rejections.at(-1)))
    throw new Error(`silent: ${silent.join('; ')}; last rejections: ${rejections}`, {
      cause: error,
    })
  })
  return reports
}

function judge(sighting: Sighting | undefined, end: End | undefined): string[] {
  if (!sighting) return ['was not watched']
  const { lastAcceptedAt, refused, firstRefusedAt, codes } = sighting
  const faults: string[] = []

  if (end && lastAcceptedAt > end.committedAt + boundMs) {
    faults.push(`accepted ${(lastAcceptedAt - end.committedAt).toFixed(1)} ms after the commit`)
  }
  if (refused > 0 && firstRefusedAt < (end?.begunAt ?? Infinity)) {
    faults.push(`refused while it was good, ${refused} times: ${codes.join(', ')}`)
  }
  return faults
}

function judgeRejections(
  { rejections }: WorkerReport,
  { warmAt, outages }: { warmAt: number; outages: readonly { from: number; backAt: number }[] },
): string[] {
  return rejections.flatMap(({ code, from, to, count }) => {
    const what = `${count} calls rejected with ${code} for ${(to - from).toFixed(0)} ms`
    if (code !== 'database_unavailable') return [what]
    if (to < warmAt) return []
    if (outages.some((outage) => from >= outage.from && to <= outage.backAt + recoveryMs)) return []

    const backAt = Math.max(0, ...outages.map(({ backAt }) => backAt))
    return [backAt > 0 ? `${what}, until ${(to - backAt).toFixed(0)} ms after the return` : what]
  })
}

/**
 * The milliseconds from the commit to the last acceptance in any process; 0 for keys that were not accepted after it.
 */
export function latencies(
  reports: readonly WorkerReport[],
  ends: readonly { index: number; end: End }[],
): number[] {
  return ends.map(({ index, end }) => {
    const last = reports.map(({ sightings }) => sightings[index]?.lastAcceptedAt ?? 0)
    return Math.max(0, Math.max(...last) - end.committedAt)
  })
}
