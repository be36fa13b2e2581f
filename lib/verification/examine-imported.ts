import { ApiKeysError } from '../errors'
import { signedText, type AcceptedSource, type ImportedKeys } from '../importing/imported-keys'
import type { Digest } from '../keys/secret'
import type { CachedKey } from './cache'
import type { Examination } from './examine'
import type { FailedAttempts } from './failed-attempts'
import type { Memory } from './memory'
import type { SaltedKeys } from './salted-keys'
import { newHashesOf } from './upgrade'
import type { KeyCaller } from './verified-key'

export interface ExamineImportedParts {
  memory: Pick<Memory, 'clock' | 'knownImports'>
  attempts: FailedAttempts
  /** The parts for the keys of other systems; `undefined` in an app without imported keys. */
  imports: { imported: ImportedKeys; saltedKeys: SaltedKeys } | undefined
}

/** The address that a key came from. Without one, nothing counts against it. */
export type Sender = Pick<KeyCaller, 'ip'>

/** Returns the key that has a hash; `null` if there is none. */
export type Read = (digest: Digest) => Promise<CachedKey | null>

/** How a text is read. */
export interface Reading {
  read: Read
  sender: Sender
  /**
   * At once, as for a request, if any client may have sent the text: each look-up of a made-up key counts against the sender. Or in line, as
   * for the texts of a report, whose keys with a salt are computed one after the other.
   */
  way: 'at once' | 'in line'
}

/** How many keys with a salt may wait for their values: those of a report. */
const mostWaiting = 1_000

/** Makes the function that reads the facts about a text that may be an imported key. */
export function createExamineImported({ memory, attempts, imports }: ExamineImportedParts) {
  const { clock, knownImports } = memory
  const inLine = createLine()

  /** Reads the facts about a text as an imported key. What is none, and has cost time, counts against its sender. */
  return async function examineImported(
    text: string,
    { read, sender, way }: Reading,
  ): Promise<Examination> {
    let hasCost = false

    async function keyOf(digest: Digest): Promise<CachedKey | null> {
      if (way === 'at once') {
        if (knownImports?.mayHave(digest) === false) return null
        if (!attempts.mayLookUp(sender)) throw new ApiKeysError('too_many_lookups')
        hasCost = true
      }
      return read(digest)
    }

    let source: string | null = null
    for (const accepted of imports?.imported.all ?? []) {
      if (!imports?.imported.accepts(accepted, text)) continue
      source ??= accepted.source.name
      const others: Digest[] = []
      for await (const digest of hashesOf(accepted, text)) {
        const key = await keyOf(digest)
        const digests = [digest, ...others]
        if (key) return { digests, key, source: accepted.source.name, wall: clock.wall() }
        others.push(digest)
      }
    }
    if (hasCost) attempts.note(sender)
    return { digests: [], key: null, source, wall: clock.wall() }

    /** Makes the hashes that the text has as the key of a source. Those of a key with a salt come last, and take a tenth of a second. */
    async function* hashesOf(accepted: AcceptedSource, text: string) {
      const hashes = newHashesOf(accepted, signedText(accepted.source, text))
      for (const { digest } of hashes) yield digest
      const [next] = hashes
      if (!next || imports?.saltedKeys.mayHave(accepted, text) !== true) return
      hasCost = true
      const { saltedKeys } = imports
      const find = () => saltedKeys.find(accepted, text, next.digest, sender)
      yield* await (way === 'at once' ? find() : inLine(find))
    }
  }
}

/** Makes the function that runs pieces of work one after the other, so that a long report leaves room for the requests that need some. */
function createLine() {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0

  return async function inLine<Result>(work: () => Promise<Result>): Promise<Result> {
    if (waiting >= mostWaiting) throw new ApiKeysError('too_many_lookups')
    waiting++
    const result = last.then(work)
    last = result.catch(() => {}).finally(() => waiting--)
    return result
  }
}
