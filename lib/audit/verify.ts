import type { Sequelize, Transaction } from 'sequelize'

import { auditTriggers } from '../../migrations/audit-triggers'
import { alteredTriggersSql } from '../../migrations/triggers'
import { toldNames, toldSql, type AuditTrail } from '../../models/audit-trail'
import { literal } from '../../models/names'
import { limitStatements, select as selectRows } from '../../models/statements'
import { tablesOf } from '../../models/tables'
import { InvalidInputError } from '../errors'
import { canonical } from './trail'
import {
  checkEntry,
  checkHead,
  checkpointText,
  contentSql,
  exportOf,
  exportText,
  hashOf,
  headSql,
  pageSize,
  readContent,
  readHead,
  type AuditHead,
  type Content,
  type HeadRow,
  type Link,
  type SealedEntry,
} from './chain'
import { sqlStateOf } from '../database/failures'
import { pointerTo } from '../keys/parse-input'
import type { Signature, Signer } from './signing'

/** Something that is wrong with the audit trail. */
export interface AuditFault {
  /**
   * What has become of an entry; or, where the entries themselves are as they were: the end of the trail (`head_changed`) or
   * its beginning (`checkpoint_changed`) is not as it was left, or an entry says something else about a key (`contradicted`)
   * than the entries before it or the key itself; or a trigger that keeps the trail is off or altered (`unguarded`); or the database
   * cannot read a part of it (`unreadable`).
   */
  kind:
    | 'edited'
    | 'removed'
    | 'inserted'
    | 'reordered'
    | 'head_changed'
    | 'checkpoint_changed'
    | 'contradicted'
    | 'unguarded'
    | 'unreadable'
  /** The place in the trail, counted from 1; `null` where it has none. */
  position: number | null
  eventId: string | null
  message: string
}

/** What is found when the audit trail is verified. */
export interface AuditVerification {
  /** Whether every entry could be checked, and nothing is wrong. */
  isIntact: boolean
  /** How many entries were checked, and how many came before them and were pruned. */
  entries: number
  pruned: number
  /** How many entries were written meanwhile, and are sealed with the next change. */
  unsealed: number
  /** How many entries only a secret could vouch for that is not among `secrets`. */
  unverifiable: number
  /** The end of the trail as it was checked, to be kept elsewhere; `null` unless the trail is intact. */
  head: AuditHead | null
  /** The first 100. */
  faults: AuditFault[]
  /** What would not have been found, in sentences. */
  cannotFind: string[]
}

interface SealRow extends Link, Signature, Omit<SealedEntry, 'content' | 'secretId'> {
  /** `null` where the event is gone. */
  content: string | null
}

/** An entry that does not fit its place, and the hash of the entry that stands before it. */
interface Misfit extends Link, SealedEntry {
  previousHash: string
}

interface Contradiction {
  /** Which of the comparisons found it. */
  source: number
  eventId: string | null
  apiKeyId: string
  name: string
  told: unknown
  known: unknown
}

interface AuditVerifierParts {
  sequelize: Sequelize
  schema: string
  trail: AuditTrail
  /** The qualified, quoted name of the table of keys. */
  table: string
  signer: Signer
}

const maxFaults = 100

/** How long a statement takes at most. Some read the whole trail. */
const statementLimitMs = 3_600_000

/** The savepoint to which verification goes back after a statement that failed. */
const reading = 'api_key_reading'

/** The SQLSTATEs of statements that fail for the values they meet, or for how many rows there are. */
const isOfValues = /^(2[12]...|54...)$/

/** So many are looked at of each kind, as some differ to the database and not to JavaScript. */
const maxContradictions = 1_000

export type VerifyTrail = ReturnType<typeof createAuditVerifier>

