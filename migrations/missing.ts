import { qualify } from '../models/names'
import { relationsOf, type Step } from './step'
import type { Run } from './transaction'
import { alteredRoutinesSql } from './routines'
import { alteredTriggersSql } from './triggers'

/** The things that the steps make and the database does not have. */
export interface Missing {
  /** Tables and sequences. */
  relations: string[]
  /** Triggers and functions that are gone, switched off, or altered. They are not looked for if a table is missing. */
  triggers: string[]
  /** True if a table is empty that must not be. */
  isRow: boolean
}

/** Returns the parts of the steps that the database does not have. It needs no right but to read. */
export async function findMissing(
  run: Run,
  schema: string,
  steps: readonly Step[],
): Promise<Missing> {
  const relations = relationsOf(steps)
  const found = await run(
    `SELECT class.relname AS name, has_table_privilege(class.oid, 'SELECT') AS "isReadable"
       FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE namespace.nspname = $1 AND class.relname = ANY($2)`,
    [schema, relations],
  )
  const readable = new Map(found.map(({ name, isReadable }) => [name, isReadable]))
  const missing = relations.filter((name) => !readable.has(name))
  if (missing.length > 0) return { relations: missing, triggers: [], isRow: false }

  const triggers = steps.flatMap((step) => step.triggers ?? [])
  const routines = steps.flatMap((step) => step.routines ?? [])
  const altered = await run(
    `${alteredTriggersSql(triggers)} UNION ALL ${alteredRoutinesSql(routines)}`,
  )
  const conditions = steps
    .flatMap(({ neverEmpty = [] }) => neverEmpty)
    .filter((name) => readable.get(name))
    .map((name) => `NOT EXISTS (SELECT FROM ${qualify(schema, name)})`)
  const empty = await run(`SELECT 1 WHERE ${['false', ...conditions].join(' OR ')}`)
  return {
    relations: [],
    triggers: altered.map(({ name }) => String(name)),
    isRow: empty.length > 0,
  }
}
