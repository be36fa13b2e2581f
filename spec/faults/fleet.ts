import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { within } from './waiting'
import type { Commands, Load, WorkerReport, WorkerSettings } from './worker'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'worker.ts')

const startLimitMs = 120_000
const callLimitMs = 60_000
const closeLimitMs = 3_000

const usualLoad: Load = { loops: 4, batch: 20, pauseMs: 10 }
export const heavyLoad: Load = { loops: 4, batch: 20, pauseMs: 2 }

/** A process of the library that takes commands. */
export interface Worker {
  pid: number
  call<Name extends keyof Commands>(
    name: Name,
    ...args: Parameters<Commands[Name]>
  ): ReturnType<Commands[Name]>
  signal(signal: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void
  /** Its exit code or signal; undefined while it lives. */
  ending(): string | undefined
  /** Kills it if it has not ended. */
  remove(): Promise<void>
}

/** Processes that do the same. */
export interface Fleet {
  workers: readonly Worker[]
  watch(keys: readonly string[], load?: Load): Promise<void>
  reports(): Promise<WorkerReport[]>
  /** Ends all processes in order, and kills the processes that do not end. */
  stop(): Promise<void>
}

export async function startWorker(settings: WorkerSettings): Promise<Worker> {
  const child = fork(program, {
    execArgv: ['--require', register],
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const worker = leadWorker(child)
  try {
    await within(startLimitMs, 'a process has started', worker.call('open', settings))
  } catch (error) {
    await worker.remove()
    throw error
  }
  return worker
}

function leadWorker(child: ChildProcess): Worker {
  const waiting = new Map<number, PromiseWithResolvers>()
  const exited = once(child, 'exit')
  let calls = 0

  child.on('message', ({ number, result, error }: Answer) => {
    const call = waiting.get(number)
    waiting.delete(number)
    if (error === undefined) call?.resolve(result)
    else call?.reject(new Error(`in process ${child.pid}: ${error}`))
  })
  child.once('exit', () => {
    for (const { reject } of waiting.values()) reject(new Error(`process ${child.pid} has ended`))
  })

  function call(name: string, ...args: unknown[]): Promise<unknown> {
    const number = ++calls
    const answer = new Promise<unknown>((resolve, reject) => {
      waiting.set(number, { resolve, reject })
    })
    child.send({ number, name, args }, (error) => {
      if (error) waiting.get(number)?.reject(error)
    })
    return within(callLimitMs, `process ${child.pid} answers to ${name}`, answer)
  }

  return {
    pid: child.pid ?? 0,
    // The answer to each command has the type of the command, because both ends share the types.
    call: call as Worker['call'],
    signal: (signal) => void child.kill(signal),
    ending() {
      if (child.exitCode === null && child.signalCode === null) return undefined
      return child.signalCode ?? `code ${child.exitCode}`
    },
    async remove() {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await exited
    },
  }
}

interface PromiseWithResolvers {
  resolve(result: unknown): void
  reject(error: Error): void
}

interface Answer {
  number: number
  result?: unknown
  error?: string
}

export async function startFleet({
  size = 2,
  ...settings
}: WorkerSettings & { size?: number }): Promise<Fleet> {
  const starts = await Promise.allSettled(Array.from({ length: size }, () => startWorker(settings)))
  const workers = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
  const failed = starts.find((start) => start.status === 'rejected')
  if (failed) {
    await Promise.all(workers.map((worker) => worker.remove()))
    throw failed.reason
  }

  return {
    workers,
    async watch(keys, load = usualLoad) {
      await Promise.all(workers.map((worker) => worker.call('watch', keys, load)))
    },
    reports() {
      return Promise.all(workers.map((worker) => worker.call('report')))
    },
    async stop() {
      await Promise.all(
        workers.map(async (worker) => {
          worker.signal('SIGCONT')
          if (worker.ending() === undefined) {
            // Other specs check that it ends in order.
            await within(closeLimitMs, 'a process closes', worker.call('close')).catch(() => {})
          }
          await worker.remove()
        }),
      )
    },
  }
}
