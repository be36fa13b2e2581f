import type { Sequelize, Transaction } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import { select } from '../../models/statements'
import { clearTimeout, type Background } from '../background'
import { ApiKeysError } from '../errors'
import { onDatabase } from './database'
import type { Emitter } from './emitter'
import type { ApiKeyRecord } from './record'
import type { Store } from './store'

interface ExpiryNoticesParts {
  background: Pick<Background, 'startTimer'>
  sequelize: Sequelize
  /** The qualified, quoted names of the tables of keys and of what was told. */
  table: string
  noticeTable: string
  keyPrefix: string
  store: Pick<Store, 'get'>
  emitter: Pick<Emitter, 'emit' | 'isHeard'>
}

/** How many keys are looked for at once. */
const maxKeys = 500

const firstSweepMs = 1_000
const sweepEveryMs = 300_000

/** Tells of keys that are about to expire, 7 days and 1 day before: of each once, by whichever process is first. */
export function createExpiryNotices(parts: ExpiryNoticesParts) {
  const { background, sequelize, table, noticeTable, store, emitter } = parts
  const isOwn = isOfPrefix('key', parts.keyPrefix)
  let timer: NodeJS.Timeout | undefined
  let isStarted = false

  /**
   * Claims the notices that are due, for this process to tell of. A key that was made within 7 days of its end has none for
   * the 7 days, and one that is found with less than a day left has only that for the last.
   */
  async function claim(transaction: Transaction): Promise<{ id: string; daysLeft: number }[]> {
    return select<{ id: string; daysLeft: number }>(
      sequelize,
      `WITH old AS (
         DELETE FROM ${noticeTable} WHERE expires_at < now() - interval '1 day'
       )
       INSERT INTO ${noticeTable} (api_key_id, expires_at, days_left)
       SELECT key.id, key.expires_at, due.days_left
         FROM ${table} AS key
        CROSS JOIN LATERAL (
          SELECT CASE WHEN key.expires_at <= now() + interval '1 day' THEN 1 ELSE 7 END AS days_left
        ) AS due
        WHERE ${isOwn}
          AND key.expires_at > now() AND key.expires_at <= now() + interval '7 days'
          AND key.expires_at IS NOT NULL AND key.status <> 'REVOKED'
          AND key.created_at <= key.expires_at - due.days_left * interval '1 day'
          AND NOT EXISTS (
            SELECT FROM ${noticeTable} AS told
             WHERE (told.api_key_id, told.expires_at, told.days_left)
                   = (key.id, key.expires_at, due.days_left)
          )
        ORDER BY key.expires_at
        LIMIT ${maxKeys}
           ON CONFLICT DO NOTHING
       RETURNING api_key_id AS id, days_left AS "daysLeft"`,
      { transaction },
    )
  }

  /** Somebody may have deleted it just now. */
  async function find(id: string, transaction: Transaction): Promise<ApiKeyRecord | null> {
    return store.get(id, { transaction }).catch((error: unknown) => {
      if (error instanceof ApiKeysError && error.code === 'api_key_not_found') return null
      throw error
    })
  }

  /** Nothing is claimed until all that is to be told of it has been read. */
  function claimAll() {
    return sequelize.transaction(async (transaction) => {
      const notices: { apiKey: ApiKeyRecord | null; daysLeft: number }[] = []
      for (const { id, daysLeft } of await claim(transaction)) {
        notices.push({ apiKey: await find(id, transaction), daysLeft })
      }
      return notices
    })
  }

  async function announceExpiring(): Promise<number> {
    // Or else nobody would ever hear of them.
    if (!emitter.isHeard('expiring')) return 0

    let told = 0
    for (;;) {
      const claimed = await onDatabase(claimAll)
      for (const { apiKey, daysLeft } of claimed) {
        if (!apiKey) continue
        emitter.emit('expiring', { apiKey, daysLeft: daysLeft === 1 ? 1 : 7 })
        told++
      }
      if (claimed.length < maxKeys) return told
    }
  }

  function sweepIn(ms: number) {
    if (!isStarted) return
    timer ??= background.startTimer(() => {
      timer = undefined
      if (!emitter.isHeard('expiring')) return

      announceExpiring()
        .catch((error: unknown) => emitter.emit('error', { error, notice: 'expiring' }))
        .finally(() => sweepIn(sweepEveryMs))
    }, ms)
  }

  return {
    announceExpiring,

    /** Has them told of from now on, as long as somebody listens. */
    start() {
      isStarted = true
      sweepIn(firstSweepMs)
    },

    stop() {
      isStarted = false
      clearTimeout(timer)
      timer = undefined
    },
  }
}
