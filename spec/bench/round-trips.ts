import { createRequire } from 'node:module'
import { join } from 'node:path'

import type * as Pg from 'pg'

import { purposeOf } from './database'

/** The number of times that a process has sent a statement to the database and waited for the answer. */
export interface RoundTrips {
  /** The statements of operations: all statements that are not counted below. */
  own: number
  /** The statements that the library sends by itself, for example polls. */
  polls: number
  /** The statements that seal the audit trail, outside of the transactions of operations. */
  sealing: number
}

/** Counts the round trips of every `pg` client of this process, as a build of the library and its Sequelize load it. */
export function countRoundTrips(build: string): () => RoundTrips {
  const { Client: Counted } = createRequire(join(build, 'package.json'))('pg') as typeof Pg
  const count: RoundTrips = { own: 0, polls: 0, sealing: 0 }
  const within = new WeakSet<Pg.Client>()

  // A query is sent at once: neither Sequelize nor a pool gives a client two of them.
  // oxlint-disable-next-line typescript/unbound-method -- called with its client below
  const send = Counted.prototype.query as (this: Pg.Client, ...args: unknown[]) => unknown
  Object.assign(Counted.prototype, {
    query(this: Pg.Client, ...args: unknown[]) {
      const text = textOf(args[0])
      count[purposeWithin(text, within.has(this))]++
      // A text may be a whole transaction.
      const isWhole = /\bCOMMIT\s*$/i.test(text)
      if (!isWhole && /^\s*(?:START TRANSACTION|BEGIN)\b/i.test(text)) within.add(this)
      if (/^\s*(?:COMMIT|ROLLBACK)\b(?! TO)/i.test(text)) within.delete(this)
      return send.apply(this, args)
    },
  })
  return () => ({ ...count })
}

function purposeWithin(text: string, isWithin: boolean): keyof RoundTrips {
  if (isWithin) return 'own'
  if (/\bapi_key_(?:audit_head|event_seals|unsealed_events|origins)\b/.test(text)) return 'sealing'
  return purposeOf(text) === 'request' || purposeOf(text) === 'frame' ? 'own' : 'polls'
}

function textOf(query: unknown): string {
  if (typeof query === 'string') return query
  // A configuration, or a query object, each with its text.
  return (query as { text?: string }).text ?? ''
}
