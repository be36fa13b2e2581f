import { literal, qualify } from '../models/names'
import {
  historyTable,
  noteInHistory,
  prepareHistory,
  readHistory,
  removeFromHistory,
} from './history'
import { reasonOf, type Run } from './transaction'
import { createRoutines, dropRoutines, type Routine } from './routines'
import { createFunctions, createTriggers, dropFunctions, type Trigger } from './triggers'

/**
 * One change of the schema, as data. It can be made again over the parts of it that are there. A clean-up, a schema
 * tool or a restore may have removed single parts: a table but not its functions, a trigger, a row, or the history.
 */
export interface Step {
  readonly name: string
  /** The sequences that no column owns. */
  readonly sequences?: readonly string[]
  /** SQL for each table and its indexes, in the order in which they are made. */
  readonly tables: Readonly<Record<string, string>>
  readonly triggers?: readonly Trigger[]
  /** The functions that statements of the library call. */
  readonly routines?: readonly Routine[]
  /** The tables that need a row. If they have none, they get a row of defaults, in this order. */
  readonly neverEmpty?: readonly string[]
  /** SQL that runs once all tables and triggers of all steps are there. */
  readonly finish?: string
}

/** Returns the names of the tables and sequences that steps make, and of their history. */
export function relationsOf(steps: readonly Step[]): string[] {
  const made = steps.flatMap(({ sequences = [], tables }) => [...sequences, ...Object.keys(tables)])
  return [historyTable, ...made]
}

/**
 * Makes steps, over the parts of them that are there, and notes them in the history. Rows come last: once a row has queued a
 * deferred trigger, no statement may replace that trigger.
 *
 * @throws {Error} that says what is in the way
 */
export async function makeSteps(run: Run, schema: string, steps: readonly Step[]) {
  const triggers = steps.flatMap((step) => step.triggers ?? [])
  try {
    await prepareHistory(run, schema)
    await run(`
      ${steps.map((step) => createRelations(schema, step)).join('')}
      ${createFunctions(triggers)}
      ${createTriggers(triggers)}
      ${createRoutines(steps.flatMap((step) => step.routines ?? []))}
      ${steps.map((step) => createRows(schema, step)).join('')}`)
    for (const { name } of steps) await noteInHistory(run, schema, name)
  } catch (error) {
    throw explainFailure(error, schema)
  }
}

/** Undoes the steps that the history has, the last of them first. */
export async function undoSteps(run: Run, schema: string, steps: readonly Step[]) {
  const history = await readHistory(run, schema)
  const made = steps.filter(({ name }) => history.has(name))
  for (const step of made.toReversed()) {
    const { sequences = [], tables, triggers = [], routines = [] } = step
    const named = (names: readonly string[]) =>
      names.map((name) => qualify(schema, name)).join(', ')
    await run(`
      DROP TABLE IF EXISTS ${named(Object.keys(tables))};
      ${dropFunctions(triggers)}
      ${dropRoutines(routines)}
      ${sequences.length > 0 ? `DROP SEQUENCE IF EXISTS ${named(sequences)};` : ''}`)
    await removeFromHistory(run, schema, step.name)
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

/**
 * The comment on each of our tables. It distinguishes them from tables of the app with the same names. So does the history: a
 * dump may come without comments, and a clean-up may take the history.
 */
const mark = literal('Made by express-api-keys')

function createRelations(schema: string, { name: step, sequences = [], tables }: Step): string {
  const wasMade = `EXISTS (SELECT FROM ${qualify(schema, historyTable)} WHERE name = ${literal(step)})`
  const created = Object.entries(tables).map(([name, sql]) => {
    const table = qualify(schema, name)
    const found = `to_regclass(${literal(table)})`
    return (
      unless(`${found} IS NOT NULL`, `${sql} COMMENT ON TABLE ${table} IS ${mark};`) +
      unless(
        `obj_description(${found}, 'pg_class') IS NOT DISTINCT FROM ${mark} OR ${wasMade}`,
        `RAISE duplicate_table USING MESSAGE = ${literal(`relation "${name}" already exists`)};`,
      )
    )
  })
  return [
    ...sequences.map((name) => `CREATE SEQUENCE IF NOT EXISTS ${qualify(schema, name)};`),
    ...created,
  ].join('')
}

function createRows(schema: string, { neverEmpty = [], finish = '' }: Step): string {
  const rows = neverEmpty.map((name) => {
    const table = qualify(schema, name)
    return unless(`EXISTS (SELECT FROM ${table})`, `INSERT INTO ${table} DEFAULT VALUES;`)
  })
  return `${rows.join('')}${finish}`
}

function explainFailure(error: unknown, schema: string): unknown {
  const { code, message } = reasonOf(error)
  switch (code) {
    // A table, a type or a function has the name of one of ours.
    case '42P07':
    case '42710':
    case '42P13':
    case '42809':
      return new Error(
        `migrate: ${message} in the schema "${schema}", and it is not ours. It was left ` +
          'as it is. Give our tables a schema of their own with the option "schema".',
        { cause: error },
      )
    case '42501':
      return new Error(
        `migrate: this role may not make or mend our tables in the schema "${schema}" (${message}). Call migrate() as the owner ` +
          'of the tables, or as a role that may create tables there.',
        { cause: error },
      )
    default:
      return error
  }
}
