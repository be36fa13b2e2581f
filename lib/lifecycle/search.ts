import { endSql, isOfPrefixes, keySql, msSql, timeOfParameter } from '../../models/api-key'
import { selectJson } from '../database/query'
import { formatKeyCursor, type KeyPosition, type Sort, type SortName } from '../keys/cursor'
import type { KeyFilter, ManyFilter } from '../keys/input'
import type { Parts } from './calls'
import { textConditions } from './search-text'
import { isOf, readRecord, type Condition, type Scope } from './store'

/** Keys that a statement has found. */
interface Reading {
  /** Their JSON, their ids, and their values in the order of the list. */
  found: { json: string; id: string; value: string }[]
  /** How many keys the statement looked at. */
  seen: number
  /** The place of the last of these keys; `null` if none comes after it. */
  last: { id: string; value: string } | null
}

/** How many keys a statement looks at for one page. A search for text takes about 30 times as long per key. */
const keysAtOnce = { text: 400, other: 1_000 }

/** The most keys that are sorted for a page. */
const maxSorted = 20_000

/** SQL for what keys are sorted by. Only the time of creation is in an index together with the key prefix. */
const sortSql: Record<SortName, string> = {
  createdAt: 'key.created_at',
  name: 'key.name',
  // Keys without a use come first, and keys without an expiry come last.
  lastUsedAt: `coalesce(${msSql('key.last_used_at')}, 0)`,
  expiresAt: `coalesce(${msSql('key.expires_at')}, 'Infinity')`,
}

/** Lists keys a page at a time, in time that does not grow with the number of keys. */
export async function list(parts: Parts, filter: KeyFilter, { transaction }: Scope) {
  const { limit, sort, owner } = filter
  const { found, last } = await parts.inTurn({ owner, transaction }, () =>
    find({ ...parts, filter, transaction }),
  )
  const shown = found.slice(0, limit)
  const end = found.length > limit ? shown.at(-1) : last
  return {
    apiKeys: shown.map(({ json }) => readRecord(parts, JSON.parse(json))),
    nextCursor: end ? formatKeyCursor({ sort, value: end.value, id: end.id }) : null,
  }
}

/** A list that was asked for. */
interface Search extends Pick<
  Parts,
  'sequelize' | 'tables' | 'environments' | 'format' | 'imported' | 'permissions' | 'idleMs'
> {
  filter: KeyFilter
  transaction: Scope['transaction']
}

/**
 * Finds the keys of a page. If an index has the keys in order, they are read in that order. Otherwise the next keys are
 * looked through, which finds what many keys have. Then an index without an order finds what few keys have. If neither
 * makes a full page, the page has the keys that were found among the next keys.
 */
async function find(search: Search): Promise<Reading> {
  const { owner, createdBy, isExpired, permission, text, status = [], limit } = search.filter
  const isIndexed =
    (owner ?? createdBy) !== undefined ||
    (isExpired === undefined && !permission && !text && status.length <= 1)
  const { bind, fixed, sought, order } = conditionsOf(search)
  const inOrder = `ORDER BY ${order}`
  if (isIndexed) {
    const selected = selectedSql(search, `${fixed} AND ${sought}`, `${inOrder} LIMIT ${limit + 1}`)
    return { ...(await readPage(search, selected, bind)), last: null }
  }

  const most = text ? keysAtOnce.text : keysAtOnce.other
  const looked = selectedSql(search, fixed, `${inOrder} LIMIT ${most}`)
  const next = await readPage(search, looked, bind, sought)
  if (next.seen < most) return { ...next, last: null }
  if (next.found.length > limit) return next

  // Without the sum, the server would walk the index on the time through all keys.
  const few = conditionsOf(search, `key.created_at + interval '0'`)
  const selected = selectedSql(search, `${few.fixed} AND ${few.sought}`, `LIMIT ${maxSorted + 1}`)
  const reading = await readPage(search, selected, few.bind)
  return reading.seen > maxSorted ? next : { ...reading, last: null }
}

/** Reads a page of the keys that a statement selects and for which `where` is true. */
async function readPage(
  search: Search,
  selected: string,
  bind: unknown[],
  where = 'true',
): Promise<Reading> {
  const { sequelize, tables, filter, transaction } = search
  const { limit, sort } = filter
  const { order, value } = orderOf(sort)
  const [reading] = await selectJson<[Reading]>(
    sequelize,
    `WITH selected AS MATERIALIZED (${selected}),
          found AS (
            SELECT ${keySql(tables, 'key')} AS json, key.id, (${value})::text AS value,
                   row_number() OVER (ORDER BY ${order}) AS place
              FROM selected AS key WHERE ${where} ORDER BY ${order} LIMIT ${limit + 1}
          )
     SELECT pg_catalog.json_build_object(
              'found', (SELECT coalesce(pg_catalog.json_agg(found ORDER BY place), '[]') FROM found),
              'seen', (SELECT count(*) FROM selected),
              'last', (
                SELECT pg_catalog.json_build_object('id', key.id, 'value', (${value})::text)
                  FROM selected AS key ORDER BY ${orderOf(opposite(sort)).order} LIMIT 1
              )
            )::text AS json`,
    { bind, transaction: transaction ?? null },
  )
  return reading
}

