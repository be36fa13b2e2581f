import { literal } from '../models/names'

/**
 * SQL that has the audit trail be held against this condition from now on, in place of what checks there are of exactly
 * these columns; without one, against none. What the trail has, it keeps. The constraints are found by what they are of, as
 * their names were Postgres's to give. Where there is no trail, as when migrations are undone, nothing happens.
 */
export function replaceChecks(
  events: string,
  columns: readonly string[],
  condition?: string,
): string {
  return `
    DO $checks$
      DECLARE
        trail regclass := to_regclass(${literal(events)});
        name text;
      BEGIN
        IF trail IS NULL THEN
          RETURN;
        END IF;
        FOR name IN
          SELECT conname FROM pg_catalog.pg_constraint
           WHERE conrelid = trail AND contype = 'c' AND conkey @> (
             SELECT array_agg(attnum) FROM pg_catalog.pg_attribute
              WHERE attrelid = trail AND attname IN (${columns.map(literal).join(', ')})
           ) AND cardinality(conkey) = ${columns.length}
        LOOP
          EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', trail, name);
        END LOOP;
        ${condition === undefined ? '' : `ALTER TABLE ${events} ADD CHECK (${condition}) NOT VALID;`}
      END
    $checks$;`
}

/** The condition of a column that takes these texts and no others. */
export function isOneOf(column: string, texts: readonly string[]): string {
  return `${column} IN (${texts.map(literal).join(', ')})`
}
