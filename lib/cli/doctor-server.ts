import { abandon, createOpenClient, poolOf, type Client } from '../database/open-client'
import { isFedSql } from '../database/query'
import { describe } from '../verification/health'
import type { Check, Finding, Patient } from './doctor'

/** The checks of the server, and of the way to it. */
export const checkServer: readonly (readonly [name: string, check: Check])[] = [
  ['connection', checkConnection],
  ['primary', checkPrimary],
  ['settings of the role', checkRole],
  ['clock', checkClock],
  ['connections', checkConnections],
  ['standbys', checkStandbys],
  ['pooler', checkPooler],
]

const leastVersion = 140_000

async function checkConnection({ run }: Patient): Promise<Finding[]> {
  const check = 'connection'
  try {
    const [row] = await run(
      `SELECT current_setting('server_version_num') AS number,
              format('PostgreSQL %s, database %s, as %s', current_setting('server_version'), current_database(), current_user) AS finding`,
    )
    const finding = String(row?.finding)
    if (Number(row?.number) >= leastVersion) return [{ check, state: 'ok', finding }]
    return [{ check, state: 'fault', finding, remedy: 'Use PostgreSQL 14 or newer.' }]
  } catch (error) {
    const remedy =
      'Correct the address, the user or the password of your Sequelize, or start the server.'
    return [{ check, state: 'fault', finding: describe(error), remedy }]
  }
}

async function checkPrimary({ run, parts }: Patient): Promise<Finding[]> {
  const check = 'primary'
  const [row] = await run('SELECT pg_is_in_recovery()::text AS standby')
  if (row?.standby === 'true') {
    const remedy =
      'Have your Sequelize connect to the primary. A standby lags behind, so that every key gets 503.'
    return [{ check, state: 'fault', finding: 'the server is a standby', remedy }]
  }
  const [there] = await run('SELECT to_regclass($1)::text AS keys', [parts.tables.keys])
  const isThere = there?.keys !== null && there?.keys !== undefined
  const [fed] = isThere ? await run(`SELECT (${isFedSql(parts.tables.keys)})::text AS fed`) : []
  if (fed?.fed === 'true') {
    const remedy =
      'Drop the subscription at the switch, then run migrate: see "Moving and restoring a database".'
    const finding = 'logical replication feeds the table of keys'
    return [{ check, state: 'fault', finding, remedy }]
  }
  return [{ check, state: 'ok', finding: 'the server is a primary' }]
}

const leastTimeoutMs = 1_000

async function checkRole({ run }: Patient): Promise<Finding[]> {
  const check = 'settings of the role'
  const [row] = await run(
    `SELECT current_user::text AS role, current_setting('default_transaction_read_only') AS readonly,
            (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'statement_timeout') AS timeout`,
  )
  const { role, readonly, timeout } = row ?? {}
  const findings: Finding[] = []
  if (readonly === 'on') {
    const remedy = `Switch it off: ALTER ROLE ${String(role)} SET default_transaction_read_only = off`
    findings.push({ check, state: 'fault', finding: 'default_transaction_read_only is on', remedy })
  }
  const timeoutMs = Number(timeout)
  if (timeoutMs > 0 && timeoutMs < leastTimeoutMs) {
    const remedy =
      'Raise it for the role of the app. Postgres cancels statements that take longer, and callers get 503.'
    findings.push({
      check,
      state: 'advice',
      finding: `statement_timeout is ${timeoutMs} ms`,
      remedy,
    })
  }
  return findings.length > 0 ? findings : [{ check, state: 'ok', finding: 'nothing is in the way' }]
}

const noticeableMs = 1_000
const harmfulMs = 60_000

async function checkClock({ run }: Patient): Promise<Finding[]> {
  const check = 'clock'
  const before = Date.now()
  const [row] = await run('SELECT (extract(epoch FROM clock_timestamp()) * 1000)::text AS now')
  const after = Date.now()
  const aheadMs = Math.round(Number(row?.now) - (before + after) / 2)
  // The answer may have been on its way for a while.
  const offsetMs = Math.max(Math.abs(aheadMs) - (after - before), 0)
  const finding = `the clock of the database is ${Math.abs(aheadMs)} ms ${aheadMs < 0 ? 'behind' : 'ahead'}`
  if (offsetMs < noticeableMs) return [{ check, state: 'ok', finding }]
  const remedy = 'Set both clocks by NTP. Keys expire by the clock of each process.'
  return [{ check, state: offsetMs < harmfulMs ? 'advice' : 'fault', finding, remedy }]
}