/** Makes the function that holds the whole trail against its seals, against itself and against the keys. */
export function createAuditVerifier(parts: AuditVerifierParts) {
  const { sequelize, schema, trail, table, signer } = parts
  const { events, seals, unsealed, head: headTable, checkpoints } = trail

  const unguardedSql = `
    SELECT to_json(altered.name)::text AS json
      FROM (${alteredTriggersSql(auditTriggers(tablesOf(schema)))}) AS altered`

  const waitingSql = `
    SELECT json_build_object(
             'unsealed', count(*) FILTER (WHERE is_waiting),
             'stray', coalesce((json_agg(id::text) FILTER (WHERE NOT is_waiting AND place <= ${maxFaults})), '[]')
           )::text AS json
      FROM (
        SELECT event.id, waiting.is_waiting,
               row_number() OVER (PARTITION BY waiting.is_waiting ORDER BY event.id) AS place
          FROM ${events} AS event
          CROSS JOIN LATERAL (
            SELECT EXISTS (
              SELECT FROM ${unsealed} AS waiting WHERE waiting.event_id = event.id
            ) AS is_waiting
          ) AS waiting
         WHERE NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id)
      ) AS event`

  const repeatedSql = `
    SELECT to_json(max(id)::text)::text AS json
      FROM ${events} WHERE ref IS NOT NULL GROUP BY ref HAVING count(*) > 1
     ORDER BY max(id) LIMIT ${maxFaults}`

  return async function verifyTrail(anchor?: AuditHead): Promise<AuditVerification> {
    if (anchor) refuseForeign(anchor)

    return sequelize.transaction(async (transaction) => {
      // One snapshot: what is committed meanwhile is not half seen.
      await sequelize.query(
        `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
         ${limitStatements(statementLimitMs)};
         SAVEPOINT ${reading}`,
        { transaction },
      )
      return verifySnapshot(transaction, anchor)
    })
  }

  /** A head of somebody else's would have a good trail called bad. One of a secret that is gone is taken as it is. */
  function refuseForeign(anchor: AuditHead) {
    if (signer.check('exported head', exportText(anchor), anchor) !== 'invalid') return
    throw new InvalidInputError([
      { pointer: pointerTo(['head']), message: 'was not exported here' },
    ])
  }

  async function verifySnapshot(
    transaction: Transaction,
    anchor: AuditHead | undefined,
  ): Promise<AuditVerification> {
    const faults: AuditFault[] = []
    let faultCount = 0
    let unverifiable = 0
    /** Entries since the last one that a known secret vouches for. */
    let pending = 0

    function report({ kind, position = null, eventId = null, message }: ReportedFault) {
      faultCount++
      if (faults.length < maxFaults) faults.push({ kind, position, eventId, message })
    }

    /** Reads a part of the trail. The tables may hold anything: if the database cannot read it, that is a fault. */
    async function select<Shape>(what: string, sql: string): Promise<Shape[]> {
      try {
        const rows = await selectRows<{ json: string }>(sequelize, sql, { transaction })
        // The callers know the shape of what they ask for.
        return rows.map(({ json }) => JSON.parse(json) as Shape)
      } catch (error) {
        const state = sqlStateOf(error)
        if (!isOfValues.test(state)) throw error

        await sequelize.query(`ROLLBACK TO SAVEPOINT ${reading}`, { transaction })
        report({
          kind: 'unreadable',
          message: `The database cannot read ${what} (SQLSTATE ${state}).`,
        })
        return []
      }
    }

    const [found] = await select<{ head: HeadRow | null }>('its end', headSql(trail))
    const head = found?.head ?? null
    const headCheck = head && checkHead(signer, head)
    const start = checkStart()
    let end: Link = start
    let entries = 0
    let anchoredHash = anchor && anchor.position === start.position ? start.hash : undefined
    const misfits: Misfit[] = []

    /** Returns where the chain begins. */
    function checkStart(): Link {
      const beginning = { position: 0, hash: '' }
      if (!head || head.checkpointPosition === 0) return beginning

      const { checkpoint } = head
      const isValid =
        checkpoint !== null &&
        // A head that is good speaks for the checkpoint, whose secret may be gone.
        (headCheck === 'valid' ||
          signer.check('checkpoint', checkpointText(checkpoint), checkpoint) === 'valid')
      if (!isValid) {
        report({
          kind: 'checkpoint_changed',
          position: head.checkpointPosition,
          message: 'The checkpoint that pruning left was changed or removed.',
        })
      }
      return checkpoint ?? beginning
    }

    function checkSeal(seal: SealRow) {
      const { position, eventId, content, hash, doubts } = seal
      const place = { position, eventId }
      const missing = position - end.position - 1
      if (missing > 0) {
        report({
          kind: 'removed',
          position: end.position + 1,
          message: `${counted(missing)} removed before this place, with what sealed them.`,
        })
      }
      if (doubts !== null) weighDoubts(doubts, place)

      if (content === null) {
        report({ kind: 'removed', ...place, message: 'The entry was removed.' })
      } else if (missing === 0 && hashOf(end.hash, { ...seal, content }) !== hash) {
        if (misfits.length < maxFaults) {
          misfits.push({ ...seal, content, previousHash: end.hash })
        } else {
          report({ kind: 'edited', ...place, message: 'The entry is not what was sealed.' })
        }
      } else if (!seal.isGenuine) {
        checkOrigin(readContent(content), place)
      }

      const check = signer.check('seal', hash, seal)
      if (check === 'invalid') {
        report({
          kind: 'edited',
          ...place,
          message: 'The seal of the entry has a wrong signature.',
        })
      }
      pending = check === 'unknown' ? pending + 1 : 0
      if (anchor?.position === position) anchoredHash = hash
      end = { position, hash }
      entries++
    }

    /** Whoever sealed it could not say that it was ours. Secrets may have been there since that were not known then. */
    function checkOrigin(content: Content, place: Place) {
      if (content.actorType === 'database') return
      const check = checkEntry(signer, content)
      if (check === 'unknown') unverifiable++
      if (check === 'invalid') {
        report({ kind: 'inserted', ...place, message: 'The entry was not written by the library.' })
      }
    }

    /** What was before a seal that doubts, it does not vouch for, unless the head that it found is good after all. */
    function weighDoubts(doubts: string, place: Place) {
      const found = readHead(doubts)
      const check = found ? checkHead(signer, found) : 'invalid'
      if (!found || check === 'invalid') {
        report({
          kind: 'head_changed',
          ...place,
          message: 'The end of the trail had been changed when this entry was sealed.',
        })
      } else if (check === 'unknown') {
        unverifiable += Math.max(pending, 1)
      } else {
        compareEnds(found, place)
      }
      pending = 0
    }

    function compareEnds(told: Link, place: Place) {
      const difference = told.position - end.position
      if (difference > 0) {
        report({
          kind: 'removed',
          position: end.position + 1,
          message: `${counted(difference)} removed from what was the end of the trail.`,
        })
      } else if (difference < 0) {
        report({
          kind: 'inserted',
          ...place,
          message: `${counted(-difference)} added behind the end of the trail.`,
        })
      } else if (told.hash !== end.hash) {
        report({
          kind: 'edited',
          ...place,
          message: 'The last entry is not the one that the end of the trail names.',
        })
      }
    }

    function checkEnd() {
      const place = { position: end.position, eventId: null }
      if (!head) {
        report({ kind: 'head_changed', ...place, message: 'The end of the trail was removed.' })
      } else if (headCheck === 'unknown') {
        unverifiable += Math.max(pending, 1)
      } else if (headCheck === 'valid') {
        compareEnds(head, place)
      } else if (head.mac !== null || head.position > 0 || entries > 0) {
        report({ kind: 'head_changed', ...place, message: 'The end of the trail was changed.' })
      }
    }

    function checkAnchor({ position, hash, at }: AuditHead) {
      if (position < start.position) return
      if (end.position < position) {
        report({
          kind: 'removed',
          position: end.position + 1,
          message: `${counted(position - end.position)} removed that were there at ${at}.`,
        })
      } else if (anchoredHash !== hash && (position > 0 || hash !== '')) {
        report({
          kind: 'edited',
          position,
          message: `The entries up to here are not those that were there at ${at}.`,
        })
      }
    }

    let page: SealRow[]
    do {
      page = await select<SealRow>('its seals', pageSql(end.position))
      for (const seal of page) checkSeal(seal)
    } while (page.length === pageSize)
    for (const misfit of misfits) {
      const { position, eventId } = misfit
      const isMoved = misfits.some((other) => other !== misfit && fitsInPlaceOf(misfit, other))
      report({
        kind: isMoved ? 'reordered' : 'edited',
        position,
        eventId,
        message: isMoved
          ? 'The entry has the place of another.'
          : 'The entry is not what was sealed.',
      })
    }
    checkEnd()
    if (anchor) checkAnchor(anchor)

    const [waiting] = await select<{ unsealed: number; stray: string[] }>(
      'what waits for a seal',
      waitingSql,
    )
    for (const eventId of waiting?.stray ?? []) {
      report({
        kind: 'inserted',
        eventId,
        message: 'The entry has no seal, and is not among those that wait for one.',
      })
    }
    for (const eventId of await select<string>('its references', repeatedSql)) {
      report({ kind: 'inserted', eventId, message: 'The entry repeats another one.' })
    }
    const contradictions = await select<Contradiction>(
      'its entries beside the keys',
      contradictionsSql(head),
    )
    const counts = new Map<number, number>()
    for (const { source, eventId, apiKeyId, name, told, known } of contradictions) {
      counts.set(source, (counts.get(source) ?? 0) + 1)
      if (isSameTo(name, told, known)) continue
      report({
        kind: 'contradicted',
        eventId,
        message: `The trail and the key ${apiKeyId} do not agree on ${name}.`,
      })
    }
    if ([...counts.values()].includes(maxContradictions)) {
      report({
        kind: 'contradicted',
        message: 'The trail and the keys differ in more places than were looked at.',
      })
    }
    for (const guard of await select<string>('its triggers', unguardedSql)) {
      report({
        kind: 'unguarded',
        message: `The trigger ${guard} is gone, switched off or not as it was made.`,
      })
    }

    const isIntact = faultCount === 0 && unverifiable === 0
    return {
      isIntact,
      entries,
      pruned: start.position,
      unsealed: waiting?.unsealed ?? 0,
      unverifiable,
      head: isIntact ? exportOf(signer, end) : null,
      faults,
      cannotFind: limitsOf({ unverifiable, anchor, start, legacyUntil: head?.legacyUntil ?? '0' }),
    }
  }

  function limitsOf({ unverifiable, anchor, start, legacyUntil }: Limits): string[] {
    const limits = [
      'An entry of `database` that was written by hand, and that fits: it looks like one of a trigger.',
    ]
    if (legacyUntil !== '0') {
      limits.push(
        `Changes of entries from before there was a chain, up to ${legacyUntil}, before it began: they are taken as they were.`,
      )
    }
    if (!signer.isKeyed) {
      limits.push(
        'A trail that was computed anew as a whole, which needs no secret: set the option `secrets`.',
      )
    } else if (signer.acceptUnkeyed) {
      limits.push(
        'A trail that was forged without a secret, as if from before there were secrets, as long as `acceptUnkeyed` is set.',
      )
    }
    if (!anchor) {
      limits.push(
        'A trail that was put back as a whole or begun anew, with its head: keep a head elsewhere, and pass it.',
      )
    } else if (anchor.position < start.position) {
      limits.push('Whether the head that was passed is one of this trail: what it ends was pruned.')
    }
    if (unverifiable > 0) {
      limits.push(
        'Changes of entries for which only a secret vouches that is not among `secrets`: add it there, at the end.',
      )
    }
    return limits
  }

  function pageSql(after: number): string {
    return `
      SELECT json_build_object(
               'position', seal.position, 'eventId', seal.event_id::text,
               'isGenuine', seal.is_genuine, 'doubts', seal.doubts, 'hash', seal.hash,
               'mac', seal.mac, 'secretId', seal.secret_id,
               'content', CASE WHEN event.id IS NOT NULL THEN ${contentSql('event')} END
             )::text AS json
        FROM ${seals} AS seal LEFT JOIN ${events} AS event ON event.id = seal.event_id
       WHERE seal.position > ${after}
       ORDER BY seal.position LIMIT ${pageSize}`
  }

  /**
   * SQL for where the trail does not agree with itself or with the keys: with what the entry before said of an attribute, and
   * with what the row has now. The entries of a key are in the order of their ids, as each was written under the lock of
   * its row. What was before the chain, or was pruned, is not known; TRUNCATE ends what came before it.
   */
  function contradictionsSql(head: HeadRow | null): string {
    const known = [head?.legacyUntil ?? '0', head?.checkpoint?.lastEventId ?? '0'].map(BigInt)
    const from = known.reduce((greatest, id) => (id > greatest ? id : greatest))
    // From the tables themselves: not every time that they can hold is read again from text.
    const since = [
      head && `(SELECT started_at FROM ${headTable})`,
      head?.checkpoint &&
        `(SELECT created_before FROM ${checkpoints} WHERE position = ${head.checkpoint.position})`,
    ].flatMap((time) => (time ? `key.created_at >= ${time}` : []))

    return `
      WITH told AS (
        SELECT event.id, event.api_key_id, event.user_id, event.action, event.ref,
               -- Anybody may have written it, as anything.
               CASE jsonb_typeof(event.before) WHEN 'object' THEN event.before END AS before,
               CASE jsonb_typeof(event.after) WHEN 'object' THEN event.after END AS after,
               (SELECT count(*) FROM ${events} AS emptied
                 WHERE emptied.action = 'truncated' AND emptied.id < event.id) AS era
          FROM ${events} AS event
         WHERE event.id > ${from} AND event.action NOT IN ('truncated', 'retired_secret_used')
      ), attribute AS (
        SELECT told.id, told.api_key_id, told.era, name,
               ${valueSql('told.before')} AS before, ${valueSql('told.after')} AS after,
               lag(told.id) OVER each AS known_id, lag(${valueSql('told.after')}) OVER each AS known,
               lead(told.id) OVER each IS NULL AS is_last
          FROM told CROSS JOIN LATERAL jsonb_object_keys(
            coalesce(told.before, '{}') || coalesce(told.after, '{}')
          ) AS name
         WHERE name IN (${toldNames.map(literal).join(', ')})
        WINDOW each AS (PARTITION BY told.api_key_id, told.era, name ORDER BY told.id)
      ), last AS (
        SELECT DISTINCT ON (api_key_id) id, api_key_id, user_id, era,
               action = 'deleted' OR EXISTS (
                 SELECT FROM ${events} AS emptied
                  WHERE emptied.action = 'truncated' AND emptied.id > told.id
               ) AS is_gone
          FROM told ORDER BY api_key_id, id DESC
      ), referred AS (
        SELECT DISTINCT ON (api_key_id) id, api_key_id, era, ref
          FROM told WHERE ref IS NOT NULL OR action = 'created' ORDER BY api_key_id, id DESC
      ), present AS MATERIALIZED (
        SELECT last.id, last.api_key_id, last.user_id, last.era, key.event_ref, key.user_id::text AS owner,
               ${toldSql('key')} AS told
          FROM last JOIN ${table} AS key ON key.id = last.api_key_id
         WHERE NOT last.is_gone
      )
      (
        SELECT ${contradictionSql(1, 'id', 'api_key_id', 'name', 'before', 'known')}
          FROM attribute
         WHERE known_id IS NOT NULL AND before IS DISTINCT FROM known
         LIMIT ${maxContradictions}
      ) UNION ALL (
        SELECT ${contradictionSql(2, 'attribute.id', 'api_key_id', 'name', 'after', valueSql('present.told'))}
          FROM attribute JOIN present USING (api_key_id, era)
         WHERE is_last AND after IS DISTINCT FROM ${valueSql('present.told')}
         LIMIT ${maxContradictions}
      ) UNION ALL (
        -- For a key none of whose entries tells of its owner, each says whose it was.
        SELECT ${contradictionSql(3, 'id', 'api_key_id', `'userId'`, 'user_id', 'owner')}
          FROM present
         WHERE user_id IS DISTINCT FROM owner AND NOT EXISTS (
           SELECT FROM attribute
            WHERE attribute.api_key_id = present.api_key_id AND attribute.era = present.era
              AND name = 'userId'
         )
         LIMIT ${maxContradictions}
      ) UNION ALL (
        SELECT ${contradictionSql(4, 'referred.id', 'api_key_id', `'its last change'`, 'ref', 'event_ref')}
          FROM referred JOIN present USING (api_key_id, era)
         WHERE ref IS NOT NULL AND ref IS DISTINCT FROM event_ref
         LIMIT ${maxContradictions}
      ) UNION ALL (
        SELECT ${contradictionSql(5, 'last.id', 'coalesce(last.api_key_id, key.id)', `'whether there is one'`, 'true', 'false')}
          FROM last FULL JOIN ${table} AS key ON key.id = last.api_key_id
         WHERE (last.id IS NOT NULL AND last.is_gone = (key.id IS NOT NULL))
            OR (last.id IS NULL AND ${since.length > 0 ? since.join(' AND ') : 'false'})
         LIMIT ${maxContradictions}
      )`
  }
}

