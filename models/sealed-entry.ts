import { eventColumns } from './api-key-event'

/*
 * A seal covers the digest of an entry. Personal values stand in it by digests of their own, one for each group of columns that is
 * erased together:
 *
 *   digest of a group = SHA-256(16 bytes of salt, the values of the group)
 *   digest            = SHA-256(the other columns, the digests of the groups)
 *
 * To erase a group, its values and its salt are removed, and its digest is kept in `erased`. So the digest of the entry stays as it was
 * sealed, and says nothing about the values, because the salt cannot be guessed. A digest of many rows as they are vouches for entries
 * that were not erased.
 *
 * `record_send` writes the length of each value before it, so no two entries have one form, and no setting of the session changes it.
 * Free text is converted first, because its form depends on the encoding of the client.
 */

/** The columns of an entry that hold personal values, in groups that are erased together. */
export const personalGroups = [
  ['owner_id'],
  ['former_owner_id'],
  ['actor_id', 'address'],
  ['reason', 'personal_before', 'personal_after'],
] as const

/** How many bytes of the salt a group has. */
const saltBytes = 16

/** How many bytes of salt an entry has. */
export const saltLength = saltBytes * personalGroups.length

/** SQL for a new salt. An entry of a trigger has it by default. */
export const newSaltSql = personalGroups.map(() => 'uuid_send(gen_random_uuid())').join(' || ')

const personal = new Set<string>(personalGroups.flat())

const openColumns = ['ref', ...Object.values(eventColumns), 'entry_mac', 'created_at'].filter(
  (column) => !personal.has(column),
)

/** The other columns that may hold any character. */
const freeColumns = new Set(['before', 'after'])

/**
 * SQL for the values of a group as one text, from which they can be read again. JSON has no such character as stands between its values.
 * Functions that take rows are several times as slow.
 */
const textsOfGroups = [
  (event: string) => `${event}.owner_id`,
  (event: string) => `${event}.former_owner_id`,
  (event: string) =>
    `pg_catalog.concat(length(${event}.actor_id), ':', ${event}.actor_id, ':' || ${event}.address)`,
  (event: string) =>
    `pg_catalog.concat(${event}.personal_before, E'\\x1e', ${event}.personal_after, E'\\x1e' || ${event}.reason)`,
]

/** SQL for the part of the salt of an entry that a group has. */
export function saltSql(event: string, group: number): string {
  return `substring(${event}.salt FROM ${1 + group * saltBytes} FOR ${saltBytes})`
}

/**
 * SQL for the digest of a group: of its values, or the digest that was kept when they were erased. It is NULL for a group that never had
 * a value, and empty for a group that has both values and a kept digest.
 */
export function groupDigestSql(event: string, group: number): string {
  const columns = (personalGroups[group] ?? []).map((column) => `${event}.${column}`)
  const [isEmpty] =
    columns.length === 1
      ? columns
      : [`coalesce(${columns.map((column) => `${column}::text`).join(', ')})`]
  const kept = `${event}.erased[${group + 1}]`
  return `CASE WHEN ${isEmpty} IS NULL THEN ${kept}
         WHEN ${kept} IS NULL THEN sha256(${saltSql(event, group)} || pg_catalog.convert_to(${textsOfGroups[group]?.(event)}, 'UTF8'))
         ELSE '' END`
}

/** SQL for the digest of everything that an entry says, except its id, in hexadecimal. */
export function entryDigestSql(event: string): string {
  const values = openColumns.map((column) =>
    freeColumns.has(column)
      ? `pg_catalog.convert_to(${event}.${column}::text, 'UTF8')`
      : `${event}.${column}`,
  )
  const groups = personalGroups.map((_, group) => groupDigestSql(event, group))
  return `encode(sha256(record_send(ROW(${[...values, ...groups].join(', ')}))), 'hex')`
}

/**
 * SQL for the row of an entry in one binary text, its salt included. It takes a quarter of the time of the digest, but is another one
 * once personal values are erased, and in a session whose client has another encoding.
 */
export function entryRowSql(event: string): string {
  const columns = ['id', 'salt', ...openColumns, ...personal].map((column) => `${event}.${column}`)
  return `record_send(ROW(${columns.join(', ')}))`
}

/** SQL for the salt of an entry without the parts of the groups for which a condition is true. */
export function keptSaltSql(event: string, isErased: (group: number) => string): string {
  const parts = personalGroups.map(
    (_, group) =>
      `CASE WHEN ${isErased(group)} THEN decode(repeat('00', ${saltBytes}), 'hex') ELSE ${saltSql(event, group)} END`,
  )
  return parts.join(' || ')
}
