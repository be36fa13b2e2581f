import type { Sequelize, Transaction } from 'sequelize'

import { keySql, msSql, searchSql, timeOfParameter } from '../../models/api-key'
import { select } from '../../models/statements'
import { formatKeyCursor, type KeyPosition, type Sort, type SortName } from '../keys/cursor'
import type { KeyFilter } from '../keys/input'
import type { ApiKeyRecord } from '../keys/record'

interface KeyListParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  keyPrefix: string
  /** SQL that is true for the instance's own keys. */
  isOwn: string
  readRecord(json: string): ApiKeyRecord
}

/** A key that was found, and the place that it has in the order. */
interface Found {
  json: string
  id: string
  value: string
}

interface Reading {
  found: Found[]
  /** How many keys were looked at. */
  seen: number
  /** The place of the last of them; `null` if no more come behind. */
  last: { id: string; value: string } | null
}

/** Keys of which a page is sought among the next ones: to look at a text takes about 30 times as long. */
const keysAtOnce = { text: 400, other: 1_000 }

/** Of so many keys that fit, a page is sorted out. */
const mostSorted = 20_000

/** In SQL, what keys are sorted by. Only the time of creation is in an index together with the key prefix. */
const sortSql: Record<SortName, string> = {
  createdAt: 'key.created_at',
  name: 'key.name',
  // Keys that were never used are the longest unused, and keys without an end expire last.
  lastUsedAt: `coalesce(${msSql('key.last_used_at')}, 0)`,
  expiresAt: `coalesce(${msSql('key.expires_at')}, 'Infinity')`,
}

/** Makes the function that lists keys a page at a time. */
export function createKeyList({ sequelize, table, keyPrefix, isOwn, readRecord }: KeyListParts) {
  /**
   * Lists keys in time that does not grow with their number. What an index finds in order is read in that order. Otherwise a
   * page is sought among the next keys, which finds what many keys have; then by an index that knows no order, which finds
   * what few have. If neither makes a full page, the page is what was found among the next keys.
   */
  return async function list(
    filter: KeyFilter,
    { transaction }: { transaction?: Transaction | undefined } = {},
  ) {
    const { limit, sort } = filter
    const { found, last } = await read(filter, transaction ?? null)
    const shown = found.slice(0, limit)
    const end = found.length > limit ? shown.at(-1) : last
    return {
      apiKeys: shown.map(({ json }) => readRecord(json)),
      nextCursor: end ? formatKeyCursor({ sort, value: end.value, id: end.id }) : null,
    }
  }

  async function read(filter: KeyFilter, transaction: Transaction | null) {
    const { userId, isExpired, permission, text, status = [] } = filter
    const isIndexed =
      userId !== undefined ||
      (isExpired === undefined && !permission && !text && status.length <= 1)
    if (isIndexed) return readAll(filter, transaction)

    const next = await readNext(filter, text ? keysAtOnce.text : keysAtOnce.other, transaction)
    if (next.last === null || next.found.length > filter.limit) return next
    const few = await readFew(filter, transaction)
    return few.seen > mostSorted ? next : few
  }

  async function readAll(filter: KeyFilter, transaction: Transaction | null): Promise<Reading> {
    const { bind, fixed, sought, order } = partsOf(filter)
    const reading = await readPage(
      `SELECT key.* FROM ${table} AS key WHERE ${[isOwn, ...fixed, ...sought].join(' AND ')}
        ORDER BY ${order} LIMIT ${filter.limit + 1}`,
      { filter, where: 'true', bind, transaction },
    )
    return { ...reading, last: null }
  }

  async function readNext(filter: KeyFilter, most: number, transaction: Transaction | null) {
    const { bind, fixed, sought, order } = partsOf(filter)
    const reading = await readPage(
      `SELECT key.* FROM ${table} AS key WHERE ${[isOwn, ...fixed].join(' AND ')}
        ORDER BY ${order} LIMIT ${most}`,
      { filter, where: sought.join(' AND '), bind, transaction },
    )
    return reading.seen < most ? { ...reading, last: null } : reading
  }

  async function readFew(filter: KeyFilter, transaction: Transaction | null) {
    // The index on the time would be walked through all keys for one that few are.
    const { bind, fixed, sought } = partsOf(filter, `key.created_at + interval '0'`)
    const reading = await readPage(
      `SELECT key.* FROM ${table} AS key WHERE ${[isOwn, ...fixed, ...sought].join(' AND ')}
        LIMIT ${mostSorted + 1}`,
      { filter, where: 'true', bind, transaction },
    )
    return { ...reading, last: null }
  }

  /** Reads a page of the keys that a statement selects. */
  async function readPage(
    selected: string,
    { filter, where, bind, transaction }: PageOptions,
  ): Promise<Reading> {
    const { limit, sort } = filter
    const { order, value } = orderOf(sort)
    const [row] = await select<{ json: string }>(
      sequelize,
      `WITH selected AS MATERIALIZED (${selected}),
            found AS (
              SELECT ${keySql('key')} AS json, key.id, (${value})::text AS value,
                     row_number() OVER (ORDER BY ${order}) AS place
                FROM selected AS key WHERE ${where} ORDER BY ${order} LIMIT ${limit + 1}
            )
       SELECT json_build_object(
                'found', (SELECT coalesce(json_agg(found ORDER BY place), '[]') FROM found),
                'seen', (SELECT count(*) FROM selected),
                'last', (
                  SELECT json_build_object('id', key.id, 'value', (${value})::text)
                    FROM selected AS key ORDER BY ${orderOf(opposite(sort)).order} LIMIT 1
                )
              )::text AS json`,
      { bind, transaction },
    )
    // Of the shape that the statement makes.
    return JSON.parse(row?.json ?? '') as Reading
  }

  /** The conditions: those that an index in the order of the list has, and others. */
  function partsOf(filter: KeyFilter, time = sortSql.createdAt) {
    const { userId, status = [], isExpired, permission, text, cursor, sort } = filter
    const bind: unknown[] = []
    const fixed: string[] = []
    const sought: string[] = []

    if (userId !== undefined) fixed.push(`key.user_id = $${bind.push(userId)}`)
    if (status.length === 1) fixed.push(`key.status = $${bind.push(status[0])}`)
    if (status.length > 1) sought.push(`key.status = ANY ($${bind.push(status)}::text[])`)
    if (isExpired !== undefined) {
      const isOver = `key.expires_at IS NOT NULL AND key.expires_at <= ${timeOfParameter(bind.push(Date.now()))}`
      sought.push(isExpired ? isOver : `NOT (${isOver})`)
    }
    if (permission) sought.push(`key.permissions @> $${bind.push([permission])}`)
    if (text) sought.push(`${searchSql('key.')} @@ ${queryOf(text, bind)}`)
    if (cursor) fixed.push(isBehind(cursor, time, bind))
    return { bind, fixed, sought, order: orderOf(sort).order }
  }

  /** SQL for a query of all words of a text, each as the start of one. */
  function queryOf(text: string, bind: unknown[]): string {
    const words = text.split(/\s+/)
    const start = `${keyPrefix}_`
    // As much of a key as lists show of it.
    const keys = words.filter((word) => word.startsWith(start))
    const shown = keys.map((key) => key.slice(0, start.length + 6))
    const others = words.filter((word) => !word.startsWith(start))
    const queries = [
      ...(shown.length > 0 ? [`$${bind.push(toPrefixQuery(shown))}::tsquery`] : []),
      ...(others.length > 0
        ? [`to_tsquery('pg_catalog.simple', $${bind.push(toPrefixQuery(others))})`]
        : []),
    ]
    return `(${queries.join(' && ')})`
  }
}

