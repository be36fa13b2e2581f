import type { ApiKeyRecord } from '../keys/record'
import type { Line, Outcome, Sent } from './combine'
import type { WritingParts } from './calls'
import { createKeys, explainUnknownUser, type NewMember } from './new-keys'

/** Makes the line of new keys. Its members are refused by their results, so that one of them fails alone. */
export function createCreationLine(parts: WritingParts): Line<NewMember, ApiKeyRecord> {
  async function create(members: readonly NewMember[], patienceMs: number) {
    const { onPool, reportMade } = parts
    const { outcomes } = await onPool((run) => createKeys(parts, run, members, patienceMs))
    reportMade(
      outcomes.flatMap((outcome, at) =>
        outcome instanceof Error
          ? []
          : [{ change: outcome, circumstances: members[at]?.circumstances ?? {} }],
      ),
    )
    return {
      outcomes: outcomes.map((outcome): Outcome<ApiKeyRecord> =>
        outcome instanceof Error ? { error: outcome } : { result: outcome.after.record },
      ),
      finish: nothing,
    } satisfies Sent<ApiKeyRecord>
  }

  return {
    repeats: true,
    async send(members) {
      const sent = create(members, togetherPatienceMs)
      return members.length === 1 ? sent.catch(explainUnknownUser) : sent
    },
    sendAlone: (member, patienceMs) => create([member], patienceMs).catch(explainUnknownUser),
  }
}

/**
 * How long a statement for several waits for a lock. That is far below `deadlock_timeout`, so that an app that waits for the
 * library gets it out of the way before its own check for deadlocks.
 */
const togetherPatienceMs = 25

async function nothing() {}
