import { createHash } from 'node:crypto'

import { literal } from '../models/names'
import { functionConfigSql, functionSettingsSql } from './function-settings'

/** A function of ours that statements of the library call. */
export interface Routine {
  /** Qualified and quoted. */
  name: string
  /** The names and types of its parameters. */
  parameters: Readonly<Record<string, string>>
  returns: string
  /** In PL/pgSQL. */
  body: string
}

/**
 * SQL that creates functions. They run with the rights of their caller, so every role may call them. A role can do
 * nothing by them that its rights on the tables forbid.
 */
export function createRoutines(routines: readonly Routine[]): string {
  return routines
    .map((routine) => {
      const parameters = Object.entries(routine.parameters).map((parameter) => parameter.join(' '))
      return `
      CREATE OR REPLACE FUNCTION ${routine.name}(${parameters.join(', ')}) RETURNS ${routine.returns}
        LANGUAGE plpgsql VOLATILE SECURITY INVOKER ${functionSettingsSql} AS $function$${routine.body}$function$;
      GRANT EXECUTE ON FUNCTION ${signatureOf(routine)} TO PUBLIC;`
    })
    .join('')
}

/** SQL that drops functions. */
export function dropRoutines(routines: readonly Routine[]): string {
  return routines.map((each) => `DROP FUNCTION IF EXISTS ${signatureOf(each)};`).join('')
}

/** SQL for the names of the functions that are missing, or not as `createRoutines` made them. */
export function alteredRoutinesSql(routines: readonly Routine[]): string {
  const rows = routines.map((routine) => {
    const body = createHash('md5').update(routine.body).digest('hex')
    return `(${[routine.name, signatureOf(routine), body].map(literal).join(', ')})`
  })
  return `
    SELECT made.name FROM (VALUES ${rows.join(', ')}) AS made (name, signature, body)
     WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_proc AS function
        WHERE function.oid = to_regprocedure(made.signature) AND md5(function.prosrc) = made.body AND NOT function.prosecdef
          AND function.provolatile = 'v' AND function.proconfig = ${functionConfigSql}
     )`
}

function signatureOf({ name, parameters }: Routine): string {
  return `${name}(${Object.values(parameters).join(', ')})`
}
