import { randomUUID } from 'node:crypto'

import type { Sequelize, Transaction } from 'sequelize'

import { insertEntriesSql } from '../../models/api-key-event'
import { openSql } from '../../models/audit-trail'
import { ownerColumns, ownerIdSql, ownerTypeSql } from '../../models/owner'
import { groupDigestSql, keptSaltSql, personalGroups } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { allowMs } from '../database/answer-limit'
import { wait } from '../database/background'
import type { ServerClock } from '../database/clock'
import { limitStatements, run, selectJson } from '../database/query'
import type { InTurn } from '../database/turns'
import { inTransaction, writeLimitMs } from '../database/writer'
import { ApiKeysError } from '../errors'
import type { Owner } from '../keys/owner'
import {
  checkEntry,
  contentSql,
  newEntry,
  readContent,
  toRow,
  type Content,
  type NewEntry,
} from './entry'
import { endSql, isReliable, moveHeadSql, type End, type Trail } from './head'
import { sumOf, toJson, writeOriginsSql, type OriginChange } from './origins'
import { durably, lockLimitMs } from './seal'
import type { Sealer } from './sealer'

/*
 * Erasing removes the personal values of one owner from entries, and leaves what the seals cover: models/sealed-entry.ts says how. The
 * transaction that erases values of a page of entries also writes a *note*: an entry `owner_erased`, which lists these entries, and says
 * who has erased them, when and why, but not whom. The note is signed and sealed as every entry. So only the library can erase, and a
 * note never comes before its entries in the chain, which pruning cuts off from the start.
 *
 * Only sealed entries are erased, because nobody can check the signature of an entry afterwards. If it did not hold before, the note
 * says so. An erasing that was stopped half-way goes on if it is repeated: what is erased no longer names the owner.
 */

/** The author of an erasing and its reason, as the columns of its notes. */
export type Author = Pick<NewEntry, 'actorType' | 'actorId' | 'address' | 'reason'>

interface ErasingParts extends Trail {
  sealer: Pick<Sealer, 'sealAll' | 'sealSoon'>
  inTurn: InTurn
  serverClock: ServerClock
}

/** How many entries are looked through in one statement, and erased in one transaction at most. */
const pageSize = 2_000

/** How many origins are erased with one write of the head. */
const originsAtOnce = 500

/** How long a statement may take. */
const statementLimitMs = 60_000

/** How long entries are waited for that have no seal yet, or that another transaction has locked, and how long a look at them rests. */
const waitLimitMs = 30_000
const lookAgainMs = 200

const first = '-9223372036854775808'

/** Erases the personal values of an owner from the trail. Returns the number of entries that had some. */
export async function eraseEntries(parts: ErasingParts, owner: Owner, by: Author) {
  const endsAt = Date.now() + waitLimitMs
  let erased = 0
  for (let from: string | null = first; ;) {
    await parts.sealer.sealAll()
    const round = await eraseFrom(parts, owner, by, from)
    erased += round.erased
    from = round.left
    if (from === null) break
    if (Date.now() > endsAt) throw new ApiKeysError('database_unavailable')
    await wait(lookAgainMs)
  }
  await eraseOrigins(parts, owner)
  return erased
}

/** Returns the number of entries that have personal values of an owner, those of keys that the owner has among them. */
export async function countErasable(parts: ErasingParts, owner: Owner) {
  let entries = 0
  for (let after: string | null = first; after !== null;) {
    const page = await lookAt(parts, owner, after, isPersonalSql('page'))
    entries += page.found
    after = page.last
  }
  return entries
}

/** Erases page by page. `left` is the place before the first page of which an entry could not be erased. */
async function eraseFrom(parts: ErasingParts, owner: Owner, by: Author, from: string) {
  let [erased, left]: [number, string | null] = [0, null]
  for (let after: string | null = from; after !== null;) {
    const { found, last } = await lookAt(parts, owner, after, isWantedSql(parts.tables, 'page'))
    const range = { after, last: last ?? first }
    const done = found > 0 ? await erasePage(parts, owner, by, range) : 0
    erased += done
    if (done < found) left ??= after
    after = last
  }
  return { erased, left }
}

