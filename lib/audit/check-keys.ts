import { personalNames, shownNames, stateSql, timeNames } from '../../models/audit-trail'
import { ownerColumns, type OwnerType } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { canonical, isPlainObject, isSame } from '../keys/metadata'
import type { Findings } from './faults'
import { lineSql, pageSql, type Row, type Verification } from './read-trail'

/** The claims of the entries of a key, up to one of them. */
type Story = ReturnType<typeof emptyStory>

/** A change of an attribute. */
type Change = [name: string, before: unknown, after: unknown]

const shown: ReadonlySet<string> = new Set(shownNames)

/**
 * Compares what each entry says of a key with the entries before it, and the whole with the row of the key. Entries and keys are read
 * side by side, in the order of the ids of the keys. The entries of a key are in the order of their ids, because each was written
 * under the lock of its row. A TRUNCATE ends what came before it.
 *
 * Any role that may write to the trail may have written any JSON, so values that are no objects are left out.
 */
export async function checkKeys(findings: Findings, { reader, tables, onRows }: Verification) {
  const { events } = tables
  const truncationsSql = `SELECT id::text AS json FROM ${events} WHERE action = 'truncated' ORDER BY id`
  const truncations = (await reader.read('its truncations', truncationsSql)).map(BigInt)
  const keys = cursorOf(reader.rowsOf('its keys', (last) => keysSql(tables, last)))
  const entries = cursorOf(reader.rowsOfCursor('its entries beside the keys'), onRows)
  const origins = cursorOf(reader.rowsOf('its origins', (last) => originsSql(tables, last)))
  await Promise.all([keys.goOn(), entries.goOn(), origins.goOn()])
  const refs = new Set<string>()
  for (;;) {
    const apiKeyId = least(least(keys.row?.[0], entries.row?.[0]), origins.row?.[0])
    // If a part cannot be read, what is left looks as if it were gone.
    if (apiKeyId === undefined || reader.findings.faultCount > 0) return

    const story = emptyStory(apiKeyId)
    if (origins.row?.[0] === apiKeyId) {
      beginAt(story, origins.row)
      if (!origins.advance()) await origins.goOn()
    }
    refs.clear()
    while (entries.row?.[0] === apiKeyId) {
      const [, id = '', ref = ''] = entries.row
      if (refs.has(ref))
        findings.report('inserted', { eventId: id }, 'The entry repeats another one.')
      if (ref !== '') refs.add(ref)
      if (isBetween(truncations, story.upTo, id)) Object.assign(story, emptyStory(apiKeyId))
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
function cursorOf(parts: AsyncGenerator<Row[], void>, onRows?: (count: number) => void) {
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
      onRows?.(part.length)
      const { value } = await parts.next()
      part = value ?? []
      index = 0
    },
  }
}

/** SQL for a page of keys in the order of their ids, after the last. */
function keysSql({ keys }: Tables, last: Row | null): string {
  const values = ['key.id', 'key.event_ref', stateSql('key')]
  const after = last ? `WHERE key.id > '${last[0]}'` : ''
  return pageSql(values, `FROM ${keys} AS key ${after} ORDER BY key.id`)
}

function originsSql({ origins }: Tables, last: Row | null): string {
  const after = last ? `WHERE api_key_id > '${last[0]}'` : ''
  return pageSql(['api_key_id', 'as_of', 'state'], `FROM ${origins} ${after} ORDER BY api_key_id`)
}

/**
 * SQL for all entries that tell of keys. Entries that were pruned are not known, so entries with ids up to the greatest that was pruned
 * are left out.
 */
export function entriesByKeySql({ events, auditHead }: Tables): string {
  const values = [
    'api_key_id',
    'id',
    'ref',
    'action',
    'json_build_array(owner_type, owner_id)',
    'before',
    'after',
    'personal_before',
    'personal_after',
    `CASE WHEN erased[4] IS NOT NULL THEN 't' END`,
  ]
  const pruned = `(SELECT max(last_pruned_id) FROM ${auditHead})`
  return `SELECT ${lineSql(values)} AS json FROM ${events}
     WHERE api_key_id IS NOT NULL AND id > coalesce(${pruned}, 0) ORDER BY api_key_id, id`
}

function emptyStory(apiKeyId: string) {
  return {
    apiKeyId,
    /** By the names of attributes. */
    values: {} as Record<string, unknown>,
    /** The ids of the entries that changed attributes last, by their names. All other attributes are of the first entry. */
    sources: {} as Record<string, string>,
    firstId: '',
    lastId: '',
    /** The id of the last entry, or of the last that was pruned. */
    upTo: '',
    /** True if the first entry is of the creation, or if the key has an origin. */
    isBegun: false,
    /** True once personal values of the key were erased from an entry. Nothing vouches for the last of them. */
    isErased: false,
    /** The last action; '' if there are no entries. */
    action: '',
    /** The last reference that an entry gave to the row of the key, and the id of that entry. */
    ref: '',
    refId: '',
    /** The owner that the last entry names, as JSON. */
    owner: '[null, null]',
  }
}

/** True if there was a TRUNCATE after an entry, and before another entry. */
function isBetween(truncations: readonly bigint[], id: string, otherId?: string): boolean {
  if (truncations.length === 0 || id === '') return false
  const [from, to] = [BigInt(id), otherId === undefined ? null : BigInt(otherId)]
  return truncations.some((truncation) => truncation > from && (to === null || truncation < to))
}

/** Begins with the last state of a key in its pruned entries. */
function beginAt(story: Story, [, asOf = '', state = '']: Row) {
  const { isErased, ...values } = readObject(state)
  story.values = values
  story.isErased = isErased === true
  story.isBegun = true
  story.upTo = asOf
}

function addEntry(findings: Findings, story: Story, entry: Row) {
  const [, id = '', ref = '', action = '', owner = '', ...texts] = entry
  const [beforeText, afterText, personalBefore, personalAfter, isErased] = texts
  if (action === 'retired_secret_used') return

  const before = readStates(beforeText, personalBefore)
  const after = readStates(afterText, personalAfter)
  if (isErased === 't') dropPersonalValues(story)
  const isFirst = story.upTo === ''
  const isCreation = action === 'created' || action === 'imported'
  if (isFirst && isCreation) story.values = after
  else for (const name in after) addValue(findings, story, id, [name, before[name], after[name]])
  for (const name in before) {
    if (!(name in after)) addValue(findings, story, id, [name, before[name], null])
  }
  if (isFirst) {
    story.firstId = id
    story.isBegun = isCreation
  }
  if (ref !== '' || isCreation) {
    story.ref = ref
    story.refId = id
  }
  story.lastId = id
  story.upTo = id
  story.action = action
  story.owner = owner
}

/** An entry without personal values says nothing of them, so the values before it do not count any longer. */
function dropPersonalValues(story: Story) {
  for (const name of personalNames) delete story.values[name]
  story.isErased = true
}

function readStates(open = '', personal = ''): Record<string, unknown> {
  const values = readObject(open)
  return personal === '' ? values : Object.assign(values, readObject(personal))
}

function readObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = text === '' ? null : JSON.parse(text)
    return isPlainObject(value) ? value : {}
  } catch {
    return {}
  }
}

