import { createHash } from 'node:crypto'

import { qualify } from './names'

/** The names of everything that the library has in a schema of the database. Names of tables are qualified and quoted. */
export type Tables = ReturnType<typeof tablesOf>

/** Returns the names of the tables, sequences and settings that belong to a schema. */
export function tablesOf(schema: string) {
  const named = (name: string) => qualify(schema, name)
  // Each schema has its own channel. Its letters are safe in every statement.
  const digest = createHash('sha256').update(schema).digest('hex').slice(0, 16)
  const channel = `express_api_keys_${digest}`

  return {
    /** Without quotes. */
    schema,

    /** One row per key. */
    keys: named('api_keys'),
    /** The secrets that rotations have replaced. */
    retiredSecrets: named('api_key_retired_secrets'),
    /** The owners whose keys are all refused. */
    suspendedOwners: named('api_key_suspended_owners'),
    /** The salts of imported keys, by the parts of the keys that are no secret. */
    salts: named('api_key_salts'),
    /** The requests that came with an idempotency key. */
    requests: named('api_key_requests'),

    /** One row per transaction that changed keys or owners, numbered in the order of the commits. */
    revisions: named('api_key_revisions'),
    /** The keys and owners that each of those transactions changed. */
    changes: named('api_key_changes'),
    /** An insert here reports that an owner has changed. The table is always empty. */
    userChanges: named('api_key_user_changes'),
    /** The one row that a transaction locks while it takes its number and commits. */
    logLock: named('api_key_log_lock'),
    /** The sequence that holds the highest number of the log so far. It serves for nothing else. */
    revisionRegister: named('api_key_revision_register'),
    /** The bounds that processes keep. */
    bounds: named('api_key_bounds'),

    /** The uses of each key, per hour. */
    usage: named('api_key_usage'),
    /** The processes that write usage. */
    usageWriters: named('api_key_usage_writers'),
    /** The notices of expiry that listeners have taken. */
    expiryNotices: named('api_key_expiry_notices'),

    /** The audit trail: one row for each change of a key. */
    events: named('api_key_events'),
    /** The chain: one row for each event, in the order in which they were sealed. */
    seals: named('api_key_event_seals'),
    /** The events that wait to be sealed. */
    unsealed: named('api_key_unsealed_events'),
    /** The one row that says where the chain ends, and where it begins after entries were pruned. */
    auditHead: named('api_key_audit_head'),
    /** The last state of each key in events that were pruned. */
    origins: named('api_key_origins'),
    /** The sequence that the ids of events are drawn from. It serves for nothing else. */
    eventRegister: named('api_key_event_register'),

    /** The channel on which NOTIFY reports new entries of the log. */
    channel,
    settings: {
      /** Holds the number of a transaction and the mark of its entry in the log. */
      entry: `${channel}.entry`,
      /** Holds the number of a transaction that prunes. */
      pruning: `${channel}.pruning`,
      /** Holds the number of a transaction that erases an owner. */
      erasing: `${channel}.erasing`,
    },
  }
}
