import type { Tables } from '../../models/tables'
import { blockDigestOf, entriesDigestSql, hashOf, sealsDigestSql } from './chain'
import { checkSealedEntries } from './check-entries'
import type { Erasures } from './check-erasures'
import { addLate, checkSeals, goTo, isBelow, readSeal, sealValues } from './check-seals'
import type { Walk, WalkedSeal } from './check-seals'
import {
  inParts,
  linesSql,
  oneValueSql,
  pageSize,
  readLines,
  type Row,
  type Verification,
} from './read-trail'

/*
 * The database computes the digests of the seals and the entries of a block, and the process compares them with what the last seal of the
 * block says. If they agree, nothing of the block has changed. From the first block of a page that does not agree, the process looks at
 * each seal, and the database at each entry.
 */

/** A block as the database has it. */
interface Block {
  /** The last seal of the block. */
  seal: WalkedSeal
  /** How many seals there are from the block before to this one. */
  count: number
  /**
   * True if the seals have their time and their secret from the last of them, and nothing else that only the last may have. No value is
   * missing from their digest, and each digest and hash has its length, so that none could pass for several values.
   */
  isUniform: boolean
  /** The hash of the seal before the last. */
  hashBefore: string
  sealsDigest: string
  entriesDigest: string
  greatestId: string
  /** The ids of entries that were sealed behind entries with greater ids. */
  late: readonly string[]
}

/** The least and the greatest place that there are. The library makes none below 1. */
const [leastPlace, greatestPlace] = ['-9223372036854775808', '9223372036854775807'] as const

/** Checks all seals, and compares the entries with them. Returns the number of entries that are as their seals say. */
export async function checkBlocks(
  walk: Walk,
  beside: Walk['findings'],
  verification: Verification,
  { unproven }: Erasures,
): Promise<number> {
  const { reader, tables } = verification
  let matching = 0
  // All of them: a seal in a place that was pruned is none of the chain.
  for (let from: string = leastPlace; ;) {
    const [last, lines = null] = await reader.read('its seals', blocksSql(tables, walk, from))
    if (last === undefined) return matching

    const rows = readLines(lines)
    const checked = await checkAlike(walk, verification, rows)
    matching += checked.matching
    const part = {
      from: checked.to === null ? from : following(checked.to),
      to: rows.at(-1)?.[0] ?? last,
    }
    if (checked.to !== part.to) {
      await checkSeals(walk, verification, part)
      const entries = { part, unproven }
      matching += await checkSealedEntries({ ...walk, findings: beside }, verification, entries)
    }
    if (part.to === greatestPlace) return matching
    from = following(part.to)
  }
}

function following(place: string): string {
  return String(BigInt(place) + 1n)
}

/** Goes through blocks up to the first that has changed. Returns the place of the last before it, and the number of entries up to there. */
async function checkAlike(walk: Walk, { anchor, onRows }: Verification, rows: readonly Row[]) {
  let to: string | null = null
  let matching = 0
  for await (const part of inParts(rows)) {
    const { entries } = walk
    const first = part.findIndex((row) => !goToAlike(walk, readBlock(row), anchor))
    const alike = first === -1 ? part : part.slice(0, first)
    to = alike.at(-1)?.[0] ?? to
    matching += walk.entries - entries
    onRows(walk.entries - entries)
    if (first !== -1) break
  }
  return { to, matching }
}

/** Goes to the end of a block if it has not changed. A block with a head that was kept elsewhere is not gone through, unless the head is its end. */
function goToAlike(walk: Walk, block: Block, anchor: Verification['anchor']): boolean {
  const { seal, count, greatestId, late } = block
  const place = anchor?.position ?? 0
  const isAnchorWithin = place > walk.end.position && place < seal.position
  if (isAnchorWithin || !isAlike(walk, block)) return false

  goTo(walk, seal, count)
  if (seal.position === place) walk.anchoredHash = seal.hash
  if (!isBelow(greatestId, walk.greatestId)) walk.greatestId = greatestId
  addLate(walk, late)
  return true
}

