/** Notes when keys are used, beside the request. */
export interface UsageRecorder {
  noteUse(id: string): void
  /** Resolves once everything noted so far is in the database; rejects where it cannot be written. */
  flush(): Promise<void>
}

interface UsageRecorderParts {
  writeLastUsed(uses: ReadonlyMap<string, Date>): Promise<void>
}

/** One write is under way at a time: what is noted meanwhile is gathered, one entry per key, for the next. */
export function createUsageRecorder({ writeLastUsed }: UsageRecorderParts): UsageRecorder {
  let noted = new Map<string, Date>()
  let writing: Promise<void> | undefined

  async function writeAll() {
    try {
      while (noted.size > 0) {
        const uses = noted
        noted = new Map()
        await writeLastUsed(uses).catch((error: unknown) => {
          noted = new Map([...uses, ...noted])
          throw error
        })
      }
    } finally {
      writing = undefined
    }
  }

  async function flush() {
    if (noted.size > 0) writing ??= writeAll()
    await writing
  }

  return {
    noteUse(id) {
      noted.set(id, new Date())
      // A failure to note a use is no reason to fail anything else. What is noted stays so, for the next write.
      flush().catch(() => {})
    },
    flush,
  }
}
