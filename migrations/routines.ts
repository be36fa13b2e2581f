import { createHash } from 'node:crypto'

import { literal } from '../models/names'

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
 * The settings of the functions. With plans for any values, the server plans each statement once per connection. Plans for the values
 * of a call took a fifth of the time of a creation.
 */
const settings = { search_path: 'pg_catalog, pg_temp', plan_cache_mode: 'force_generic_plan' }

/**
 * SQL that creates functions. They run with the rights of their caller, so every role may call them. A role can do
 * nothing by them that its rights on the tables forbid. Their search path is fixed, so that no role can replace a name
 * in them.
 */
export function createRoutines(routines: readonly Routine[]): string {
  return routines
    .map((routine) => {
      const parameters = Object.entries(routine.parameters).map((parameter) => parameter.join(' '))
      const set = Object.entries(settings).map(([name, value]) => `SET ${name} = ${value}`)
      return `
      CREATE OR REPLACE FUNCTION ${routine.name}(${parameters.join(', ')}) RETURNS ${routine.returns}
        LANGUAGE plpgsql VOLATILE SECURITY INVOKER ${set.join(' ')} AS $function$${routine.body}$function$;
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
  const config = Object.entries(settings).map((setting) => literal(setting.join('=')))
  return `
    SELECT made.name FROM (VALUES ${rows.join(', ')}) AS made (name, signature, body)
     WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_proc AS function
        WHERE function.oid = to_regprocedure(made.signature) AND md5(function.prosrc) = made.body AND NOT function.prosecdef
          AND function.provolatile = 'v' AND function.proconfig = ARRAY[${config.join(', ')}]
     )`
}

function signatureOf({ name, parameters }: Routine): string {
  return `${name}(${Object.values(parameters).join(', ')})`
}