/** True if a block follows the end of the walk, and is as it was written. */
function isAlike({ end }: Walk, block: Block): boolean {
  const { seal, count, isUniform, hashBefore, sealsDigest, entriesDigest } = block
  return (
    isUniform &&
    seal.position - end.position === count &&
    blockDigestOf(end.hash, sealsDigest, entriesDigest) === seal.blockDigest &&
    hashOf(count === 1 ? end.hash : hashBefore, seal) === seal.hash
  )
}

function readBlock(row: Row): Block {
  const [count, isUniform, hashBefore = '', sealsDigest = '', ...rest] = row.slice(
    sealValues.length,
  )
  const [entriesDigest = '', greatestId = '', late] = rest
  return {
    seal: readSeal(row, null),
    count: Number(count),
    isUniform: isUniform === 't',
    hashBefore,
    sealsDigest,
    entriesDigest,
    greatestId,
    late: late ? late.split(',') : [],
  }
}

/**
 * SQL for the last place of a page of seals, and for the blocks that end in the page, as lines. The server reads the entries of a block
 * by the range of their ids, unless other entries are in that range.
 */
function blocksSql({ events, seals }: Tables, { greatestId }: Walk, from: string): string {
  const ofEntries = (condition: string) =>
    `(SELECT CASE WHEN count(*) = seals THEN ${entriesDigestSql('event')} END
                     FROM (SELECT * FROM ${events} WHERE ${condition} ORDER BY id) AS event)`
  const inRange = 'id BETWEEN ids[1] AND ids[seals]'
  // A condition that is NULL must not count as true, because an aggregate skips it, and a NULL line as well.
  const isUniform = `bool_and((
               seal.sealed_at = closing.sealed_at AND seal.secret_id IS NOT DISTINCT FROM closing.secret_id AND seal.doubts IS NULL
               AND (seal.position = closing.position) = (seal.mac IS NOT NULL)
               AND seal.event_id > 0 AND seal.is_genuine IN (true, false)
               AND octet_length(seal.hash) = 64 AND octet_length(seal.digest) = 64 AND coalesce(octet_length(seal.state_digest), 64) = 64
             ) IS TRUE)`
  const values = [
    ...sealValues,
    'seals',
    'is_uniform',
    `(SELECT ${oneValueSql('hash')} FROM ${seals} AS seal WHERE seal.position < block.position ORDER BY seal.position DESC LIMIT 1)`,
    'seals_digest',
    `CASE WHEN (SELECT count(*) FROM (SELECT FROM ${events} WHERE ${inRange} LIMIT seals + 1) AS event) = seals
                  THEN ${ofEntries(inRange)} ELSE ${ofEntries('id = ANY(ids)')} END`,
    'greatest_id',
    `CASE WHEN least_id < greatest_before
                  THEN (SELECT string_agg(id::text, ',') FROM unnest(ids) AS id WHERE id < greatest_before) END`,
  ]
  return `
    WITH page AS MATERIALIZED (
      SELECT max(position) AS last FROM (SELECT position FROM ${seals} WHERE position >= '${from}' ORDER BY position LIMIT ${pageSize}) AS seal
    ), closing AS (
      SELECT seal.*, lag(position) OVER (ORDER BY position) AS before
        FROM ${seals} AS seal WHERE position >= '${from}' AND position <= (SELECT last FROM page) AND block_digest IS NOT NULL
    ), block AS (
      SELECT closing.*, own.*,
             greatest('${greatestId || leastPlace}', max(greatest_id) OVER (
               ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
             )) AS greatest_before
        FROM closing CROSS JOIN LATERAL (
          SELECT count(*) AS seals, ${isUniform} AS is_uniform, array_agg(event_id) AS ids, min(event_id) AS least_id,
                 max(event_id) AS greatest_id, ${sealsDigestSql('seal', 'seal.position < closing.position')} AS seals_digest
            FROM (
              SELECT * FROM ${seals} AS seal
               WHERE seal.position >= coalesce(closing.before + 1, '${from}') AND seal.position <= closing.position ORDER BY seal.position
            ) AS seal
        ) AS own
    )
    SELECT last::text AS json FROM page
     UNION ALL
    (${linesSql(values, 'FROM block ORDER BY position')})`
}