interface PageOptions {
  filter: KeyFilter
  where: string
  bind: unknown[]
  transaction: Transaction | null
}

/** SQL for the order of a list, and for the value in a cursor. */
function orderOf(sort: Sort): { order: string; value: string } {
  const [name, direction] = partsOfSort(sort)
  const value = name === 'createdAt' ? msSql('key.created_at') : sortSql[name]
  return { order: `${sortSql[name]} ${direction}, key.id ${direction}`, value }
}

function partsOfSort(sort: Sort): [SortName, 'ASC' | 'DESC'] {
  // What is left of a sort without its sign is a name.
  return sort.startsWith('-') ? [sort.slice(1) as SortName, 'DESC'] : [sort as SortName, 'ASC']
}

function opposite(sort: Sort): Sort {
  const [name, direction] = partsOfSort(sort)
  return direction === 'ASC' ? `-${name}` : name
}

/** SQL that is true for the keys behind a position. */
function isBehind({ sort, value, id }: KeyPosition, time: string, bind: unknown[]): string {
  const [name, direction] = partsOfSort(sort)
  const parameter = bind.push(value)
  const [left, right] =
    name === 'createdAt'
      ? [time, timeOfParameter(parameter)]
      : [sortSql[name], `$${parameter}::${name === 'name' ? 'text' : 'numeric'}`]
  return `(${left}, key.id) ${direction === 'ASC' ? '>' : '<'} (${right}, $${bind.push(id)}::uuid)`
}

function toPrefixQuery(words: readonly string[]): string {
  return words
    .map((word) => `'${word.replaceAll('\\', '\\\\').replaceAll("'", "''")}':*`)
    .join(' & ')
}
