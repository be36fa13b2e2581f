import { createHash, createHmac, randomBytes } from 'node:crypto'
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'

import { createApiKeys, digests, sources, type ImportSource } from 'express-api-keys'
import { Client } from 'pg'
import { Sequelize } from 'sequelize'

import type { BenchContext } from './bench'
import { keyPrefix } from './keys'
import { median } from './statistics'
import { expectMedian, formatCount, formatTable, type Target } from './tables'

/** A system whose keys are verified, a key of it, and the row of that key. */
interface Kind {
  source: ImportSource
  key: string
  stored: string
  locator?: string
}

/** The most that verifying a cached key of any system may take, against a key of ours. */
const atMost = 1.3

/** How many keys are imported in a round. */
const imported = 20_000

/** How many times a key is verified in a turn. */
const callsPerTurn = 5_000

const legacy: ImportSource = {
  name: 'legacy',
  accepts: /^lk_[0-9a-f]{40}$/,
  digest: digests.sha256.hex,
}

/** Measures imports against COPY, and cached imported keys against keys of ours. */
export async function measureImport(context: BenchContext): Promise<Target[]> {
  return [...(await compareWithCopy(context)), ...(await compareVerified(context))]
}

function open(url: string, secret: string, imports: readonly ImportSource[]) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 5 } })
  const permissions = ['READ_GRAPH'] as const
  const apiKeys = createApiKeys({ sequelize, keyPrefix, permissions, imports, secrets: [secret] })
  return {
    apiKeys,
    async close() {
      await apiKeys.close()
      await sequelize.close()
    },
  }
}

/** Imports keys, and copies the same rows with their entries into tables that have the same indexes and rules, in turn. */
async function compareWithCopy({ server, secret, isQuick, log, print }: BenchContext) {
  const url = await server.createDatabase('imports')
  const { apiKeys, close } = open(url, secret, [legacy])
  await apiKeys.migrate()
  const client = new Client({ connectionString: url })
  await client.connect()
  // The server may end first if the bench fails.
  client.on('error', () => {})
  const checks = { api_keys: 'api_key_check_key', api_key_events: 'api_key_check_entry' }
  const tables = Object.keys(checks)
  // The server may write nowhere else.
  const found = await client.query<{ folder: string }>(
    `SELECT current_setting('data_directory') AS folder`,
  )
  const fileOf = (table: string) => `${found.rows[0]?.folder}/${table}.copy`
  for (const [table, check] of Object.entries(checks)) {
    await client.query(
      `CREATE TABLE copied_${table} (LIKE ${table} INCLUDING ALL);
       CREATE TRIGGER check_row AFTER INSERT ON copied_${table} FOR EACH ROW EXECUTE FUNCTION ${check}()`,
    )
  }

  const [speeds, copySpeeds, ratios]: [number[], number[], number[]] = [[], [], []]
  for (let round = 0; round < (isQuick ? 2 : 7); round++) {
    log(`import, round ${round + 1}`)
    const importMs = await timeOf(async () => {
      const report = await apiKeys.importKeys('legacy', makeRows())
      if (report.imported !== imported) throw new Error(JSON.stringify(report.refused[0]))
    })
    for (const table of tables) {
      await client.query(`TRUNCATE copied_${table}`)
      const newest = `SELECT * FROM ${table} ORDER BY created_at DESC, id DESC LIMIT ${imported}`
      await client.query(`COPY (${newest}) TO '${fileOf(table)}'`)
    }
    const copyMs = await timeOf(async () => {
      await client.query('BEGIN')
      for (const table of tables) {
        await client.query(`COPY copied_${table} FROM '${fileOf(table)}'`)
      }
      await client.query('COMMIT')
    })
    // The first round only warms up.
    if (round === 0) continue
    speeds.push((imported / importMs) * 1000)
    copySpeeds.push((imported / copyMs) * 1000)
    ratios.push(copyMs / importMs)
  }
  await client.end()
  await close()

  print('## Imports')
  print(
    formatTable(
      ['', 'keys per second'],
      [
        ['`importKeys`, digests', formatCount(median(speeds))],
        ['COPY of the same rows, with their entries', formatCount(median(copySpeeds))],
      ],
    ),
  )
  const what = 'the speed of `importKeys` against COPY of the same rows'
  return [expectMedian(what, ratios, { atLeast: 0.25, digits: 2 })]
}

function makeRows() {
  return Array.from({ length: imported }, (_, place) => ({
    stored: createHash('sha256')
      .update(`lk_${randomBytes(20).toString('hex')}`)
      .digest('hex'),
    userId: `user-${place % 500}`,
    name: `Key ${place}`,
    permissions: ['READ_GRAPH'],
  }))
}

async function timeOf(work: () => Promise<void>): Promise<number> {
  const begunAt = performance.now()
  await work()
  return performance.now() - begunAt
}

