import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'

import { openOurs, type OurOptions } from './ours'
import { answerQuestions } from './processes'
import { quantile } from './statistics'

/*
 * The library alone, in a process of its own, without HTTP. Between two batches the event loop runs, like in a server,
 * so that polls are answered and leases renewed.
 */

export interface InProcessQuestion {
  kind: 'guard' | 'nothing' | 'verify' | 'manyKeys' | 'together' | 'coldLookups'
  ours: OurOptions
  tokens: TokenRange
  /** @default 'READ_GRAPH' */
  demand?: 'READ_GRAPH' | 'EXECUTE_GRAPH'
  /** The number of rounds of the timed kinds. */
  rounds: number
}

/** Part of a file of tokens, all of one length. */
export interface TokenRange {
  file: string
  from: number
  count: number
  /** @default 1 */
  times?: number
}

export interface InProcessAnswer {
  /** Nanoseconds per call, once per round. */
  nanoseconds: number[]
  p99Microseconds?: number
  memoryMiB?: number
  fillSeconds?: number
}

type Ours = ReturnType<typeof openOurs>

const batchSize = 1000

const opened = new Map<string, Ours>()

answerQuestions(
  async ({
    kind,
    ours,
    tokens,
    demand = 'READ_GRAPH',
    rounds,
  }: InProcessQuestion): Promise<InProcessAnswer> => {
    const keys = readTokens(tokens)
    const instance = JSON.stringify(ours)
    const apiKeys = opened.get(instance) ?? openOurs(ours)
    opened.set(instance, apiKeys)

    switch (kind) {
      case 'guard':
        return {
          nanoseconds: await inRounds(rounds, timeGuard(apiKeys.requirePermission(demand), keys)),
        }
      case 'nothing':
        return {
          nanoseconds: await inRounds(
            rounds,
            timeGuard((_req, _res, next) => next(), keys),
          ),
        }
      case 'verify':
        await verifyAll(apiKeys, keys)
        return { nanoseconds: await inRounds(rounds, timeVerify(apiKeys, keys)) }
      case 'manyKeys':
        return measureManyKeys(apiKeys, keys, rounds)
      case 'together':
        await Promise.all(keys.map((key) => verifyValid(apiKeys, key)))
        return { nanoseconds: [] }
      case 'coldLookups':
        return { nanoseconds: [await timeColdLookups(apiKeys, keys)] }
    }
  },
)

/** Makes flat strings, like the strings of a header, and not parts of one long text. */
function readTokens({ file, from, count, times = 1 }: TokenRange): string[] {
  const bytes = readFileSync(file)
  const length = bytes.indexOf('\n')

  return Array.from({ length: count * times }, (_, index) => {
    const start = (from + (index % count)) * (length + 1)
    return bytes.toString('latin1', start, start + length)
  })
}

/** Returns nanoseconds per call. */
type Measure = () => Promise<number>

type Guard = (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => void

/** Measures the calls alone. A new object in place of the request is made before, for each call. */
function timeGuard(guard: Guard, keys: readonly string[]): Measure {
  const calls = 100_000
  const response = {} as ServerResponse

  async function callBatch(requests: readonly IncomingMessage[]): Promise<number> {
    let passed = 0
    let refusal: unknown
    const begunAt = performance.now()

    await new Promise<void>((resolve) => {
      function next(error?: unknown) {
        refusal ??= error
        passed += 1
        if (passed === requests.length) resolve()
      }
      for (const request of requests) guard(request, response, next)
    })
    const milliseconds = performance.now() - begunAt
    if (refusal) throw new Error('a good key was refused', { cause: refusal })
    return milliseconds
  }

  return async function callAll() {
    let milliseconds = 0
    for (let call = 0; call < calls; call += batchSize) {
      const requests = Array.from({ length: batchSize }, (_, index) =>
        makeRequest(keys[(call + index) % keys.length] ?? ''),
      )
      milliseconds += await callBatch(requests)
      await yieldToEventLoop()
    }
    return (milliseconds * 1e6) / calls
  }
}

/** The parts of a request that a guard reads. */
function makeRequest(key: string): IncomingMessage {
  const authorization = `Bearer ${key}`
  return {
    method: 'GET',
    url: '/graphs/7',
    headers: { host: '127.0.0.1', accept: 'application/json', authorization },
    rawHeaders: ['Host', '127.0.0.1', 'Accept', 'application/json', 'Authorization', authorization],
  } as IncomingMessage
}

function timeVerify(apiKeys: Ours, keys: readonly string[]): Measure {
  const calls = Math.max(200_000, keys.length)

  return async function callAll() {
    const begunAt = performance.now()
    for (let call = 0; call < calls; call += batchSize) {
      for (let index = call; index < call + batchSize; index++) {
        const verdict = await apiKeys.verify(keys[index % keys.length] ?? '')
        if (!verdict.valid) throw new Error(`a good key was ${verdict.code}`)
      }
      await yieldToEventLoop()
    }
    return ((performance.now() - begunAt) * 1e6) / calls
  }
}

async function inRounds(rounds: number, measure: Measure): Promise<number[]> {
  // The first run warms up: V8 compiles, and the cache fills.
  await measure()

  const results: number[] = []
  for (let round = 0; round < rounds; round++) results.push(await measure())
  return results
}

async function measureManyKeys(
  apiKeys: Ours,
  keys: readonly string[],
  rounds: number,
): Promise<InProcessAnswer> {
  const before = settledMemory()
  const begunAt = performance.now()
  await verifyAll(apiKeys, keys)
  const fillSeconds = (performance.now() - begunAt) / 1000
  await apiKeys.flush()
  const memoryMiB = (settledMemory() - before) / 2 ** 20

  const nanoseconds = await inRounds(rounds, timeVerify(apiKeys, keys))
  return { nanoseconds, p99Microseconds: await p99OfVerify(apiKeys, keys), memoryMiB, fillSeconds }
}

function settledMemory(): number {
  // Given by the flag --expose-gc, with which this process is started.
  for (let turn = 0; turn < 3; turn++) globalThis.gc?.()
  return process.memoryUsage.rss()
}

async function p99OfVerify(apiKeys: Ours, keys: readonly string[]): Promise<number> {
  const times = new Float64Array(keys.length)
  for (const [index, key] of keys.entries()) {
    if (index % batchSize === 0) await yieldToEventLoop()
    const begunAt = performance.now()
    await apiKeys.verify(key)
    times[index] = performance.now() - begunAt
  }
  return quantile(times.toSorted(), 0.99) * 1000
}

async function verifyAll(apiKeys: Ours, keys: readonly string[]) {
  for (let at = 0; at < keys.length; at += batchSize) {
    await Promise.all(keys.slice(at, at + batchSize).map((key) => verifyValid(apiKeys, key)))
  }
}

/** The nanoseconds of each call, one after the other. */
async function timeColdLookups(apiKeys: Ours, keys: readonly string[]): Promise<number> {
  const begunAt = performance.now()
  for (const key of keys) await verifyValid(apiKeys, key)
  return ((performance.now() - begunAt) * 1e6) / keys.length
}

async function verifyValid(apiKeys: Ours, key: string) {
  const verdict = await apiKeys.verify(key)
  if (!verdict.valid) throw new Error(`a good key was ${verdict.code}`)
}
