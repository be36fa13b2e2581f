import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import session from 'express-session'
import connectPgSimple from 'connect-pg-simple'

import { createAppApiKeys } from './api-keys'
import { createApp } from './app'
import { openDatabase, prepareDatabase } from './database'
import { startPostgres } from './embedded-postgres'
import { keptSecret } from './kept-secret'
import { seed } from './seed'

/** The embedded Postgres and our own secrets, from one start to the next. Git ignores it. */
const FOLDER = join(__dirname, '..', '.postgres')
const STOP_LIMIT_MS = 30_000
const REQUESTS_LIMIT_MS = 5_000

/** Something that whoever starts the app can put right; the message says what. */
class StartError extends Error {}

/** What is to be closed, the last one opened first. */
const closers: (() => unknown)[] = []

async function start(): Promise<void> {
  const port = readPort(process.env.PORT || '3000')
  const url = await findDatabase(process.env.DATABASE_URL)

  const database = openDatabase(url)
  closers.push(() => database.sequelize.close())
  const apiKeys = createAppApiKeys(database.sequelize, await findSecret('API_KEYS_SECRET'))
  closers.push(() => apiKeys.close())
  await orSayWhy(async () => {
    await prepareDatabase(database, seed)
    await apiKeys.migrate()
  })

  const store = openSessionStore(url)
  closers.push(() => store.close())
  const sessions = { store, secret: await findSecret('SESSION_SECRET') }
  const server = createServer(createApp({ database, apiKeys, sessions }))
  await listen(server, port)
  closers.push(() => closeServer(server))
  console.log(instructions(server))
}

function readPort(text: string): number {
  const port = Number(text)
  if (!/^\d+$/.test(text) || port > 65535) {
    throw new StartError(`PORT must be a number from 0 to 65535, not "${text}"`)
  }
  return port
}

/** Answers the address of the database. It holds a password: never print it. */
async function findDatabase(given: string | undefined): Promise<string> {
  if (given) {
    if (/^postgres(ql)?:\/\//.test(given) && URL.canParse(given)) return given
    throw new StartError('DATABASE_URL must be like postgres://user:password@host:5432/database')
  }

  const postgres = await startPostgres({ folder: FOLDER }).catch((error: Error) => {
    throw new StartError(error.message)
  })
  closers.push(() => postgres.stop())
  return postgres.url
}

/** Answers a secret from the environment, else one made at the first start and kept. */
async function findSecret(name: 'API_KEYS_SECRET' | 'SESSION_SECRET'): Promise<string> {
  const secret = process.env[name]
  if (!secret) return keptSecret(join(FOLDER, name.toLowerCase().replaceAll('_', '-')))
  if (secret.length < 32) throw new StartError(`${name} must have at least 32 characters`)
  return secret
}

async function orSayWhy(useDatabase: () => Promise<void>): Promise<void> {
  try {
    await useDatabase()
  } catch (error) {
    throw new StartError(`The database cannot be used: ${describe(error)}`)
  }
}

/** A connection that fails for several addresses at once has a message only in its parts. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.message) return error.message

  const { cause, parent = cause, errors } = error as { parent?: unknown } & Partial<AggregateError>
  return errors ? errors.map(describe).join(', ') : describe(parent)
}

function openSessionStore(url: string) {
  return new (connectPgSimple(session))({
    conObject: { connectionString: url, max: 5, connectionTimeoutMillis: 5000 },
    // Not the error itself: it leads to the connection and its settings.
    errorLog: (what: string, error?: unknown) => console.error(what, describe(error)),
  })
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port)
  await once(server, 'listening').catch((error: Error) => {
    throw new StartError(`${error.message}. Set PORT to another port`)
  })
}

/** Lets requests under way finish, and waits for no connection that is only kept alive. */
async function closeServer(server: Server): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve))
  const idle = setInterval(() => server.closeIdleConnections(), 50)
  const limit = setTimeout(() => server.closeAllConnections(), REQUESTS_LIMIT_MS)

  await closed
  clearInterval(idle)
  clearTimeout(limit)
}

function instructions(server: Server): string {
  // A TCP server's address is never a pipe's string.
  const { port } = server.address() as AddressInfo
  const url = `http://localhost:${port}`
  const json = "-H 'Content-Type: application/json'"

  return `
Listening on ${url}

Sign in as alice, and keep the session's cookie:

  curl -sS -c /tmp/agpt-cookies ${json} -d '{"username":"alice","password":"alice"}' ${url}/sign-in

Create an API key. Its plain text comes in this one answer:

  KEY=$(curl -sS -b /tmp/agpt-cookies ${json} -d '{"name":"My first key","permissions":["EXECUTE_GRAPH"]}' ${url}/api-keys | node -pe 'JSON.parse(fs.readFileSync(0)).plainTextKey')

Execute a graph with it:

  curl -sS -H "Authorization: Bearer $KEY" ${json} -d '{"inputs":{"name":"Ada"}}' ${url}/graphs/greeting/execute

GET ${url} lists the other routes. Ctrl-C stops the app.
`
}

async function stop(exitCode: number): Promise<never> {
  setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()

  for (const close of closers.toReversed()) {
    try {
      await close()
    } catch (error) {
      console.error(describe(error))
      exitCode = 1
    }
  }
  process.exit(exitCode)
}

let stoppingSince: number | undefined

function onSignal() {
  if (stoppingSince === undefined) {
    stoppingSince = performance.now()
    console.log('Stopping. Once more Ctrl-C to quit at once')
    void stop(0)
    return
  }

  // One Ctrl-C can arrive twice: from the terminal, and handed on by npm.
  if (performance.now() - stoppingSince > 200) process.exit(130)
}

process.on('SIGINT', onSignal)
process.on('SIGTERM', onSignal)

start().catch((error: unknown) => {
  // What closes during a start makes it fail, and that is what was asked for.
  if (stoppingSince !== undefined) return

  console.error(error instanceof StartError ? error.message : error)
  void stop(1)
})
