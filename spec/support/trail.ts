import { randomBytes } from 'node:crypto'

import type { AuditFault } from '../../lib'
import { contentSql, readContent, toRow, type Content } from '../../lib/audit/entry'
import { endSql, headText, type Head } from '../../lib/audit/head'
import { hashOf, type SealedEntry } from '../../lib/audit/chain'
import { createSigner } from '../../lib/audit/signing'
import { msSql } from '../../models/api-key'
import { entryDigestSql } from '../../models/sealed-entry'
import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type Options, type TestApiKeys } from './app'
import { createKey, newKey } from './keys'
import { useWorld, useWorldForEach, type World } from './world'

/** The secret of the instance, and a secret that may replace it. */
export const [secret, otherSecret] = [randomBytes(32), randomBytes(32)]

const signer = createSigner({ secrets: [secret], acceptUnkeyed: false })

/** The kind of a fault, and its place in the trail. */
export type Fault = [kind: AuditFault['kind'], position: number | null]

/** A title, the SQL of a forger, and the faults that verification then finds. */
export type Tampering = [title: string, sql: string, faults: Fault[]]

/** The limits that every verification names. */
export const always = [
  expect.stringContaining('looks like one of a trigger'),
  expect.stringContaining('with its change before it was sealed'),
  expect.stringContaining('put in again before it was sealed'),
  expect.stringContaining('replaced functions of Postgres'),
  expect.stringContaining('row level security'),
  expect.stringContaining('A change of what no entry has'),
  expect.stringContaining('of another database'),
]

/** Makes a key without the library. */
export const insertKey = `
  INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
  VALUES ('mallory', 'By hand', 'agpt_abc123', 'abcd1234', md5('a') || md5('b'), '{READ_GRAPH}')`

/** Gives a spec file a database whose keys and audit trail are empty before each `it`. */
export function useTrail() {
  const world = useWorld({ options: { secrets: [secret] } })
  const trail = trailOf(world)
  afterEach(trail.clear)
  return { ...world, ...trail }
}

/** Gives each `it` a database of its own, for specs that damage tables. Read the parts of the world inside an `it`. */
export function useTrailForEach() {
  const world = useWorldForEach({ options: { secrets: [secret] } })
  return { world, ...trailOf(world) }
}

/** Returns the kinds and places of faults. */
export function shown(faults: readonly AuditFault[]): Fault[] {
  return faults.map(({ kind, position }) => [kind, position])
}

