import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

import { root } from './package'
import { until } from './until'
import { useWorld } from './world'

/** The result of a command. */
export interface Ran {
  code: number | null
  stdout: string
  stderr: string
}

/** A command in a terminal. */
export interface Typed {
  /** Resolves once the terminal shows a text. */
  shows(text: string): Promise<void>
  type(text: string): void
  /** Resolves with the exit code and all that the terminal has shown, without colours. */
  ended(): Promise<{ code: number | null; shown: string; raw: string }>
}

/** The command of the built package. */
export async function findBin(): Promise<string> {
  const { bin } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    bin: Record<string, string>
  }
  return join(root, String(bin['express-api-keys']))
}

const ofPackage = JSON.stringify(join(root, 'dist', 'lib'))
const ofSequelize = JSON.stringify(require.resolve('sequelize', { paths: [root] }))

/** A module of CommonJS that exports an instance with these options, as code, and further exports. */
export function instanceModule(options = '', exported = 'module.exports = apiKeys'): string {
  return `
    const { createApiKeys, sources } = require(${ofPackage})
    const { Sequelize } = require(${ofSequelize})
    const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })
    const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK']
    const apiKeys = createApiKeys({ sequelize, keyPrefix: 'agpt', permissions, ${options} })
    ${exported}`
}

interface CliOptions {
  /** Options of the instance, as code. */
  options?: string
  template?: 'migrated' | 'empty'
}

/** The standard input of a command, and further variables of its environment. */
interface Input {
  input?: string
  env?: NodeJS.ProcessEnv
}

/** Gives a spec file a database, and a folder with a module for the command line. */
export function useCli({ options = '', template = 'migrated' }: CliOptions = {}) {
  const world = useWorld({ template })
  let folder = ''
  let bin = ''
  const started: (() => void)[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'express-api-keys-cli-'))
    bin = await findBin()
    await writeFile(join(folder, 'api-keys.js'), instanceModule(options))
  })

  afterAll(async () => {
    for (const kill of started) kill()
    await rm(folder, { recursive: true, force: true })
  })

  function start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const child = spawn(program, args, {
      cwd: folder,
      env: { ...process.env, DATABASE_URL: world.database.url, FORCE_COLOR: undefined, ...env },
    })
    const output = { stdout: '', stderr: '' }
    child.stdout.on('data', (chunk: Buffer) => (output.stdout += String(chunk)))
    child.stderr.on('data', (chunk: Buffer) => (output.stderr += String(chunk)))
    // The command may end before it has read its input.
    child.stdin.on('error', () => {})
    const closed = once(child, 'close').then(([code]) => code as number | null)
    started.push(() => child.kill('SIGKILL'))
    return { child, output, closed }
  }

  return {
    ...world,
    /** Writes a file into the folder in which commands run, and returns its path. */
    async write(name: string, text: string): Promise<string> {
      await writeFile(join(folder, name), text)
      return join(folder, name)
    },
    path: (name: string) => join(folder, name),

    /** Runs a command in pipes. */
    async cli(args: readonly string[], { input = '', env = {} }: Input = {}): Promise<Ran> {
      const { child, output, closed } = start(process.execPath, [bin, ...args], env)
      child.stdin.end(input)
      return { code: await closed, ...output }
    },

    /**
     * Runs commands one after the other in one process, each with an instance of its own. Returns the exit code and the message of each. A
     * process for each command would take a second of CPU.
     */
    async together(
      commands: readonly (readonly string[])[],
      { input = '', env = {} }: Input = {},
    ): Promise<{ command: string; exitCode: number; message: string }[]> {
      await writeFile(
        join(folder, 'together.js'),
        `module.exports = () => {${instanceModule(options, 'return apiKeys')}}`,
      )
      const lines = await Promise.all(
        commands.map(async (args, place) => {
          const config = join(folder, `together-${place}.js`)
          await writeFile(config, `module.exports = require('./together.js')()`)
          return [...args, '--config', config]
        }),
      )
      const script = `
        const { createProgram } = require(${JSON.stringify(join(root, 'dist', 'lib', 'cli', 'program.js'))})
        const { failureOf } = require(${JSON.stringify(join(root, 'dist', 'lib', 'cli', 'exit-codes.js'))})
        const alive = setInterval(() => {}, 1000)
        const results = []
        const write = process.stdout.write.bind(process.stdout)
        process.stdout.write = (text, ...rest) => { const done = rest.at(-1); if (typeof done === 'function') done(); return true }
        ;(async () => {
          for (const args of ${JSON.stringify(lines)}) {
            process.exitCode = 0
            const failure = await createProgram('0').parseAsync(args, { from: 'user' }).then(() => null, failureOf)
            const exitCode = failure?.exitCode ?? process.exitCode
            results.push({ command: args[0], exitCode, message: failure?.message ?? '' })
          }
          process.exitCode = 0
          clearInterval(alive)
          write(JSON.stringify(results), () => process.exit())
        })()`
      const { child, output, closed } = start(process.execPath, ['-e', script], env)
      child.stdin.end(input)
      await closed
      if (output.stdout === '') throw new Error(output.stderr)
      return JSON.parse(output.stdout) as { command: string; exitCode: number; message: string }[]
    },

    /** Starts a command in pipes. It runs on until it ends, or is sent a signal. */
    startCli(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
      // Sequelize names its sessions by it.
      const name = `cli ${randomUUID()}`
      const own = { PGAPPNAME: name, ...env }
      const { child, output, closed } = start(process.execPath, [bin, ...args], own)
      child.stdin.end()
      return {
        kill: (signal: NodeJS.Signals) => child.kill(signal),
        output,
        closed,
        /** Resolves once a session of the command waits for a lock. Sessions of other processes may wait as well. */
        isBlocked: () =>
          until(async () => {
            const waiting = await world.rows(
              `SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'`,
              [name],
            )
            return waiting.length > 0
          }),
      }
    },

    /** Runs a line of a shell in which $CLI is the command. */
    async shell(line: string): Promise<Ran> {
      const { child, output, closed } = start('bash', ['-c', line], {
        CLI: `${process.execPath} ${bin}`,
      })
      child.stdin.end()
      return { code: await closed, ...output }
    },

    /** Starts a command in a pseudo-terminal, by `script` of util-linux. */
    terminal(args: readonly string[], env: NodeJS.ProcessEnv = {}): Typed {
      const line = [process.execPath, bin, ...args].map(quote).join(' ')
      const { child, output, closed } = start('script', ['-qefc', line, '/dev/null'], {
        TERM: 'xterm-256color',
        NO_COLOR: undefined,
        // Node takes every terminal of a CI that it does not know for one without colours.
        CI: undefined,
        ...env,
      })
      return {
        shows: (text) =>
          until(() => {
            if (output.stdout.includes(text)) return true
            if (child.exitCode !== null) throw new Error(`it ended: ${output.stdout}`)
            return false
          }),
        type: (text) => child.stdin.write(text),
        async ended() {
          const code = await closed
          const raw = output.stdout
          return { code, raw, shown: stripVTControlCharacters(raw).replaceAll('\r\n', '\n') }
        },
      }
    },
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/** Reads lines of JSON. */
export function jsonLines<Value = Record<string, unknown>>(text: string): Value[] {
  return text
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Value)
}
