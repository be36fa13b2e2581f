import { mostSuspects } from './agreeing-states'
import { hashOf, type Seal, type SealedEntry } from './chain'
import { maxFaults, type Findings, type Place } from './faults'
import { checkHead, endOf, isUnused, readHead } from './head'
import type { AuditHead, Head, Link } from './head'
import { pageSql, type Row, type Verification } from './read-trail'
import type { Signer } from './signing'

/** A walk along the chain, with what it has found so far. */
export type Walk = ReturnType<typeof startWalk>

/** A seal, with the digest that its entry has now; `null` if the entry is gone. */
type FoundSeal = { position: number; eventId: string; digest: string; found: string | null }

/** A seal that does not fit its place, and the hash of the seal before it. */
type Misfit = Link & SealedEntry & { previousHash: string }

/**
 * Starts a walk along the chain. Its `end` is the last link so far, and `pending` the number of entries since the last seal that a
 * known secret signed. `late` has the ids of entries that were sealed behind entries with greater ids.
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
  return { findings, signer, head, headCheck, start, end: start, late, ...counts, ...found }
}

/** Checks all seals. Returns the hash at the position of a head that was kept elsewhere, if there is a seal. */
export async function checkSeals(walk: Walk, { reader, tables, anchor, onRows }: Verification) {
  const columns = [
    'position',
    'hash',
    'digest',
    'event_id',
    'is_genuine',
    'secret_id',
    'mac',
    'row_digest',
    `coalesce(state_digest, 'unknown')`,
  ]
  const values = [...columns, 'to_json(doubts)', `date_part('epoch', sealed_at) * 1000`]
  const rows = reader.rowsOf('its seals', (last) => {
    // All of them: a seal in a place that was pruned is none of the chain.
    const after = last ? `WHERE position > ${last[0]}` : ''
    return pageSql(values, `FROM ${tables.seals} ${after} ORDER BY position`)
  })
  let anchoredHash = anchor?.position === walk.start.position ? walk.start.hash : undefined
  for await (const part of rows) {
    for (const row of part) {
      const seal = readSeal(row)
      checkSeal(walk, seal)
      if (seal.position === anchor?.position) anchoredHash = seal.hash
    }
    onRows(part.length)
  }
  return anchoredHash
}

function readSeal(row: Row): Omit<Seal, 'found' | 'content' | 'isOld'> {
  const [
    position,
    hash = '',
    digest = '',
    eventId = '',
    isGenuine,
    secretId,
    mac,
    rowDigest = '',
    stateDigest = '',
    doubts,
    sealedAt,
  ] = row
  return {
    position: Number(position),
    hash,
    digest,
    rowDigest,
    stateDigest: stateDigest === 'unknown' ? null : stateDigest,
    eventId,
    isGenuine: isGenuine === 't',
    secretId: secretId || null,
    mac: mac || null,
    doubts: doubts ? String(JSON.parse(doubts)) : null,
    sealedAt: Math.round(Number(sealedAt)),
  }
}

/** Checks the next seal of the chain. */
export function checkSeal(walk: Walk, seal: Omit<Seal, 'found' | 'content' | 'isOld'>) {
  const { findings, signer, end } = walk
  const { position, eventId, hash, doubts, mac } = seal
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
  // More misfits than faults that are listed change nothing.
  if (missing === 0 && walk.misfits.length < maxFaults && hashOf(end.hash, seal) !== hash) {
    walk.misfits.push({ ...seal, previousHash: end.hash })
  }

  const check = mac === null ? 'unknown' : signer.check('seal', hash, { ...seal, mac })
  if (check === 'invalid') findings.report('edited', place, 'The seal has a wrong signature.')
  walk.pending = check === 'unknown' ? walk.pending + 1 : 0
  walk.end = { position, hash }
  walk.entries++
  if (!isBelow(eventId, walk.greatestId)) walk.greatestId = eventId
  // If there are more, all keys are compared.
  else if (walk.late.length <= mostSuspects) walk.late.push(eventId)
}

/** True if one id is below another. The library makes no negative ids. */
function isBelow(id: string, other: string): boolean {
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
  const { eventId, digest, rowDigest, stateDigest } = other
  const digests = { digest, rowDigest, stateDigest }
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

/** Compares a chain with a head that was kept elsewhere, and the hash that the chain has at its position. */
export function checkAnchor(walk: Walk, { position, hash, at }: AuditHead, hashThere?: string) {
  const { findings, start, end } = walk
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
