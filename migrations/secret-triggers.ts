import { qualify } from '../models/names'
import type { Tables } from '../models/tables'
import { changesAny, type Trigger } from './triggers'

/**
 * Returns the triggers that keep the hashes of all secrets unique, and that delete the retired secrets and the salt of a deleted key. They
 * are silent in a session that replicates, because it receives the rows of both tables from the other server.
 */
export function secretTriggers(tables: Tables): Trigger[] {
  const { schema, keys, retiredSecrets: retired } = tables
  const unique = {
    isSilentInReplica: true,
    calls: { name: qualify(schema, 'api_key_keep_hashes_unique'), body: keepUniqueBody(tables) },
  }
  const onDelete = {
    isSilentInReplica: true,
    table: keys,
    calls: { name: qualify(schema, 'api_key_delete_retired_secrets'), body: deleteBody(tables) },
  }
  // Fires after the statement, because one statement of a rotation moves a hash between the two tables.
  const onInsert = {
    ...unique,
    name: 'api_key_keep_hashes_unique_insert',
    fires: 'AFTER INSERT',
    newTable: 'added',
    forEach: 'STATEMENT',
  } as const
  const onUpdate = {
    ...unique,
    name: 'api_key_keep_hashes_unique_update',
    fires: 'AFTER UPDATE',
    forEach: 'ROW',
    when: changesAny(['hash']),
  } as const

  return [
    ...[keys, retired].flatMap((table) => [
      { ...onInsert, table },
      { ...onUpdate, table },
    ]),
    { ...onDelete, name: 'api_key_delete_retired_row', fires: 'AFTER DELETE', forEach: 'ROW' },
    {
      ...onDelete,
      name: 'api_key_delete_retired_all',
      fires: 'AFTER TRUNCATE',
      forEach: 'STATEMENT',
    },
  ]
}

function keepUniqueBody({ keys, retiredSecrets: retired }: Tables): string {
  return `
        BEGIN
          IF TG_LEVEL = 'ROW' THEN
            PERFORM FROM ${retired} AS secret WHERE secret.hash = NEW.hash;
          ELSE
            PERFORM FROM added JOIN ${keys} AS key USING (hash) JOIN ${retired} AS secret USING (hash);
          END IF;
          IF FOUND THEN
            RAISE unique_violation USING MESSAGE = 'express-api-keys: a hash is current and retired';
          END IF;
          RETURN NULL;
        END`
}

function deleteBody({ retiredSecrets: retired, salts }: Tables): string {
  return `
        BEGIN
          IF TG_OP = 'DELETE' THEN
            DELETE FROM ${retired} AS secret WHERE secret.api_key_id = OLD.id;
            DELETE FROM ${salts} AS salted WHERE salted.api_key_id = OLD.id;
          ELSE
            DELETE FROM ${retired};
            DELETE FROM ${salts};
          END IF;
          RETURN NULL;
        END`
}
