/** A transaction of this process that is to stand in the log of changes. */
interface OwnChange {
  /** The number of the transaction. */
  xid: string
  /** How far this process had read the log before the transaction was committed. */
  before: Reach
  /** When it was committed, by the monotonic clock. */
  committedAt: number
}

/** How far the log has been read: its highest number, and how often this process had to begin anew. */
interface Reach {
  revision: number | null
  gaps: number
}

/** How long the transactions that were read are remembered: the bell may be faster than the answer to COMMIT. */
const rememberedMs = 30_000

export type OwnChanges = ReturnType<typeof createOwnChanges>

/**
 * Holds what this process has changed against what it reads of the log. The order of the log rests on a sequence and on the
 * clock of the server. If both were set back, a change gets a number that no reader looks at any more. The process that made the
 * change does not find it, and so notices.
 */
export function createOwnChanges(clock: { monotonic(): number }) {
  let reach: Reach = { revision: null, gaps: 0 }
  let awaited: OwnChange[] = []
  let [read, readBefore] = [new Set<string>(), new Set<string>()]
  let readSince = clock.monotonic()

  return {
    /** Notes a transaction that is about to be committed, and returns the function to call once it is. */
    begin(xid: string): () => void {
      const before = reach
      return () => {
        awaited.push({ xid, before, committedAt: clock.monotonic() })
      }
    },

    /** Notes which transactions the entries are of that were read, and how far that is. */
    follow(xids: readonly string[], now: Reach) {
      if (clock.monotonic() - readSince > rememberedMs) {
        ;[read, readBefore] = [new Set(), read]
        readSince = clock.monotonic()
      }
      for (const xid of xids) read.add(xid)
      reach = now
    },

    /** Returns the transactions that were committed before the log was read at that time, and are not in what was read of it. */
    takeMissing(readAt: number): OwnChange[] {
      const due = awaited.filter(({ committedAt }) => committedAt <= readAt)
      awaited = awaited.filter(({ committedAt }) => committedAt > readAt)
      return due.filter(({ xid }) => !read.has(xid) && !readBefore.has(xid))
    },

    /** True if readers pass over an entry with this number, because it should have been above what was read before. */
    isMisplaced({ before }: OwnChange, revision: number): boolean {
      if (before.revision !== null && revision <= before.revision) return true
      return before.gaps === reach.gaps && reach.revision !== null && revision <= reach.revision
    },

    /** For a process that does not follow the log. */
    clear() {
      awaited = []
    },
  }
}
