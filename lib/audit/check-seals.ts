import { maxFaults, type Findings, type Place } from './faults'
import { checkHead, endOf, isUnused, readHead } from './head'
import type { AuditHead, Head, Link } from './head'
import { hashOf, type Seal, type SealedEntry } from './seal'
import type { Signer } from './signing'

/** A walk along the chain, with what it has found so far. */
export type Walk = ReturnType<typeof startWalk>

/** An entry that does not fit its place, and the hash of the entry before it. */
type Misfit = Link & SealedEntry & { previousHash: string }

/**
 * Starts a walk along the chain. Its `end` is the last link so far, and `pending` the number of entries since the last seal that a
 * known secret signed.
 */
export function startWalk(findings: Findings, signer: Signer, head: Head | null) {
  const headCheck = head && checkHead(signer, head)
  if (head && head.checkpointPosition !== '0' && headCheck === 'invalid') {
    const message = 'The checkpoint that pruning left is in a head that was changed.'
    findings.report('checkpoint_changed', { position: endOf(head, null).position }, message)
  }
  const start: Link = head?.checkpointHash ? endOf(head, null) : { position: 0, hash: '' }
  const misfits: Misfit[] = []
  return { findings, signer, head, headCheck, start, end: start, entries: 0, pending: 0, misfits }
}

/** Checks the next seal of the chain. Returns true if the entry is as it was when it was sealed. */
export function checkSeal(walk: Walk, seal: Seal): boolean {
  const { findings, signer, end } = walk
  const { position, eventId, found, hash, doubts, mac } = seal
  const place = { position, eventId }
  const missing = position - end.position - 1
  if (missing > 0) {
    const message = `${counted(missing)} removed before this place, with what sealed them.`
    findings.report('removed', { position: end.position + 1 }, message)
  }
  if (doubts !== null) weighDoubts(walk, doubts, place)
  if (found === null) findings.report('removed', place, 'The entry was removed.')

  const isMisfit =
    found !== null && missing === 0 && hashOf(end.hash, { ...seal, digest: found }) !== hash
  // More misfits than faults that are listed change nothing.
  if (isMisfit && walk.misfits.length < maxFaults) {
    walk.misfits.push({ ...seal, digest: found, previousHash: end.hash })
  }

  const check = mac === null ? 'unknown' : signer.check('seal', hash, { ...seal, mac })
  if (check === 'invalid') findings.report('edited', place, 'The seal has a wrong signature.')
  walk.pending = check === 'unknown' ? walk.pending + 1 : 0
  walk.end = { position, hash }
  walk.entries++
  return found !== null && !isMisfit
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

/** Ends a walk: says what became of the entries that did not fit, and checks the head. */
export function endWalk(walk: Walk) {
  const { findings, misfits, head, headCheck, end, entries } = walk
  for (const misfit of misfits) {
    const isMoved = misfits.some((other) => other !== misfit && fitsInPlaceOf(misfit, other))
    if (isMoved) findings.report('reordered', misfit, 'The entry has the place of another.')
    else findings.report('edited', misfit, 'The entry is not what was sealed.')
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

/** True if two misfits have exchanged what their entries say, their ids or the entries before them. */
function fitsInPlaceOf(misfit: Misfit, other: Misfit): boolean {
  const { hash, previousHash } = misfit
  return [
    hashOf(previousHash, { ...misfit, eventId: other.eventId, digest: other.digest }),
    hashOf(previousHash, { ...misfit, digest: other.digest }),
    hashOf(previousHash, { ...misfit, eventId: other.eventId }),
    hashOf(other.previousHash, misfit),
    hashOf(other.hash, misfit),
  ].includes(hash)
}

/** Compares a chain with a head that was kept elsewhere, and the hash that the chain has at its position. */
export function checkAnchor(walk: Walk, { position, hash, at }: AuditHead, hashThere?: string) {
  const { findings, start, end } = walk
  if (position < start.position) return
  if (end.position < position) {
    const message = `${counted(position - end.position)} removed that were there at ${at}.`
    findings.report('removed', { position: end.position + 1 }, message)
  } else if (hashThere !== hash && (position > 0 || hash !== '')) {
    const message = `The entries up to here differ from the entries that were there at ${at}.`
    findings.report('edited', { position }, message)
  }
}

function counted(entries: number): string {
  return entries === 1 ? '1 entry was' : `${entries} entries were`
}