/** Returns the last id of a page of entries, and how many of the page have personal values of an owner. */
async function lookAt(
  { sequelize, tables, inTurn }: ErasingParts,
  owner: Owner,
  after: string,
  isFound: string,
) {
  const sql = `
    WITH page AS MATERIALIZED (SELECT * FROM ${tables.events} WHERE id > $3::bigint ORDER BY id LIMIT ${pageSize})
    SELECT pg_catalog.json_build_object('last', max(id)::text, 'found', count(*) FILTER (WHERE ${isFound}))::text AS json FROM page`
  const bind = [owner.type, String(owner.id), after]
  const [page] = await inTurn({}, () =>
    selectJson<[{ last: string | null; found: number }]>(sequelize, sql, {
      bind,
      transaction: null,
    }),
  )
  return page
}

interface Found {
  id: string
  /** For each group of personal values: `1` if it is erased. */
  groups: string
  /** `null` for an entry that needs no signature, or whose seal says that the library wrote it. */
  content: Content | null
}

/** Erases a page of entries in one transaction, and writes its note. Returns how many entries it has erased. */
async function erasePage(
  parts: ErasingParts,
  owner: Owner,
  by: Author,
  { after, last }: { after: string; last: string },
): Promise<number> {
  const { sequelize, tables, signer, serverClock, sealer, inTurn } = parts
  const { events, seals } = tables
  // An entry that another transaction has locked is erased later, or pruned by then. Waiting for it could be a deadlock.
  const foundSql = `
    SELECT pg_catalog.json_build_object(
             'id', event.id::text, 'groups', ${groupsSql('event')},
             'content', CASE WHEN NOT seal.is_genuine AND event.actor_type <> 'database' AND event.erased IS NULL THEN ${contentSql('event')} END
           )::text AS json
      FROM ${events} AS event JOIN ${seals} AS seal ON seal.event_id = event.id
     WHERE event.id > $3::bigint AND event.id <= $4::bigint AND ${isWantedSql(tables, 'event')}
     ORDER BY event.id FOR UPDATE OF event SKIP LOCKED`
  const bind = [owner.type, String(owner.id), after, last]

  return inTurn({}, () =>
    sequelize.transaction(async (transaction) => {
      allowMs(transaction, statementLimitMs)
      const settings = `${limitStatements(statementLimitMs)}, set_config('${tables.settings.erasing}', pg_current_xact_id()::text, true)`
      await run(sequelize, settings, { transaction })
      const found = await selectJson<Found[]>(sequelize, foundSql, { bind, transaction })
      if (found.length === 0) return 0

      const unproven = found.filter(
        ({ content }) => content !== null && checkEntry(signer, readContent(content)) !== 'valid',
      )
      const erased: Record<string, string[]> = {}
      for (const { id, groups } of found) (erased[groups] ??= []).push(id)
      const after = { erased, unproven: unproven.map(({ id }) => id) }
      const ref = randomUUID()
      const note: NewEntry = { ...newEntry(), ...by, ref, action: 'owner_erased', after }
      const row = toRow(signer, note, serverClock.now())
      await write(sequelize, tables, [found, row], transaction)
      transaction.afterCommit(() =>
        sealer.sealSoon([{ apiKeyId: null, subject: 'erased owner', ref, mac: row.entry_mac }]),
      )
      return found.length
    }),
  )
}

/** SQL that is true if a group is to be erased. */
function isErased(group: number): string {
  return `substr(wanted.groups, ${group + 1}, 1) = '1'`
}

async function write(
  sequelize: Sequelize,
  tables: Tables,
  [found, note]: [Found[], object],
  transaction: Transaction,
) {
  const columns = personalGroups.flatMap((group, index) =>
    group.map((column) => `${column} = CASE WHEN NOT ${isErased(index)} THEN event.${column} END`),
  )
  const digests = personalGroups.map(
    (_, group) =>
      `CASE WHEN ${isErased(group)} THEN ${groupDigestSql('event', group)} ELSE event.erased[${group + 1}] END`,
  )
  const sql = `
    WITH erased AS (
      UPDATE ${tables.events} AS event
         SET ${columns.join(', ')}, erased = ARRAY[${digests.join(', ')}], salt = ${keptSaltSql('event', isErased)}
        FROM json_to_recordset($1::json) AS wanted (id bigint, groups text) WHERE event.id = wanted.id
    )
    ${insertEntriesSql(tables, `FROM pg_catalog.json_populate_record(NULL::${tables.events}, $2::json) AS entry`)}`
  const wanted = found.map(({ id, groups }) => ({ id, groups }))
  const bind = [JSON.stringify(wanted), JSON.stringify(note)]
  await run(sequelize, sql, { bind, transaction })
}

