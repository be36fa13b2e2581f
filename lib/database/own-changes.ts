/** The part of the log that was read: its highest number, and the number of times that this process started over. */
interface Reach {
  revision: number | null
  gaps: number
}

/** How long the transactions that were read are kept. A notification may be faster than the answer to COMMIT. */
const keptMs = 30_000

/** The changes of this process that are looked for in the log. */
export type OwnChanges = ReturnType<typeof createOwnChanges>

/**
 * Compares the changes of this process with the entries that it reads. The order of the log rests on a sequence and on
 * the clock of the server. If both were set back, a change gets a number that readers pass over. The process that made
 * the change notices, because it does not find the change in the log.
 */
export function createOwnChanges(clock: { monotonic(): number }) {
  let reach: Reach = { revision: null, gaps: 0 }
  /**
   * The changes that must appear in the log, each with the part of the log that was read before the commit, and the
   * time of the commit by the monotonic clock.
   */
  let awaited: { xid: string; before: Reach; committedAt: number }[] = []
  let [read, readBefore] = [new Set<string>(), new Set<string>()]
  let readSince = clock.monotonic()

  return {
    /** Notes that a transaction is about to be committed, and returns the function to call with its number once it is. */
    begin(): (xid: string) => void {
      const before = reach
      return (xid) => {
        awaited.push({ xid, before, committedAt: clock.monotonic() })
      }
    },

    /** Notes the transactions whose entries were read, and how far the log was read. */
    follow(xids: readonly string[], now: Reach) {
      if (clock.monotonic() - readSince > keptMs) {
        ;[read, readBefore] = [new Set(), read]
        readSince = clock.monotonic()
      }
      for (const xid of xids) read.add(xid)
      reach = now
    },

    /** Returns the transactions that were committed before a reading of the log, and are not among its entries. */
    takeMissing(readAt: number) {
      const due = awaited.filter(({ committedAt }) => committedAt <= readAt)
      awaited = awaited.filter(({ committedAt }) => committedAt > readAt)
      return due.filter(({ xid }) => !read.has(xid) && !readBefore.has(xid))
    },

    /** True if readers pass over an entry with this number, because it is not above the numbers that were read before. */
    isMisplaced({ before }: { before: Reach }, revision: number): boolean {
      if (before.revision !== null && revision <= before.revision) return true
      return before.gaps === reach.gaps && reach.revision !== null && revision <= reach.revision
    },

    /** For a process that does not follow the log. */
    clear() {
      awaited = []
    },
  }
}
