type EntryFault = 'edited' | 'removed' | 'inserted' | 'reordered'

type TrailFault =
  'head_changed' | 'checkpoint_changed' | 'contradicted' | 'unguarded' | 'unreadable'

/** A fault of the audit trail. */
export interface AuditFault {
  /**
   * `edited`, `removed`, `inserted` and `reordered` are about an entry. With the other kinds, no entry is known to be changed:
   *
   * - `head_changed`: the end of the trail was changed or removed.
   * - `checkpoint_changed`: the beginning of the trail, which pruning left, cannot be relied on, because the end or an origin
   *   was changed.
   * - `contradicted`: an entry does not agree with the entries before it, the key or the suspension of an owner; or a key has no entry.
   * - `unguarded`: a trigger that keeps the trail is off or altered, or a table may have a row twice.
   * - `unreadable`: the database cannot read a part of the trail.
   */
  kind: EntryFault | TrailFault
  /** The place in the trail, counted from 1; `null` if it has none. */
  position: number | null
  eventId: string | null
  message: string
}

/** The part of a fault that says where it is. */
export type Place = Partial<Pick<AuditFault, 'position' | 'eventId'>>

/** The faults of a verification, and how many there are. */
export type Findings = ReturnType<typeof createFindings>

/** How many faults are listed. */
export const maxFaults = 100

/** Returns what several parts of a verification have found. */
export function joinFindings(parts: readonly Findings[]) {
  return {
    faults: parts.flatMap(({ faults }) => faults).slice(0, maxFaults),
    faultCount: parts.reduce((sum, part) => sum + part.faultCount, 0),
    unverifiable: parts.reduce((sum, part) => sum + part.unverifiable, 0),
  }
}

/** Creates the list of what verification finds. */
export function createFindings() {
  const findings = {
    /** The first faults. */
    faults: [] as AuditFault[],
    faultCount: 0,
    /** How many entries only a secret could vouch for that the app does not have. */
    unverifiable: 0,

    /** Adds a fault. */
    report(kind: AuditFault['kind'], { position = null, eventId = null }: Place, message: string) {
      findings.faultCount++
      if (findings.faults.length < maxFaults)
        findings.faults.push({ kind, position, eventId, message })
    },
  }
  return findings
}
