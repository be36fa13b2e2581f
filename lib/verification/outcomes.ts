import type { ErrorCode, InvalidReason } from '../errors'

/** Why a request was refused: the code of the refusal, and the reason why a key is not valid. */
export interface RefusedOutcome {
  code: ErrorCode
  reason: InvalidReason | null
}

/** Counts the decisions about requests and keys of this process. */
export type Outcomes = ReturnType<typeof createOutcomes>

/** Makes the counts of decisions. They never name a key, so that there are few of them. */
export function createOutcomes() {
  const refused = new Map<string, RefusedOutcome & { count: number }>()

  return {
    /** How many requests and keys were accepted. A field, because each request adds to it. */
    accepted: 0,

    refused: refused as ReadonlyMap<string, RefusedOutcome & { readonly count: number }>,

    /** Only the refusal of an invalid key has a reason. No reason has the name of a code. */
    noteRefused(code: ErrorCode, invalidReason: InvalidReason | null) {
      const reason = code === 'invalid_api_key' ? invalidReason : null
      const name = reason ?? code
      const known = refused.get(name)
      if (known) known.count++
      else refused.set(name, { code, reason, count: 1 })
    },
  }
}
