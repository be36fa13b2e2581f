import { personalNames, shownNames, timeNames } from '../../models/audit-trail'
import { ownerColumns, type OwnerType } from '../../models/owner'
import { canonical, isPlainObject, isSame } from '../keys/metadata'
import type { Findings } from './faults'
import type { Row } from './read-trail'

/*
 * The story of a key is what its entries say of it, one after the other. Each entry must agree with the entries before it, and the row of
 * the key with them all.
 *
 * Any role that may write to the trail may have written any JSON, so values that are no objects are left out.
 */

/** The claims of the entries of a key, up to one of them. */
export type Story = ReturnType<typeof emptyStory>

/** A change of an attribute. */
type Change = [name: string, before: unknown, after: unknown]

const shown: ReadonlySet<string> = new Set(shownNames)

/** The values of an entry that tells of a key, in the order of its row. */
export const entryValues = [
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

/** Returns the story of a key before its first entry. */
export function emptyStory(apiKeyId: string) {
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
    /** The references of all entries. */
    refs: new Set<string>(),
  }
}

/** Begins with the last state of a key in its pruned entries. */
export function beginAt(story: Story, [, asOf = '', state = '']: Row) {
  const { isErased, ...values } = readObject(state)
  story.values = values
  story.isErased = isErased === true
  story.isBegun = true
  story.upTo = asOf
}

/** Adds an entry to the story of its key, and reports what does not agree. */
export function addEntry(findings: Findings, story: Story, entry: Row) {
  const [, id = '', ref = '', action = '', owner = '', ...texts] = entry
  const [beforeText, afterText, personalBefore, personalAfter, isErased] = texts
  if (story.refs.has(ref))
    findings.report('inserted', { eventId: id }, 'The entry repeats another one.')
  if (ref !== '') story.refs.add(ref)
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
export function compareRow(findings: Findings, story: Story, isGone: boolean, row?: Row) {
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
