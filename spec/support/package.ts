import { execFile, spawn, type ChildProcessByStdio } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'

export const root = join(__dirname, '..', '..')
const run = promisify(execFile)

/** A project that uses the package in a folder of its own. */
export interface Consumer {
  folder: string
  /** Writes a file into the folder. */
  write(name: string, text: string): Promise<void>
  /** Runs a program in the folder. If it fails, rejects with its output. */
  run(program: string, ...args: string[]): Promise<string>
  /** Starts Node in the folder, with an address in DATABASE_URL. */
  startNode(args: readonly string[], databaseUrl: string): NodeProcess
  /** Removes the folder, and kills the processes that were started and still run. */
  remove(): Promise<void>
}

type NodeProcess = ChildProcessByStdio<null, Readable, Readable>

interface ConsumerOptions {
  packageJson?: object
  files: Record<string, string>
}

export async function createConsumer({
  packageJson = {},
  files,
}: ConsumerOptions): Promise<Consumer> {
  const folder = await mkdtemp(join(tmpdir(), 'express-api-keys-consumer-'))
  const all = { 'package.json': JSON.stringify({ private: true, ...packageJson }), ...files }
  const write = (name: string, text: string) => writeFile(join(folder, name), text)
  for (const [name, text] of Object.entries(all)) await write(name, text)
  const started: NodeProcess[] = []

  return {
    folder,
    write,
    async run(program, ...args) {
      try {
        const { stdout } = await run(program, args, { cwd: folder, env: cleanEnvironment() })
        return stdout
      } catch (error) {
        const { message, stdout, stderr } = error as Error & { stdout: string; stderr: string }
        throw new Error([message, stdout, stderr].join('\n'), { cause: error })
      }
    },
    startNode(args, databaseUrl) {
      const child = spawn(process.execPath, args, {
        cwd: folder,
        env: { ...process.env, DATABASE_URL: databaseUrl },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      started.push(child)
      return child
    },
    async remove() {
      for (const child of started) child.kill('SIGKILL')
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Packs the built package and returns the path of the tarball. */
export async function pack(into: string): Promise<string> {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', into]
  const { stdout } = await run('npm', args, { cwd: root, env: cleanEnvironment() })
  const [packed] = JSON.parse(stdout) as { filename: string }[]
  if (!packed) throw new Error(`npm pack said: ${stdout}`)

  return join(into, packed.filename)
}

/** Returns the path of the tarball that was packed for all specs of this run (pack.ts). */
export function packedPackage(): string {
  const { PACKED_PACKAGE: tarball } = process.env
  if (!tarball)
    throw new Error(
      'PACKED_PACKAGE is not set: run the specs with Jest, by the name of their project',
    )
  return tarball
}

/** Unpacks the package into a consumer, like an installer. */
export async function unpack(tarball: string, { folder }: Consumer) {
  const target = join(folder, 'node_modules', 'express-api-keys')
  await mkdir(target, { recursive: true })
  await run('tar', [
    '--extract',
    '--file',
    tarball,
    '--strip-components',
    '1',
    '--directory',
    target,
  ])
}

/** Gives a consumer a package that is installed here, under any name. A copy finds its own dependencies. */
export async function provide(
  { folder }: Consumer,
  name: string,
  { from = name, copy = false }: { from?: string; copy?: boolean } = {},
) {
  const source = join(root, 'node_modules', from)
  const target = join(folder, 'node_modules', name)
  await mkdir(dirname(target), { recursive: true })
  await (copy ? cp(source, target, { recursive: true }) : symlink(source, target))
}

/** npm passes its own settings, for example the prefix, to the programs that it runs. */
function cleanEnvironment() {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(?!config_(registry|cache))/i.test(name)),
  )
}
