import { stateSql } from '../../models/audit-trail'
import type { Tables } from '../../models/tables'
import { mostSuspects, suspectsSql } from './agreeing-states'
import type { Findings } from './faults'
import { lineSql, pageSql, type Row, type Verification } from './read-trail'
import { addEntry, beginAt, compareRow, emptyStory, entryValues } from './story'

/** The keys to read: these, or all of them. */
type Choice = readonly string[] | null

/**
 * Compares what each entry says of a key with the entries before it, and the whole with the row of the key. If a seal says that the
 * entries of a key agreed with the row as it is now, they need not be read. Seals are not asked unless all of them are intact: then the
 * ids of late entries are given.
 */
export async function checkKeys(
  findings: Findings,
  verification: Verification,
  late: readonly string[] | null,
) {
  const { reader, tables } = verification
  const truncationsSql = `SELECT id::text AS json FROM ${tables.events} WHERE action = 'truncated' ORDER BY id`
  const truncations = (await reader.read('its truncations', truncationsSql)).map(BigInt)
  const suspects =
    late && late.length <= mostSuspects && truncations.length === 0
      ? await readSuspects(verification, late)
      : null
  const isEach = suspects === null || suspects.length > mostSuspects
  if (isEach || suspects.length > 0)
    await compareKeys(findings, verification, truncations, isEach ? null : suspects)
}

/**
 * Returns the ids of the keys whose entries are to be compared. Entries are late if they were sealed behind entries with greater ids: their
 * keys may have agreed with their other entries before.
 */
async function readSuspects(
  { reader, suspects, tables }: Verification,
  late: readonly string[],
): Promise<string[]> {
  const read = async (sql: string) => reader.read('its entries beside the keys', sql)
  const found = (await suspects.answer()) ?? (await read(suspectsSql(tables)))
  if (late.length === 0) return found

  const lateSql = `SELECT DISTINCT api_key_id::text AS json FROM ${tables.events} WHERE id = ANY('{${late.join()}}'::bigint[]) AND api_key_id IS NOT NULL`
  return [...new Set([...found, ...(await read(lateSql))])]
}

/**
 * Reads keys, their entries and their origins side by side, in the order of the ids of the keys. The entries of a key are in the order of
 * their ids, because each was written under the lock of its row. A TRUNCATE ends what came before it.
 */
async function compareKeys(
  findings: Findings,
  { reader, tables }: Verification,
  truncations: readonly bigint[],
  choice: Choice,
) {
  const keys = cursorOf(reader.rowsOf('its keys', (last) => keysSql(tables, last, choice)))
  const entries = cursorOf(
    choice
      ? reader.rowsOf('its entries beside the keys', (last) => entriesSql(tables, last, choice))
      : reader.rowsOfCursor('its entries beside the keys'),
  )
  const origins = cursorOf(reader.rowsOf('its origins', (last) => originsSql(tables, last, choice)))
  await Promise.all([keys.goOn(), entries.goOn(), origins.goOn()])
  for (;;) {
    const apiKeyId = least(least(keys.row?.[0], entries.row?.[0]), origins.row?.[0])
    // If a part cannot be read, what is left looks as if it were gone.
    if (apiKeyId === undefined || reader.findings.faultCount > 0) return

    const story = emptyStory(apiKeyId)
    if (origins.row?.[0] === apiKeyId) {
      beginAt(story, origins.row)
      if (!origins.advance()) await origins.goOn()
    }
    while (entries.row?.[0] === apiKeyId) {
      if (isBetween(truncations, story.upTo, entries.row[1])) {
        const { refs } = story
        Object.assign(story, emptyStory(apiKeyId), { refs })
      }
      addEntry(findings, story, entries.row)
      if (!entries.advance()) await entries.goOn()
    }
    const row = keys.row?.[0] === apiKeyId ? keys.row : undefined
    const isGone = story.action === 'deleted' || isBetween(truncations, story.upTo)
    compareRow(findings, story, isGone, row)
    if (row && !keys.advance()) await keys.goOn()
  }
}

function least(a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || (b !== undefined && b < a) ? b : a
}

/** Goes from row to row. The next row is often there already, so nothing is awaited for it. */
function cursorOf(parts: AsyncGenerator<Row[], void>) {
  let part: Row[] = []
  let index = 0
  return {
    get row(): Row | undefined {
      return part[index]
    },
    /** Returns false if the next row must be read. */
    advance(): boolean {
      return ++index < part.length
    },
    async goOn() {
      const { value } = await parts.next()
      part = value ?? []
      index = 0
    },
  }
}

/** SQL for a page of keys in the order of their ids, after the last. */
function keysSql({ keys }: Tables, last: Row | null, choice: Choice): string {
  const values = ['key.id', 'key.event_ref', stateSql('key')]
  return pageSql(
    values,
    `FROM ${keys} AS key WHERE ${isNext('key.id', last, choice)} ORDER BY key.id`,
  )
}

function originsSql({ origins }: Tables, last: Row | null, choice: Choice): string {
  const clauses = `FROM ${origins} WHERE ${isNext('api_key_id', last, choice)} ORDER BY api_key_id`
  return pageSql(['api_key_id', 'as_of', 'state'], clauses)
}

function isNext(id: string, last: Row | null, choice: Choice): string {
  return `${last ? `${id} > '${last[0]}'` : 'true'} AND ${isAmong(id, choice)}`
}

function isAmong(id: string, choice: Choice): string {
  return choice ? `${id} = ANY('{${choice.join()}}'::uuid[])` : `${id} IS NOT NULL`
}

/** SQL for a page of the entries of some keys, after the last. */
function entriesSql(tables: Tables, last: Row | null, choice: Choice): string {
  const after = last ? `AND (api_key_id, id) > ('${last[0]}', ${last[1]})` : ''
  return pageSql(entryValues, `${fromEntries(tables, choice)} ${after} ORDER BY api_key_id, id`)
}

/** SQL for all entries that tell of keys. */
export function entriesByKeySql(tables: Tables): string {
  return `SELECT ${lineSql(entryValues)} AS json ${fromEntries(tables, null)} ORDER BY api_key_id, id`
}

/** Entries that were pruned are not known, so entries with ids up to the greatest that was pruned are left out. */
function fromEntries({ events, auditHead }: Tables, choice: Choice): string {
  const pruned = `(SELECT max(last_pruned_id) FROM ${auditHead})`
  return `FROM ${events} WHERE ${isAmong('api_key_id', choice)} AND id > coalesce(${pruned}, 0)`
}

/** True if there was a TRUNCATE after an entry, and before another entry. */
function isBetween(truncations: readonly bigint[], id: string, otherId?: string): boolean {
  if (truncations.length === 0 || id === '') return false
  const [from, to] = [BigInt(id), otherId === undefined ? null : BigInt(otherId)]
  return truncations.some((truncation) => truncation > from && (to === null || truncation < to))
}