function addValue({ report }: Findings, story: Story, id: string, [name, before, after]: Change) {
  if (!shown.has(name)) return
  const { apiKeyId, values, sources } = story
  if (name in values && !isSameTo(name, values[name], before)) {
    report('contradicted', { eventId: id }, contradiction(apiKeyId, name))
  }
  values[name] = after
  sources[name] = id
}

function contradiction(apiKeyId: string, name: string): string {
  return `The trail and the key ${apiKeyId} do not agree on ${name}.`
}

/** Compares a key with its entries. Each key has the entry of its creation, or an origin. */
function compareRow(findings: Findings, story: Story, isGone: boolean, row?: Row) {
  const { apiKeyId, values, sources, firstId, lastId, isBegun, isErased, ref, refId } = story
  const disagree = (name: string, eventId = firstId) => {
    const place = { eventId: eventId === '' ? null : eventId }
    findings.report('contradicted', place, contradiction(apiKeyId, name))
  }
  if (story.upTo === '') {
    if (row) disagree('its existence')
  } else if (isGone === (row !== undefined)) disagree('its existence', lastId)
  if (!row || story.upTo === '' || isGone) return

  const [, eventRef, state = ''] = row
  let isWhole = isBegun
  const now = JSON.parse(state) as unknown[]
  for (let index = 0; index < shownNames.length; index++) {
    const name = shownNames[index] ?? ''
    if (name in values) {
      const isSame = timeNames.has(name) ? isAtTime : isSameTo
      if (!isSame(name, values[name], now[index])) disagree(name, sources[name])
    } else if (isBegun && !(isErased && personalNames.includes(name))) isWhole = false
  }
  if (!isWhole) disagree('its creation')
  // If the entry of its creation was pruned, each entry still names the owner.
  if (!('userId' in values) && !isOwner(story.owner, now)) disagree('its owner', lastId)
  if (ref !== '' && ref !== eventRef) disagree('its last change', refId)
}

/** True if the last entry of a key names the owner whom its row has. */
function isOwner(named: string, state: readonly unknown[]): boolean {
  const owner = (Object.keys(ownerColumns) as OwnerType[]).flatMap((type) => {
    const id = state[shownNames.indexOf(ownerNames[type])]
    return typeof id === 'string' ? [type, id] : []
  })
  return isSame(JSON.parse(named), owner)
}

const ownerNames = { user: 'userId', organization: 'organizationId', service: 'service' } as const

/** True if an entry has the time of a row, which is in milliseconds since 1970. An infinite time is text, and `null` in the entry. */
function isAtTime(_: string, said: unknown, ms: unknown): boolean {
  return typeof ms === 'number' ? Date.parse(String(said)) === Math.round(ms) : said === null
}

/**
 * True if two values are the same in JavaScript. The numbers of metadata may have more digits than JavaScript can distinguish, and
 * JSON that cannot be jsonb is in the trail as text. Owners are compared as text, because an app may change the type of its ids from
 * a number to text. No value and `null` are the same.
 */
function isSameTo(name: string, said: unknown, known: unknown): boolean {
  if (said === known || (said ?? null) === (known ?? null)) return true
  if (name === 'userId' || name === 'organizationId') return String(said) === String(known)
  const isJson = name === 'metadata' || name === 'limits' || name === 'resources'
  if (!isJson && (typeof said !== 'object' || typeof known !== 'object')) return false
  try {
    const [a, b] = [said, known].map((value): unknown =>
      typeof value === 'string' ? JSON.parse(value) : value,
    )
    return isSame(a, b) || canonical(a) === canonical(b)
  } catch {
    // Text that is no JSON, or values nested too deep for JavaScript.
    return false
  }
}