function trailOf(world: World) {
  const others: TestApiKeys[] = []

  /** Resolves once the changes of the instances have their seals, as they would after a moment. */
  async function sealAll() {
    for (const instance of [world.apiKeys, ...others]) await instance.flush()
  }

  /** The id of the entry at a place in the chain. */
  async function idAt(position: number): Promise<string> {
    await sealAll()
    const sql = 'SELECT event_id::text AS id FROM api_key_event_seals WHERE position = $1'
    const [seal] = await world.rows<{ id: string }>(sql, [position])
    if (!seal) throw new Error(`there is no entry at ${position}`)
    return seal.id
  }

  /** SQL with the ids of entries in place of `#3`, for example. */
  async function withIds(sql: string): Promise<string> {
    let text = sql
    for (const [name, position] of sql.matchAll(/#(\d+)/g)) {
      text = text.replace(name, await idAt(Number(position)))
    }
    return text
  }

  /** Runs SQL like a superuser without the secret, with the triggers off, and switches them on again afterwards. */
  async function meddle(sql: string) {
    await sealAll()
    const triggers = await world.rows<{ table: string; name: string }>(
      `SELECT tgrelid::regclass::text AS "table", tgname AS name FROM pg_trigger
        WHERE NOT tgisinternal AND tgenabled = 'A'`,
    )
    const all = (action: string) =>
      triggers.map(({ table, name }) => `ALTER TABLE ${table} ${action} TRIGGER ${name};`).join('')
    await world.sequelize.query(
      `BEGIN; ${all('DISABLE')} ${await withIds(sql)}; ${all('ENABLE ALWAYS')} COMMIT`,
    )
  }

  /** Has entries that look old be signed and sealed at their time, or sealed at another time, as an app that is as old would have done. */
  async function ageSeals(sealedAt = 'least(sealed_at, created_at)') {
    const entries = await world.rows<{ id: string; content: Content; at: number }>(
      `SELECT id::text, ${contentSql('event')} AS content, (${msSql('created_at')})::float8 AS at
         FROM api_key_events AS event WHERE created_at < now() - interval '1 hour' AND entry_mac IS NOT NULL`,
    )
    const aged = entries.map(({ id, content, at }) => {
      const { entry_mac: mac } = toRow(signer, readContent(content), at)
      return `UPDATE api_key_events SET entry_mac = '${mac}' WHERE id = ${id}`
    })
    const datedSql = `
      UPDATE api_key_event_seals AS seal SET sealed_at = ${sealedAt}, digest = ${entryDigestSql('event')}, block_digest = NULL
        FROM api_key_events AS event WHERE event.id = event_id`
    await meddle([...aged, datedSql].join(';'))
    const [found] = await world.rows<{ json: string }>(endSql(tablesOf('public')))
    const { head } = JSON.parse(String(found?.json)) as { head: Head }
    const seals = await world.rows<SealedEntry & { position: number }>(
      `SELECT position::int, event_id::text AS "eventId", is_genuine AS "isGenuine", doubts, secret_id AS "secretId", digest,
              state_digest AS "stateDigest", block_digest AS "blockDigest",
              (${msSql('sealed_at')})::float8 AS "sealedAt" FROM api_key_event_seals ORDER BY position`,
    )
    let hash = head.checkpointHash
    const chained = seals.map(({ position, ...seal }) => {
      hash = hashOf(hash, seal)
      return `UPDATE api_key_event_seals SET hash = '${hash}', mac = '${signer.sign('seal', hash).mac}' WHERE position = ${position}`
    })
    const { mac } = signer.sign('head', headText({ ...head, hash }))
    const headSql = `UPDATE api_key_audit_head SET hash = '${hash}', mac = '${mac}'`
    await meddle([...chained, headSql].join(';'))
  }

  return {
    sealAll,
    ageSeals,
    idAt,
    meddle,

    /** Removes all keys and entries, and the objects that specs have added to them. */
    clear: () =>
      meddle(`
        TRUNCATE api_keys, api_key_retired_secrets, api_key_events, api_key_event_seals, api_key_unsealed_events, api_key_origins,
                 api_key_suspended_owners;
        DELETE FROM api_key_audit_head; INSERT INTO api_key_audit_head DEFAULT VALUES;
        DROP TABLE IF EXISTS kept, kept_key, kept_events`),

    /** Makes one more instance. Without options, it has no secrets. */
    createOf(options: Options): TestApiKeys {
      const instance = createTestApiKeys(world.database, {
        sequelize: world.sequelize,
        ...options,
      })
      others.push(instance)
      return instance
    },

    /** Makes a trail of five entries, of one key. Each is sealed alone. */
    async makeTrail(apiKeys: TestApiKeys = world.apiKeys) {
      const { id } = await createKey(apiKeys)
      await apiKeys.flush()
      await apiKeys.update(id, { name: 'Backup' })
      await apiKeys.flush()
      await apiKeys.suspend(id, { reason: 'Lost.' })
      await apiKeys.flush()
      await apiKeys.reactivate(id)
      await apiKeys.flush()
      const revoked = await apiKeys.revoke(id, { actor: { type: 'admin', id: 'root' } })
      await apiKeys.flush()
      return revoked
    },

    /** Makes a key whose entry has this age. */
    async makeOld(days: number) {
      const { apiKeys, sequelize } = world
      const time = `clock_timestamp() - ${days} * interval '1 day' - interval '1 minute'`
      const setDefaults = (sql: string) =>
        sequelize.query(`
          ALTER TABLE api_keys ALTER COLUMN created_at SET DEFAULT ${sql};
          ALTER TABLE api_key_events ALTER COLUMN created_at SET DEFAULT ${sql}`)
      await setDefaults(time)
      const { apiKey } = await apiKeys.create(newKey())
      await setDefaults('clock_timestamp()')
      await apiKeys.auditHead()
      await ageSeals()
      return apiKey
    },

    async expectFaults(...expected: Fault[]) {
      const { isIntact, faults } = await world.apiKeys.verifyAuditTrail()

      expect(shown(faults)).toEqual(expected)
      expect(isIntact).toBe(expected.length === 0)
    },
  }
}