/** SQL that is true for an entry that has personal values of the owner `$1`, `$2`. */
function isPersonalSql(event: string): string {
  return `${groupsSql(event)} <> '0000'`
}

/** SQL that is true for such an entry, unless it is of a key that the owner has. */
function isWantedSql({ keys }: Tables, event: string): string {
  return `${isPersonalSql(event)} AND NOT EXISTS (
      SELECT FROM ${keys} AS key
       WHERE key.id = ${event}.api_key_id AND ${ownerTypeSql('key')} = $1::text AND ${ownerIdSql('key')} = $2::text
    )`
}

/**
 * SQL for the groups of an entry that are personal to the owner `$1`, `$2`, with a `1` for each. An actor is the owner who acts on any
 * key. The app itself acts for an owner, so the address is the owner's.
 */
function groupsSql(event: string): string {
  const isOwner = `coalesce((${event}.owner_type, ${event}.owner_id) = ($1::text, $2::text), false)`
  const isFormer = `coalesce((${event}.former_owner_type, ${event}.former_owner_id) = ($1::text, $2::text), false)`
  const isOf = `(${isOwner} OR ${isFormer})`
  const isActor = `coalesce($1::text = 'user' AND ${event}.actor_type IN ('user', 'admin') AND ${event}.actor_id = $2::text, false)`
  const isAnyOf = (group: number) =>
    `num_nonnulls(${personalGroups[group]?.map((column) => `${event}.${column}`).join(', ')}) > 0`
  const groups = [
    isOwner,
    isFormer,
    `${isAnyOf(2)} AND (${isActor} OR (${event}.actor_type = 'system' AND ${isOf}))`,
    `${isAnyOf(3)} AND ${isOf}`,
  ]
  return `pg_catalog.concat(${groups.map((condition) => `(${condition})::integer`).join(', ')})`
}

/** The attributes of a state that name its owner. */
const ownerAttributes = { user: 'userId', organization: 'organizationId', service: 'service' }

/** Erases what pruned entries said of the keys of an owner. The head has the sum of the origins, so it moves with each page. */
async function eraseOrigins(parts: ErasingParts, { type, id }: Owner) {
  const { sequelize, signer, tables, connection } = parts
  const state = `${openSql('state')} || '{"isErased": true}'`
  const sql = `
    SELECT pg_catalog.json_build_object('was', ${toJson('api_key_id', 'as_of', 'state')}::json, 'now', ${toJson('api_key_id', 'as_of', `(${state})`)}::json)::text AS json
      FROM ${tables.origins} AS origin
     WHERE state ->> '${ownerAttributes[type]}'::text = $1
       AND NOT EXISTS (SELECT FROM ${tables.keys} AS key WHERE key.id = origin.api_key_id AND key.${ownerColumns[type]}::text = $1)
     ORDER BY api_key_id LIMIT ${originsAtOnce}`
  const none = { transaction: null }
  for (;;) {
    const [{ head, version, tail }] = await selectJson<[End]>(sequelize, endSql(tables), none)
    const bind = [String(id)]
    const changes = await selectJson<OriginChange[]>(sequelize, sql, { bind, ...none })
    if (changes.length === 0) return
    if (!head || !isReliable(signer, head, tail)) throw new ApiKeysError('audit_trail_not_intact')

    const next = { ...head, ...(await sumOf(parts, head, changes)) }
    await connection.query(
      inTransaction(
        `${durably};
         WITH moved AS (${moveHeadSql(parts, version, next)}), ${writeOriginsSql(tables, changes)}
         SELECT count(*)::text AS moved FROM moved`,
        lockLimitMs,
      ),
      writeLimitMs,
    )
  }
}
