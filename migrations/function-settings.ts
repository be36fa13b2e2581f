/**
 * The settings of all functions of ours, by name.
 *
 * Their search path is fixed, so that no role can replace a name in them. The server plans each of their statements once per connection,
 * for any values and often while the tables are empty. It would then read a whole table for each key until the next ANALYZE, so plans must
 * take an index. A plan that has none would seem expensive enough to be compiled.
 */
export const functionSettings = {
  search_path: 'pg_catalog, pg_temp',
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  jit: 'off',
}

/** SQL for the clauses of CREATE FUNCTION. */
export const functionSettingsSql = Object.entries(functionSettings)
  .map(([name, value]) => `SET ${name} = ${value}`)
  .join(' ')

/** SQL for `pg_proc.proconfig` of a function with these settings. */
export const functionConfigSql = `ARRAY[${Object.entries(functionSettings)
  .map((setting) => `'${setting.join('=')}'`)
  .join(', ')}]`
