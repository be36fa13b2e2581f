import { blockDigestOf, hashOf, isTimely, sealsDigestOf, type SealedEntry } from './chain'
import { checkEntry, signedAt, type StoredEntry } from './entry'
import type { Head, Link } from './head'
import type { Signer } from './signing'

/** An entry in the queue. It has no digest if it is gone, and nothing else is known of it then or if it cannot be read. */
export interface Waiting {
  xid: string
  eventId: string
  isSealed: boolean
  digest: string | null
  entry: StoredEntry | null
  /** The time that the entry claims, in milliseconds since 1970. */
  createdAt: number
}

type FoundEntry = Waiting & { entry: StoredEntry }

/** Entries that are sealed at once. */
interface Page {
  waiting: readonly Waiting[]
  /** The digest of the rows of all of them; `null` if they were not read. */
  entriesDigest: string | null
  /** When they were read. */
  readAt: number
  /** The last seal. */
  before: Link
  /** The head that names it, if that is not reliable. */
  doubted: Head | null
  /** The digests of keys that agree with all of their entries, by the ids of their last entries. */
  states: ReadonlyMap<string, string>
}

/** Returns the seals of the entries of a page, as rows of the table. */
export function makeSeals(signer: Signer, page: Page) {
  const { before, readAt: sealedAt, waiting, states } = page
  const { secretId } = signer
  let { position, hash } = before
  let doubts = page.doubted && JSON.stringify(page.doubted)
  let arePlain = doubts === null
  const seals: (Link & SealedEntry)[] = []
  // An entry may wait twice.
  const entries = new Map(
    waiting.filter(({ isSealed }) => !isSealed).map((entry) => [entry.eventId, entry]),
  )
  for (const found of entries.values()) {
    const { eventId, entry, digest } = found
    const isGenuine = entry !== null && checkEntry(signer, entry) === 'valid'
    arePlain &&= entry !== null && isPlain({ ...found, entry }, isGenuine, sealedAt)
    const isLast = seals.length === waiting.length - 1
    const ofEntries = isLast && arePlain ? page.entriesDigest : null
    const blockDigest = ofEntries && blockDigestOf(before.hash, sealsDigestOf(seals), ofEntries)
    const digests = {
      digest: digest ?? '',
      stateDigest: states.get(eventId) ?? null,
      blockDigest,
    }
    const seal = { eventId, isGenuine, doubts, secretId, sealedAt, ...digests }
    position++
    hash = hashOf(hash, seal)
    seals.push({ ...seal, position, hash })
    doubts = null
  }
  const { mac } = signer.sign('seal', hash)
  return seals.map((seal, index) => toRow(seal, index === seals.length - 1 ? mac : null))
}

/** True if verification need not look at an entry as long as it does not change. */
function isPlain(found: FoundEntry, isGenuine: boolean, sealedAt: number): boolean {
  const { eventId, entry, createdAt } = found
  if (!isGenuine && entry.actorType !== 'database') return false
  const at = signedAt(entry)
  const numberedAt = Number(eventId) / 1_000
  return at === null || isTimely({ signedAt: at, createdAt, numberedAt, sealedAt })
}

function toRow(seal: Link & SealedEntry, mac: string | null) {
  return {
    position: seal.position,
    event_id: seal.eventId,
    is_genuine: seal.isGenuine,
    doubts: seal.doubts,
    digest: seal.digest,
    state_digest: seal.stateDigest,
    block_digest: seal.blockDigest,
    sealed_at: new Date(seal.sealedAt),
    hash: seal.hash,
    mac,
    secret_id: seal.secretId,
  }
}
