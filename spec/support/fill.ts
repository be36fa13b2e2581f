import type { Sequelize } from 'sequelize'

/**
 * Runs statements on the table of keys with its triggers off, all in one transaction. Many thousand rows are there in an instant
 * then, without entries in the log of changes and in the audit trail.
 */
export async function withoutTriggers(sequelize: Sequelize, sql: string) {
  await sequelize.query(`
    BEGIN;
    ALTER TABLE api_keys DISABLE TRIGGER USER;
    ${sql};
    ${enableTriggers};
    COMMIT`)
}

/** A trigger is enabled for all sessions only by its name. */
export const enableTriggers = `
  DO $$
    DECLARE name text;
    BEGIN
      FOR name IN SELECT tgname FROM pg_trigger
                   WHERE tgrelid = 'api_keys'::regclass AND NOT tgisinternal LOOP
        EXECUTE format('ALTER TABLE api_keys ENABLE ALWAYS TRIGGER %I', name);
      END LOOP;
    END
  $$`
