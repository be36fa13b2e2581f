import { mostSuspects } from './agreeing-states'
import { hashOf, type Seal, type SealedEntry } from './chain'
import { maxFaults, type Findings, type Place } from './faults'
import { checkHead, endOf, isUnused, readHead } from './head'
import type { AuditHead, Head, Link } from './head'
import { oneValueSql, pageSql, type Row, type Verification } from './read-trail'
import type { Signer } from './signing'

/** A walk along the chain, with what it has found so far. */
export type Walk = ReturnType<typeof startWalk>

/** A seal, with the digest that its entry has now; `null` if the entry is gone. */
type FoundSeal = { position: number; eventId: string; digest: string; found: string | null }

/** A seal that does not fit its place, and the hash of the seal before it. */
type Misfit = Link & SealedEntry & { previousHash: string }

/**
 * Starts a walk along the chain. Its `end` is the last link so far, and `pending` the number of entries since the last seal that a
 * known secret signed. `late` has the ids of entries that were sealed behind entries with greater ids, and `anchoredHash` the hash at
 * the position of a head that was kept elsewhere, once the walk has found a seal there.
 */
export function startWalk(findings: Findings, signer: Signer, head: Head | null) {
  const headCheck = head && checkHead(signer, head)
  if (head && head.checkpointPosition !== '0' && headCheck === 'invalid') {
    const message = 'The checkpoint that pruning left is in a head that was changed.'
    findings.report('checkpoint_changed', { position: endOf(head, null).position }, message)
  }
  const start: Link = head?.checkpointHash ? endOf(head, null) : { position: 0, hash: '' }
  const misfits: Misfit[] = []
  const edited: FoundSeal[] = []
  const found = { misfits, edited }
  const late: string[] = []
  const counts = { entries: 0, pending: 0, greatestId: '' }
  const anchoredHash: string | undefined = undefined
  const ends = { start, end: start, anchoredHash: anchoredHash as string | undefined }
  return { findings, signer, head, headCheck, ...ends, late, ...counts, ...found }
}

/** The columns of a seal that `readSeal` reads, with the times in milliseconds since 1970. */
export const sealValues = [
  'position',
  oneValueSql('hash'),
  oneValueSql('digest'),
  'event_id',
  'is_genuine',
  oneValueSql('secret_id'),
  oneValueSql('mac'),
  oneValueSql(`coalesce(state_digest, 'unknown')`),
  oneValueSql('block_digest'),
  `date_part('epoch', sealed_at) * 1000`,
] as const

/** A seal as the walk needs it. */
export type WalkedSeal = Omit<Seal, 'found' | 'content' | 'isOld'>

/** Reads a seal from its columns, and its doubts. */
export function readSeal(row: Row, doubts: string | null): WalkedSeal {
  const [position, hash = '', digest = '', eventId = '', isGenuine, secretId, mac, ...rest] = row
  const [stateDigest = '', blockDigest, sealedAt] = rest
  return {
    position: Number(position),
    hash,
    digest,
    stateDigest: stateDigest === 'unknown' ? null : stateDigest,
    blockDigest: blockDigest || null,
    eventId,
    isGenuine: isGenuine === 't',
    secretId: secretId || null,
    mac: mac || null,
    doubts,
    sealedAt: Math.round(Number(sealedAt)),
  }
}

/** Checks the seals from one place to another, one by one. */
export async function checkSeals(
  walk: Walk,
  { reader, tables, anchor, onRows }: Verification,
  { from, to }: { from: string; to: string },
) {
  const values = [...sealValues, 'to_json(doubts)']
  const rows = reader.rowsOf('its seals', (last) => {
    const after = last ? `> '${last[0]}'` : `>= '${from}'`
    return pageSql(
      values,
      `FROM ${tables.seals} WHERE position ${after} AND position <= '${to}' ORDER BY position`,
    )
  })
  for await (const part of rows) {
    for (const row of part) {
      const doubts = row[sealValues.length]
      const seal = readSeal(row, doubts ? String(JSON.parse(doubts)) : null)
      checkSeal(walk, seal)
      if (seal.position === anchor?.position) walk.anchoredHash = seal.hash
    }
    onRows(part.length)
  }
}

/** Checks the next seal of the chain. */
export function checkSeal(walk: Walk, seal: WalkedSeal) {
  const { findings, end } = walk
  const { position, eventId, hash, doubts } = seal
  const place = { position, eventId }
  const missing = position - end.position - 1
  if (missing < 0) {
    return findings.report('inserted', place, 'The seal has a place that was pruned or taken.')
  }
  if (missing > 0) {
    const message = `${counted(missing)} removed before this place, with what sealed them.`
    findings.report('removed', { position: end.position + 1 }, message)
  }
  if (doubts !== null) weighDoubts(walk, doubts, place)
  // Such an entry would be no part of the story of its key.
  if (isBelow(eventId, '1')) findings.report('inserted', place, 'The library makes no such ids.')
  // More misfits than faults that are listed change nothing.
  if (missing === 0 && walk.misfits.length < maxFaults && hashOf(end.hash, seal) !== hash) {
    walk.misfits.push({ ...seal, previousHash: end.hash })
  }

  goTo(walk, seal, 1)
  if (!isBelow(eventId, walk.greatestId)) walk.greatestId = eventId
  else addLate(walk, [eventId])
}