/**
 * SQL that selects the keys for which `where` is true, with clauses such as LIMIT. Keys of each prefix are selected by themselves, because
 * the server reads only keys of one prefix in the order of an index.
 */
function selectedSql(search: Search, where: string, clauses: string): string {
  const selections = prefixesOf(search).map((prefix) => {
    const isOwn = isOfPrefixes('key', [prefix])
    return `(SELECT key.* FROM ${search.tables.keys} AS key WHERE ${isOwn} AND ${where} ${clauses})`
  })
  const [first = '', ...others] = selections
  if (others.length === 0) return first
  return `SELECT key.* FROM (${selections.join(' UNION ALL ')}) AS key ${clauses}`
}

/** Returns the prefixes of the keys among which a filter selects. */
function prefixesOf({ environments, filter }: Pick<Search, 'environments' | 'filter'>) {
  const { environment } = filter
  return environment === undefined
    ? environments.keyPrefixes
    : environments.ofNewKey(filter).keyPrefixes
}

/** Returns the condition for the keys of a filter. */
export function conditionOf(parts: Parts, filter: ManyFilter): Condition {
  const search = { ...parts, filter: { ...filter, sort: '-createdAt', limit: 1 } as const }
  const { bind, fixed, sought } = conditionsOf(search)
  const isOwn = isOfPrefixes('key', prefixesOf(search))
  return { where: `${isOwn} AND ${fixed} AND ${sought}`, bind }
}

/** Returns the conditions of a list: `fixed` are in an index in the order of the list, `sought` are not. */
function conditionsOf(
  {
    filter,
    permissions,
    idleMs,
    ...parts
  }: Pick<Search, 'filter' | 'format' | 'imported' | 'permissions' | 'idleMs'>,
  time = sortSql.createdAt,
) {
  const {
    owner,
    createdBy,
    environment,
    status = [],
    isExpired,
    permission,
    text,
    cursor,
    sort,
  } = filter
  const bind: unknown[] = []
  const fixed = ['true']
  const sought = ['true']

  if (owner) fixed.push(isOf(owner, bind.push(owner.id)))
  if (createdBy !== undefined) fixed.push(`key.created_by = $${bind.push(createdBy)}`)
  if (environment !== undefined) {
    const isNamed = `key.environment = $${bind.push(environment)}`
    fixed.push(`(key.environment IS NULL OR ${isNamed})`)
  }
  if (status.length === 1) fixed.push(`key.status = $${bind.push(status[0])}`)
  if (status.length > 1) sought.push(`key.status = ANY ($${bind.push(status)}::text[])`)
  if (isExpired !== undefined) {
    const end = endSql('key', idleMs)
    const isOver = `${end} IS NOT NULL AND ${end} <= ${timeOfParameter(bind.push(Date.now()))}`
    sought.push(isExpired ? isOver : `NOT (${isOver})`)
  }
  if (permission) {
    sought.push(`key.permissions && $${bind.push(permissions.namesGiving(permission))}::text[]`)
  }
  if (text) sought.push(...textConditions(text, parts, bind))
  if (cursor) fixed.push(isBehind(cursor, time, bind))
  const { order } = orderOf(sort)
  return { bind, fixed: fixed.join(' AND '), sought: sought.join(' AND '), order }
}

/** Returns SQL for the order of a list, and for the value in a cursor. */
function orderOf(sort: Sort): { order: string; value: string } {
  const [name, direction] = partsOfSort(sort)
  const value = name === 'createdAt' ? msSql('key.created_at') : sortSql[name]
  return { order: `${sortSql[name]} ${direction}, key.id ${direction}`, value }
}

function partsOfSort(sort: Sort): [SortName, 'ASC' | 'DESC'] {
  // A sort without its sign is a name.
  return sort.startsWith('-') ? [sort.slice(1) as SortName, 'DESC'] : [sort as SortName, 'ASC']
}

function opposite(sort: Sort): Sort {
  const [name, direction] = partsOfSort(sort)
  return direction === 'ASC' ? `-${name}` : name
}

/** Returns SQL that is true for the keys behind a position. */
function isBehind({ sort, value, id }: KeyPosition, time: string, bind: unknown[]): string {
  const [name, direction] = partsOfSort(sort)
  const parameter = bind.push(value)
  const [left, right] =
    name === 'createdAt'
      ? [time, timeOfParameter(parameter)]
      : [sortSql[name], `$${parameter}::${name === 'name' ? 'text' : 'numeric'}`]
  return `(${left}, key.id) ${direction === 'ASC' ? '>' : '<'} (${right}, $${bind.push(id)}::uuid)`
}
