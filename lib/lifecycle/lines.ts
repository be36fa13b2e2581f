import { run as runAlone } from '../database/query'
import { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { WritingParts } from './calls'
import { changeLocked, type ChangeMember } from './change-key'
import type { Line, Outcome } from './combine'
import { isLogged, plan, readKeys, writeChanges, type Planned, type ReadKey } from './key-changes'
import {
  createKeys,
  createSpelledKeys,
  draftKeys,
  explainUnknownOwner,
  type Created,
  type NewMember,
} from './new-keys'

/**
 * How long a statement for several changes waits for a lock. It is far below `deadlock_timeout`. So if the app waits
 * for the library, the library gives way before the app's own check for deadlocks.
 */
const togetherPatienceMs = 25

/** Makes the line of new keys. A refused key does not hold up the other keys. */
export function createCreationLine(parts: WritingParts): Line<NewMember, ApiKeyRecord> {
  const { onPool, reportMade } = parts

  /** Reports the new keys. A key that was neither created nor refused has no outcome. */
  function report(members: readonly NewMember[], { outcomes }: Created) {
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
      // Neither other processes nor this process have cached a new key.
      finish: async () => {},
    }
  }

  return {
    repeats: true,
    async send(members) {
      const drafts = draftKeys(parts, members)
      const sent = onPool((run) => createSpelledKeys(parts, run, drafts, togetherPatienceMs))
      const [only] = members.length === 1 ? members : []
      const created = await (only ? sent.catch(explainFor(only)) : sent)
      // These keys are queued again. A second statement that failed here would hide that the first has created keys.
      for (const [at, respelled] of created.respelled) Object.assign(members[at] ?? {}, respelled)
      return report(members, created)
    },

    async sendAlone(member, patienceMs) {
      const drafts = draftKeys(parts, [member])
      const sent = onPool((run) => createKeys(parts, run, drafts, patienceMs))
      return report([member], await sent.catch(explainFor(member)))
    },
  }
}

/**
 * Makes the line of changes. It reads the keys, decides each change, and writes the changes whose keys were not changed
 * in between. Nothing is locked between the two statements. If another transaction has changed or locked a key, its
 * change is queued again, and in the end waits for the lock.
 */
export function createChangeLine(parts: WritingParts): Line<ChangeMember, ApiKeyRecord> {
  const { sequelize, onPool, ownChanges, reportMade, verification } = parts

  /** Reports committed changes, and returns the remaining work. */
  function finishOf(made: readonly Planned[], ids: readonly string[]) {
    reportMade(made)
    return () => verification.changed(ids, undefined)
  }

  return {
    repeats: false,

    async send(members) {
      const committed = ownChanges.begin()
      const decided = await onPool(async (run) => {
        const wanted = members.map(({ id, circumstances: { owner } }) => ({ id, owner }))
        const keys = await readKeys(parts, run, wanted, '')
        const found = new Map(keys.map((key) => [key.record.id, key]))
        const decisions = members.map((member) =>
          decide(member, found.get(member.id.toLowerCase())),
        )
        const planned = decisions.flatMap((decision) => ('row' in decision ? [decision] : []))
        if (planned.length === 0) return { decisions, made: [], xid: null }
        return { decisions, ...(await writeChanges(parts, run, planned)) }
      })
      const { decisions, made, xid } = decided
      if (xid !== null && made.some(isLogged)) committed(xid)

      const isMade = new Set<unknown>(made)
      const outcomes = decisions.map((decision) => {
        if (!('row' in decision)) return decision
        return isMade.has(decision) ? { result: decision.change.after.record } : 'again'
      })
      const ids = outcomes.flatMap((outcome) =>
        outcome !== 'again' && 'result' in outcome ? [outcome.result.id] : [],
      )
      return { outcomes, finish: finishOf(made, ids) }
    },

    async sendAlone(member, patienceMs) {
      const committed = ownChanges.begin()
      const { record, planned, xid } = await sequelize.transaction(async (transaction) => {
        const sql = `SELECT set_config('lock_timeout', '${patienceMs}ms', true)`
        await runAlone(sequelize, sql, { transaction })
        return changeLocked(parts, member, transaction)
      })
      const made = planned ? [planned] : []
      if (xid !== null && made.some(isLogged)) committed(xid)
      return { outcomes: [{ result: record }], finish: finishOf(made, [record.id]) }
    },
  }
}

function explainFor({ key }: NewMember) {
  return (error: unknown) => explainUnknownOwner(error, key.owner)
}

/** Returns the change of a key; if nothing is to be written, the answer to its caller. */
function decide(member: ChangeMember, key: ReadKey | undefined): Planned | Outcome<ApiKeyRecord> {
  if (!key) return { error: new ApiKeysError('api_key_not_found') }
  try {
    const planned = plan(key, member.decide(key.record, key), member.circumstances)
    return planned ?? { result: key.record }
  } catch (error) {
    return { error }
  }
}