function hexOf(algorithm: string, text: string) {
  return createHash(algorithm).update(text).digest('hex')
}

/** Keys of some systems. The vectors of the specs show that they are what these systems make. */
function makeKinds(): Kind[] {
  const letters = `ba_${Array.from(randomBytes(64), (byte) => String.fromCharCode(97 + (byte % 26))).join('')}`
  const token = randomBytes(32).toString('hex')
  const sanctum = 'EEe9MfCIUcPYUGVr8gTQjeNvf7s641ccylsNHkvC6d0ab648'
  const adonis = 'oat_Nw.Z0o2dVIzT3plUWFhYjBJeWptdEdlMDhuX01WUUU4bjYzVTAtRWZfdTE2MDc3NzUxMTU'
  const adonisSecret = Buffer.from(adonis.slice(7), 'base64url').toString()
  const [short, long] = ['NU9vhQWs', 'E3tBPphSxYcEJw4r3nh6pC7a']
  const salt = 'strapi-test-salt'
  const hex256 = randomBytes(128).toString('hex')
  const uuid = '6f2b6f0e-5f0f-4f1e-9d1e-0a1b2c3d4e5f'
  return [
    {
      source: sources.betterAuth({ prefix: 'ba_' }),
      key: letters,
      stored: createHash('sha256').update(letters).digest('base64url'),
    },
    {
      source: sources.sanctum(),
      key: `17|${sanctum}`,
      stored: hexOf('sha256', sanctum),
    },
    { source: sources.knox(), key: token, stored: hexOf('sha512', token) },
    { source: sources.adonis(), key: adonis, stored: hexOf('sha256', adonisSecret) },
    {
      source: sources.prefixedApiKey({ prefix: 'acme' }),
      key: `acme_${short}_${long}`,
      stored: hexOf('sha256', long),
      locator: short,
    },
    {
      source: sources.payload({ secret: 'payload-test-secret' }),
      key: uuid,
      stored: 'da590cb8a11187686d408bc8cf1a6bfae8b3c82fbe9af8a8655142d785925ddf',
    },
    {
      source: sources.strapi({ salt }),
      key: hex256,
      stored: createHmac('sha512', salt).update(hex256).digest('hex'),
    },
  ]
}

/** Verifies a cached key of each system, and a key of ours, in turn. Each system has an app of its own. */
async function compareVerified({ server, secret, isQuick, log, print }: BenchContext) {
  const url = await server.createDatabase('imported')
  const own = open(url, secret, [])
  await own.apiKeys.migrate()
  const owner = { userId: 'alice', name: 'Key', permissions: ['READ_GRAPH'] } as const
  const { plainTextKey } = await own.apiKeys.create(owner)
  const kinds = makeKinds().map(({ source, key, stored, locator }) => {
    const { apiKeys, close } = open(url, secret, [source])
    return { source, key, stored, locator, apiKeys, close }
  })
  for (const { apiKeys, source, stored, locator } of kinds) {
    await apiKeys.importKeys(source.name, [{ ...owner, stored, locator }])
  }

  const all = [{ apiKeys: own.apiKeys, key: plainTextKey }, ...kinds]
  const times = new Map(all.map(({ key }) => [key, [] as number[]]))
  for (let round = 0; round < (isQuick ? 5 : 60); round++) {
    if (round % 10 === 0) log(`imported keys, round ${round + 1}`)
    for (const { apiKeys, key } of round % 2 === 0 ? all : all.toReversed()) {
      const before = process.cpuUsage()
      for (let call = 0; call < callsPerTurn; call++) {
        const verdict = await apiKeys.verify(key)
        if (!verdict.valid) throw new Error(`a key is ${verdict.code}`)
      }
      const { user, system } = process.cpuUsage(before)
      if (round > 0) times.get(key)?.push(((user + system) * 1000) / callsPerTurn)
      await yieldToEventLoop()
    }
  }
  for (const { close } of [own, ...kinds]) await close()

  const ofOwn = times.get(plainTextKey) ?? []
  const ratiosOf = (key: string) =>
    (times.get(key) ?? []).map((time, round) => time / (ofOwn[round] ?? Number.NaN))
  print(
    formatTable(
      ['cached keys', 'ns of CPU', 'of ours'],
      [
        ['ours, with `secrets`', median(ofOwn).toFixed(0), ''],
        ...kinds.map(({ key, source }) => [
          source.name,
          median(times.get(key) ?? []).toFixed(0),
          median(ratiosOf(key)).toFixed(2),
        ]),
      ],
    ),
  )
  return kinds.map(({ key, source }) =>
    expectMedian(`\`verify()\` of ${source.name} against ours`, ratiosOf(key), {
      atMost,
      digits: 2,
    }),
  )
}
