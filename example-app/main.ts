import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import { createAppApiKeys } from './api-keys'
import { createApp } from './app'
import { openDatabase, prepareDatabase } from './database'
import { startPostgres } from './embedded-postgres'
import { keptSecret } from './kept-secret'
import { startMetrics } from './metrics'
import { seed } from './seed'
import { openSessionStore } from './sign-in'

/** Holds the embedded Postgres and the secrets from one start to the next. Git ignores it. */
const FOLDER = join(__dirname, '..', '.postgres')
const REQUESTS_LIMIT_MS = 5_000
const STOP_LIMIT_MS = 30_000

/** Closes what `start` has opened, the last part first. */
const closers: (() => unknown)[] = []
let isStopping = false

async function start(): Promise<void> {
  const url = await findDatabase(process.env.DATABASE_URL)
  const database = openDatabase(url)
  closers.push(() => database.sequelize.close())
  const apiKeys = createAppApiKeys(database, await findSecret('API_KEYS_SECRET'))
  closers.push(() => apiKeys.close())
  await prepareDatabase(database, seed)
  await apiKeys.migrate()

  const store = openSessionStore(url)
  closers.push(() => store.close())
  const sessions = { store, secret: await findSecret('SESSION_SECRET') }
  const metrics = startMetrics()
  closers.push(apiKeys.instrument())
  const server = createServer(createApp({ database, apiKeys, sessions, metrics }))
  await listen(server, Number(process.env.PORT || 3000)).catch((error: Error) => {
    throw new Error(`${error.message}. Set PORT to another port`)
  })
  closers.push(() => closeServer(server))
  console.log(instructions(server))
}

/** Returns the address of the database. Do not print it, because it holds a password. */
async function findDatabase(given: string | undefined): Promise<string> {
  if (given) {
    if (/^postgres(ql)?:\/\//.test(given) && URL.canParse(given)) return given
    throw new Error('DATABASE_URL must be like postgres://user:password@host:5432/database')
  }

  const postgres = await startPostgres({ folder: FOLDER }).catch((error: Error) => {
    throw new Error(`${error.message}\nOr set DATABASE_URL to a Postgres of your own.`)
  })
  closers.push(() => postgres.stop())
  return postgres.url
}

/** Returns a secret from the environment. Without it, returns the secret that the first start has made. */
async function findSecret(name: 'API_KEYS_SECRET' | 'SESSION_SECRET'): Promise<string> {
  return process.env[name] || keptSecret(join(FOLDER, name.toLowerCase().replaceAll('_', '-')))
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port)
  await once(server, 'listening')
}

/** Lets requests under way finish. */
async function closeServer(server: Server): Promise<void> {
  const limit = setTimeout(() => server.closeAllConnections(), REQUESTS_LIMIT_MS)
  server.close()
  await once(server, 'close')
  clearTimeout(limit)
}

function instructions(server: Server): string {
  // The address of a TCP server is never the name of a pipe.
  const { port } = server.address() as AddressInfo
  const url = `http://localhost:${port}`
  const json = "-H 'Content-Type: application/json'"

  return `
Listening on ${url}

Open ${url}/sign-in in a browser: sign in as alice, with the password alice, and create a key.

Or do so by curl. Sign in as alice, and keep the session's cookie:

  curl -sS -c /tmp/agpt-cookies ${json} -d '{"username":"alice","password":"alice"}' ${url}/sign-in

Create an API key. Its plain text comes in this one answer:

  KEY=$(curl -sS -b /tmp/agpt-cookies ${json} -d '{"name":"My first key","permissions":["EXECUTE_GRAPH"]}' ${url}/api-keys | node -pe 'JSON.parse(fs.readFileSync(0)).plainTextKey')

Execute a graph with it:

  curl -sS -H "Authorization: Bearer $KEY" ${json} -d '{"inputs":{"name":"Ada"}}' ${url}/graphs/greeting/execute

GET ${url} lists the other routes. Ctrl-C stops the app.
`
}

async function stop(exitCode: number): Promise<never> {
  isStopping = true
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

/** Returns the message only, because errors of a database lead to its address and password. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.message) return error.message

  // An AggregateError of several failed connections has a code and no message.
  const { code, parent } = error as NodeJS.ErrnoException & { parent?: unknown }
  return code ?? describe(parent)
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    // One Ctrl-C can arrive twice: from the terminal, and passed on by npm.
    if (isStopping) return

    console.log('Stopping')
    void stop(0)
  })
}

start().catch((error: unknown) => {
  // A signal during the start closes what the start still needs.
  if (isStopping) return

  console.error(`The app cannot start: ${describe(error)}`)
  void stop(1)
})