interface Place {
  position: number
  eventId: string | null
}

type ReportedFault = Pick<AuditFault, 'kind' | 'message'> &
  Partial<Pick<AuditFault, 'position' | 'eventId'>>

interface Limits {
  unverifiable: number
  anchor: AuditHead | undefined
  start: Link
  legacyUntil: string
}

/**
 * SQL for what an object says of an attribute. That it is null, or says nothing, is one: so it is for JavaScript. An owner is
 * compared as text, because an app may change the type of its ids from a number to text.
 */
function valueSql(object: string): string {
  return `CASE name WHEN 'userId' THEN to_jsonb(${object} ->> name) ELSE nullif(${object} -> name, 'null') END`
}

function contradictionSql(source: number, ...values: [string, string, string, string, string]) {
  const [eventId, apiKeyId, name, told, known] = values
  return `json_build_object(
    'source', ${source}, 'eventId', ${eventId}::text, 'apiKeyId', ${apiKeyId}, 'name', ${name},
    'told', ${told}, 'known', ${known}
  )::text AS json`
}

/** Whether it is the content, the id or the entry before it that was exchanged for another's. */
function fitsInPlaceOf(misfit: Misfit, other: Misfit): boolean {
  const { hash, previousHash, eventId, content } = misfit
  return [
    hashOf(previousHash, { ...misfit, eventId: other.eventId, content: other.content }),
    hashOf(previousHash, { ...misfit, eventId, content: other.content }),
    hashOf(previousHash, { ...misfit, eventId: other.eventId, content }),
    hashOf(other.previousHash, misfit),
    hashOf(other.hash, misfit),
  ].includes(hash)
}

/** As JavaScript sees them: numbers in metadata may be longer than it can tell, and what is no jsonb is told as text. */
function isSameTo(name: string, told: unknown, known: unknown): boolean {
  const isJson = name === 'metadata' || name === 'limits'
  const [a, b] = isJson ? [readMetadata(told), readMetadata(known)] : [told, known]
  try {
    return canonical(a) === canonical(b)
  } catch {
    // Nested too deep to be ours, which the database has found to differ.
    return false
  }
}

function readMetadata(value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

function counted(entries: number): string {
  return entries === 1 ? '1 entry was' : `${entries} entries were`
}
