import { changeLogOf } from '../models/change-log'
import { gatherFunctions } from './change-log-functions'
import { userTriggers } from './change-log-triggers'
import { defineMigration } from './migration'
import { createFunctions, createTriggers, dropFunctions } from './triggers'

/**
 * Has the log tell of users, too, whose permissions have changed. A row for `api_key_user_changes` is taken down as a change
 * of the transaction that inserts it, and goes no further: the table stays empty. So a trigger on the app's own users or
 * roles can tell of them in plain SQL, and needs no right but the one to insert.
 */
export const logUserChanges = defineMigration(
  '0007-log-user-changes',
  ({ schema, createTable }) => {
    const { userChanges } = changeLogOf(schema)
    const { gatherUser } = gatherFunctions(schema)

    return {
      // Without a foreign key, so that a user who is deleted can be told of. Logical replication demands a primary key.
      up: `
        ${createTable(
          'api_key_user_changes',
          `
        CREATE TABLE ${userChanges} (
          user_id text,
          id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
        );`,
        )}
        ${createFunctions([gatherUser])}
        ${createTriggers(userTriggers(schema))}
      `,
      down: `
        DROP TABLE IF EXISTS ${userChanges};
        ${dropFunctions([gatherUser])}
      `,
    }
  },
)