/** How many connections a process of the library has beside the pool of the app. */
const ownConnections = 4

async function checkConnections({ run, parts }: Patient): Promise<Finding[]> {
  const check = 'connections'
  const [row] = await run(
    `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
              - (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')::int AS free,
            (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS "limit"`,
  )
  const free = Number(row?.free)
  const limit = Number(row?.limit)
  const needed = poolOf(parts.appSequelize).max + ownConnections
  const finding = `${free} are free${limit >= 0 ? `, ${limit} for this role` : ''}; a process takes up to ${needed}`
  if (free >= needed && (limit < 0 || limit >= needed)) return [{ check, state: 'ok', finding }]
  const remedy =
    'Allow more connections (max_connections), or make the pools of your processes smaller.'
  return [{ check, state: 'advice', finding, remedy }]
}

/** How long a COMMIT may take that waits for a standby. */
const longWaitSeconds = 5

async function checkStandbys({ run }: Patient): Promise<Finding[]> {
  const check = 'standbys'
  const [row] = await run(
    `SELECT current_setting('synchronous_standby_names') AS names,
            (SELECT count(*) FROM pg_catalog.pg_stat_activity
              WHERE wait_event = 'SyncRep' AND clock_timestamp() - query_start > interval '${longWaitSeconds} seconds')::text AS waiting`,
  )
  const names = String(row?.names)
  if (names === '') return [{ check, state: 'ok', finding: 'no COMMIT waits for a standby' }]
  if (row?.waiting === '0') {
    const finding = `each COMMIT waits for ${names}, and none does for long`
    return [{ check, state: 'ok', finding }]
  }
  const finding = `sessions that wait for ${names}, which may be away: ${String(row?.waiting)}`
  const remedy =
    'Bring the standby back, or give it up in synchronous_standby_names. Until then, no change of a key is made, no revocation either: see "While a synchronous standby is away" in lib/freshness/README.md.'
  return [{ check, state: 'fault', finding, remedy }]
}

/** True once two clients share a connection of the server, as behind a pooler in transaction mode. */
async function isPooled(one: Client, other: Client): Promise<boolean> {
  const [first, second] = [await backendOf(one), await backendOf(other, 'BEGIN')]
  const again = await backendOf(one)
  await other.query('ROLLBACK')
  return first === second || first !== again
}

async function backendOf(client: Client, begin = ''): Promise<string> {
  if (begin !== '') await client.query(begin)
  const { rows } = (await client.query('SELECT pg_backend_pid()::text AS pid')) as {
    rows: { pid: string }[]
  }
  return String(rows[0]?.pid)
}

async function checkPooler({ parts }: Patient): Promise<Finding[]> {
  const check = 'pooler'
  const open = createOpenClient(parts.appSequelize)
  const { signal } = new AbortController()
  const clients: Client[] = []
  try {
    clients.push(await open(signal), await open(signal))
    const [one, other] = clients
    if (!one || !other || !(await isPooled(one, other))) {
      return [{ check, state: 'ok', finding: 'each client has a connection of its own' }]
    }
  } finally {
    for (const client of clients) abandon(client)
  }

  const finding = 'a pooler in transaction mode stands before the server'
  const remedies = [
    parts.listen === true &&
      'Set the option listen to the address of the server itself, or to false: no notification arrives through the pooler.',
    parts.preparedStatements &&
      'Set preparedStatements: false, unless the pooler keeps prepared statements (PgBouncer from 1.21 with max_prepared_statements).',
  ].filter((remedy) => remedy !== false)
  if (remedies.length === 0)
    return [{ check, state: 'ok', finding: `${finding}, as the options say` }]
  return [{ check, state: 'advice', finding, remedy: remedies.join(' ') }]
}
