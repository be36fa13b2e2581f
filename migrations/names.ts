import { literal, qualify } from '../models/names'
import type { Storage } from '../models/storage-options'
import { historyTable } from './history'

/*
 * Each step can be made again over what it has made before. A clean-up, a schema tool or a restore may have removed a part: a
 * table but not its functions, a trigger, a row, or the history that says that the step was made.
 */

/** Where the tables are made, once it is known what type `user_id` has. */
export interface StepStorage extends Omit<Storage, 'columnType'> {
  columnType?: string | undefined
}

/** The pieces that the SQL of a migration is put together from, quoted. */
export interface Names {
  /** The schema of our tables, as the app gave it. */
  schema: string
  /** The type of `user_id` in the table of keys, with its collation. */
  columnType: string
  /** The name of one of our tables, with its schema. */
  table(name: string): string
  /** SQL that makes a table and what belongs to it, unless it is there. It fails if the table that is there is not ours. */
  createTable(name: string, sql: string): string
  /** SQL that makes a sequence unless it is there. */
  createSequence(name: string): string
}

/**
 * The comment on each of our tables. It tells them from tables of the app that have the same names, if the history does not: a
 * dump may come without comments, and a clean-up may take the history.
 */
const mark = literal('Made by express-api-keys')

/** Makes the pieces of a step, and notes which tables and sequences are made with them. */
export function createNames(step: string, storage: StepStorage, tables: Set<string>): Names {
  const { schema, userIdType, columnType = userIdType } = storage
  const table = (name: string) => qualify(schema, name)
  const wasMade = `EXISTS (SELECT FROM ${table(historyTable)} WHERE name = ${literal(step)})`

  return {
    schema,
    columnType,
    table,

    createTable(name, sql) {
      tables.add(name)
      const found = `to_regclass(${literal(table(name))})`
      const refusal = literal(`relation "${name}" already exists`)

      return `
        ${unless(`${found} IS NOT NULL`, `${sql} COMMENT ON TABLE ${table(name)} IS ${mark};`)}
        ${unless(
          `obj_description(${found}, 'pg_class') IS NOT DISTINCT FROM ${mark} OR ${wasMade}`,
          `RAISE duplicate_table USING MESSAGE = ${refusal};`,
        )}`
    },

    createSequence(name) {
      tables.add(name)
      return `CREATE SEQUENCE IF NOT EXISTS ${table(name)};`
    },
  }
}

/** SQL that runs statements unless a condition holds. */
export function unless(condition: string, sql: string): string {
  return `
    DO $unless$
      BEGIN
        IF NOT (${condition}) THEN
          ${sql}
        END IF;
      END
    $unless$;`
}

/** SQL that adds columns, and what belongs to them, unless the first of them is there. */
export function addColumns(table: string, first: string, sql: string): string {
  return unless(hasColumn(table, first), `ALTER TABLE ${table} ${sql};`)
}

function hasColumn(table: string, column: string): string {
  return `EXISTS (
    SELECT FROM pg_catalog.pg_attribute
     WHERE attrelid = ${literal(table)}::regclass AND attname = ${literal(column)} AND NOT attisdropped
  )`
}

/** SQL that is true if a table has an index whose condition contains a text. Indexes have no names of ours. */
export function hasIndexWhere(table: string, text: string): string {
  return `EXISTS (
    SELECT FROM pg_catalog.pg_index
     WHERE indrelid = to_regclass(${literal(table)}) AND pg_get_expr(indpred, indrelid) LIKE ${literal(`%${text}%`)}
  )`
}
