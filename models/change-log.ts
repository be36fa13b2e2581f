import { createHash } from 'node:crypto'

import { qualify } from './names'

/** What the log of changes consists of in the database. Names are qualified and quoted. */
export interface ChangeLog {
  /** One row per transaction that changed keys or users, numbered in the order of the commits. */
  revisions: string
  /** Which keys and users each of them changed. */
  changes: string
  /** Where a row tells of a user who was changed. It is always empty. */
  userChanges: string
  /** The one row that is locked while a transaction takes its number and commits. */
  lock: string
  /** The sequence that holds the highest number of the log so far. It serves for nothing else. */
  register: string
  /** The bounds that processes hold themselves to. */
  bounds: string
  /** Where NOTIFY says that there is something new. */
  channel: string
  /** The setting that holds the number of a transaction and the mark of its entry. */
  entry: string
  /** The setting that holds the number of a transaction that prunes. */
  pruning: string
}

export function changeLogOf(schema: string): ChangeLog {
  // A name of our own for every schema, of letters that are safe everywhere.
  const digest = createHash('sha256').update(schema).digest('hex').slice(0, 16)
  const channel = `express_api_keys_${digest}`

  return {
    revisions: qualify(schema, 'api_key_revisions'),
    changes: qualify(schema, 'api_key_changes'),
    userChanges: qualify(schema, 'api_key_user_changes'),
    lock: qualify(schema, 'api_key_log_lock'),
    register: qualify(schema, 'api_key_revision_register'),
    bounds: qualify(schema, 'api_key_bounds'),
    channel,
    entry: `${channel}.entry`,
    pruning: `${channel}.pruning`,
  }
}
