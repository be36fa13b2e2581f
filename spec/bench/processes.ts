import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The processors of each part, in the notation of `taskset`. */
export interface Pinning {
  /** The processor that the measured process has to itself. */
  measured: string
  /** The processors of the load, of Postgres and of this process. */
  others: string
}

/** A process of the bench that answers one question at a time. */
export interface Helper<Question, Answer> {
  ask(question: Question): Promise<Answer>
  stop(): Promise<void>
}

interface HelperOptions {
  /** A file beside this one. */
  file: string
  argument?: string
  env?: Record<string, string>
  nodeOptions?: string[]
  cpus?: string | undefined
}

type Reply<Answer> = { answer: Answer } | { failure: string }

/**
 * Gives the measured process one processor, and moves this process and its future children to the remaining processors.
 * Returns `undefined` if that is not possible. Then all processes share all processors.
 */
export function pinProcesses(): Pinning | undefined {
  try {
    const [measured, ...others] = allowedCpus()
    if (measured === undefined || others.length === 0) return undefined

    const pinning = { measured: String(measured), others: others.join(',') }
    execFileSync('taskset', ['-a', '-c', '-p', pinning.others, String(process.pid)], {
      stdio: 'ignore',
    })
    return pinning
  } catch {
    // Not Linux, or no taskset.
    return undefined
  }
}

function allowedCpus(): number[] {
  const status = readFileSync('/proc/self/status', 'utf8')
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? ''

  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
}

/** Starts a file of the bench as a process of its own and waits until it is ready. */
export async function startHelper<Question, Answer>(
  options: HelperOptions,
): Promise<Helper<Question, Answer>> {
  const { file, argument, env = {}, nodeOptions = [], cpus } = options
  const node = [
    process.execPath,
    ...nodeOptions,
    '--require',
    join(__dirname, '../support/register.js'),
    join(__dirname, file),
    ...(argument === undefined ? [] : [argument]),
  ]
  const [command = '', ...args] = cpus === undefined ? node : ['taskset', '-c', cpus, ...node]
  const child = spawn(command, args, {
    env: { ...process.env, NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  await nextAnswer(child, options)

  return {
    async ask(question) {
      const answer = nextAnswer<Answer>(child, options)
      child.send(question as object)
      return answer
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return

      const exited = once(child, 'exit')
      child.disconnect()
      await exited
    },
  }
}

async function nextAnswer<Answer>(child: ChildProcess, { file, argument = '' }: HelperOptions) {
  return new Promise<Answer>((resolve, reject) => {
    function onMessage(message: unknown) {
      child.off('exit', onExit)
      const reply = message as Reply<Answer>
      if ('failure' in reply) reject(new Error(`${file} ${argument}: ${reply.failure}`))
      else resolve(reply.answer)
    }
    function onExit(code: number | null, signal: string | null) {
      child.off('message', onMessage)
      reject(new Error(`${file} ${argument} ended with ${signal ?? `code ${code}`}`))
    }
    child.once('message', onMessage)
    child.once('exit', onExit)
  })
}

/**
 * The other side of `startHelper`: reports that the process is ready, and answers. It ends with its parent in any case.
 */
export function answerQuestions(answer: (question: never) => unknown) {
  process.on('disconnect', () => process.exit())

  async function reply(question: unknown): Promise<Reply<unknown>> {
    try {
      // Both sides are files of the bench, which use the same types.
      return { answer: await answer(question as never) }
    } catch (error) {
      return { failure: error instanceof Error ? String(error.stack) : String(error) }
    }
  }
  process.on('message', (question) => {
    void reply(question).then((message) => process.send?.(message))
  })
  process.send?.({ answer: null })
}