/** Goes to a seal, which is the last of so many new ones, and checks its signature. */
export function goTo(walk: Walk, seal: WalkedSeal, count: number) {
  const { position, hash, mac } = seal
  const check = mac === null ? 'unknown' : walk.signer.check('seal', hash, { ...seal, mac })
  if (check === 'invalid') walk.findings.report('edited', seal, 'The seal has a wrong signature.')
  walk.pending = check === 'unknown' ? walk.pending + count : 0
  walk.end = { position, hash }
  walk.entries += count
}

/** Adds entries that were sealed behind entries with greater ids. If there are more, all keys are compared. */
export function addLate({ late }: Walk, ids: readonly string[]) {
  if (late.length <= mostSuspects) late.push(...ids)
}

/** True if one id is below another. The library makes no negative ids. */
export function isBelow(id: string, other: string): boolean {
  return id.length === other.length ? id < other : id.length < other.length || id.startsWith('-')
}

/** Compares an entry with its seal. Returns true if it is as it was sealed. */
export function checkContent({ findings, edited }: Walk, seal: FoundSeal): boolean {
  const { digest, found } = seal
  if (digest === '') findings.report('removed', seal, 'The entry was removed before it was sealed.')
  else if (found === null) findings.report('removed', seal, 'The entry was removed.')
  else if (found !== digest && edited.length < maxFaults) edited.push(seal)
  return found === digest
}

/** A seal does not vouch for entries before it if it doubts them, unless the head that it found is valid after all. */
function weighDoubts(walk: Walk, doubts: string, place: Place) {
  const { findings, signer } = walk
  const found = readHead(doubts)
  const check = found && checkHead(signer, found)
  if (check === 'unknown') findings.unverifiable += Math.max(walk.pending, 1)
  else if (found && check === 'valid') compareEnds(walk, found, place)
  else findings.report('head_changed', place, 'The head had been changed before this seal.')
  walk.pending = 0
}

function compareEnds({ findings, end }: Walk, named: Link, place: Place) {
  const difference = named.position - end.position
  if (difference > 0) {
    const message = `${counted(difference)} removed from what was the end of the trail.`
    findings.report('removed', { position: end.position + 1 }, message)
  } else if (difference < 0) {
    findings.report('inserted', place, `${counted(-difference)} added behind the end of the trail.`)
  } else if (named.hash !== end.hash) {
    findings.report(
      'edited',
      place,
      'The last entry is not the entry that the end of the trail names.',
    )
  }
}

/** Ends a walk: says what became of the entries that are not as they were sealed, and checks the head. */
export function endWalk(walk: Walk) {
  const { findings, misfits, edited, head, headCheck, end, entries } = walk
  const report = (isMoved: boolean, place: Place) => {
    if (isMoved) findings.report('reordered', place, 'The entry has the place of another.')
    else findings.report('edited', place, 'The entry is not what was sealed.')
  }
  for (const misfit of misfits) {
    report(
      misfits.some((other) => other !== misfit && fitsInPlaceOf(misfit, other)),
      misfit,
    )
  }
  for (const seal of edited) {
    const isMisfit = misfits.some(({ position }) => position === seal.position)
    if (!isMisfit)
      report(
        edited.some(({ found }) => found === seal.digest),
        seal,
      )
  }
  const place = { position: end.position }
  if (!head) {
    findings.report('head_changed', place, 'The end of the trail was removed.')
  } else if (headCheck === 'unknown') {
    findings.unverifiable += Math.max(walk.pending, 1)
  } else if (headCheck === 'valid') {
    compareEnds(walk, head, place)
  } else if (entries > 0 || !isUnused(head)) {
    findings.report('head_changed', place, 'The end of the trail was changed.')
  }
}

/** True if two misfits have exchanged their digests, their ids or the entries before them. */
function fitsInPlaceOf(misfit: Misfit, other: Misfit): boolean {
  const { hash, previousHash } = misfit
  const { eventId, digest, stateDigest, blockDigest } = other
  const digests = { digest, stateDigest, blockDigest }
  return [
    hashOf(previousHash, { ...misfit, eventId, ...digests }),
    hashOf(previousHash, { ...misfit, ...digests }),
    hashOf(previousHash, { ...misfit, digest }),
    hashOf(previousHash, { ...misfit, eventId }),
    hashOf(other.previousHash, misfit),
    hashOf(other.hash, misfit),
  ].includes(hash)
}

/** The other reasons why a head from elsewhere may not fit, without a change by hand. */
const otherwise = 'After a failover that lost changes, or a restore, this is so as well.'

/** Compares a chain with a head that was kept elsewhere. */
export function checkAnchor(walk: Walk, { position, hash, at }: AuditHead) {
  const { findings, start, end } = walk
  const hashThere = position === start.position ? start.hash : walk.anchoredHash
  if (position < start.position) return
  if (end.position < position) {
    const message = `${counted(position - end.position)} removed that were there at ${at}. ${otherwise}`
    findings.report('removed', { position: end.position + 1 }, message)
  } else if (hashThere !== hash && (position > 0 || hash !== '')) {
    const message = `The entries up to here differ from the entries that were there at ${at}. ${otherwise}`
    findings.report('edited', { position }, message)
  }
}

function counted(entries: number): string {
  return entries === 1 ? '1 entry was' : `${entries} entries were`
}
