import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from './database'
import { createConsumer, packedPackage, type Consumer } from './package'

const adopters = join(__dirname, '..', 'ground', 'adopters')
/** True if all adopters run, also those that take too long for each change: `GROUND=all npm run test:ground`. */
export const inFull = process.env.GROUND === 'all'

const permissions = ['READ_GRAPH', 'EXECUTE_GRAPH'] as const

/**
 * A project of an adopter: a folder of `spec/ground/adopters`, in which the packed package and the pinned packages are
 * installed.
 */
export interface Adopter extends Consumer {
  /** The project's database. */
  database: Database
  /** Runs a program of the project on its database until it listens. */
  start(program: string, ...args: string[]): Promise<RunningProgram>
  /** Creates a key in the project's database from this process, and returns it in plain text. */
  createKey(userId?: string, wishes?: { allowedIps?: string[] }): Promise<string>
}

export interface RunningProgram {
  url: string
  /** Stops the program, and returns its whole output. */
  stop(): Promise<string>
}

/**
 * Copies the files of an adopter's folder and of the folders above it to a place without other packages, and lets npm
 * install their packages.
 */
export async function installAdopter(name: string): Promise<Adopter> {
  const folders = name.split('/').map((_, index, names) => names.slice(0, index + 1).join('/'))
  const files = ['', ...folders].map((folder) => filesOf(join(adopters, folder)))
  const consumer = await createConsumer({ files: Object.assign({}, ...files) })
  const quiet = ['--no-audit', '--no-fund', '--loglevel', 'error', '--prefer-offline']
  await consumer.run('npm', 'install', ...quiet, packedPackage())

  const database = await createDatabase('empty')
  const apiKeys = createApiKeys({ sequelize: database.connect(), keyPrefix: 'acme', permissions })
  database.closeFirst(apiKeys)
  await apiKeys.migrate()

  return {
    ...consumer,
    database,
    run: (program, ...args) =>
      consumer.run('env', `DATABASE_URL=${database.url}`, program, ...args),
    start: (program, ...args) => start(consumer, [program, ...args], database.url),
    async createKey(userId = 'alice', wishes = {}) {
      const key = { userId, name: 'Canary', permissions, ...wishes }
      const { plainTextKey } = await apiKeys.create(key)
      return plainTextKey
    },
    async remove() {
      await database.drop()
      await consumer.remove()
    },
  }
}

function filesOf(folder: string): Record<string, string> {
  const files = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile())
  return Object.fromEntries(
    files.map(({ name }) => [name, readFileSync(join(folder, name), 'utf8')]),
  )
}

async function start(
  consumer: Consumer,
  args: string[],
  databaseUrl: string,
): Promise<RunningProgram> {
  const child = consumer.startNode(args, databaseUrl)
  let printed = ''
  child.stderr.on('data', (chunk: Buffer) => {
    printed += String(chunk)
  })
  const exited = once(child, 'close')

  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      printed += `${line}\n`
      const [, port] = /^listening on (\d+)$/.exec(line) ?? []
      if (port !== undefined) resolve(`http://127.0.0.1:${port}`)
    })
    exited.then(
      () => reject(new Error(`${args.join(' ')} ended before it listened: ${printed}`)),
      reject,
    )
  })

  return {
    url,
    async stop() {
      child.kill()
      await exited
      return printed
    },
  }
}
