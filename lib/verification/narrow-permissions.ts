import { ApiKeysError } from '../errors'
import type { SentKey } from '../keys/secret'
import { answerLimitMs } from './ask-grantable'
import { momentOf, type Clock } from '../database/clock'
import type { Grant, Grants } from './owner-permissions'
import { within } from '../database/time-limit'
import { AcceptedKey, type Bearer } from './verified-key'
import type { Verdict, Verifier } from './verify'

type Accepted = Verdict & { valid: true }

interface NarrowingParts {
  verifier: Pick<Verifier, 'verify' | 'confirms'>
  grants: Grants
  clock: Clock
}

/** How often the app is asked where users keep being changed meanwhile. */
const maxAttempts = 3

/** Leaves keys no more permissions than their owners have at the moment: what an owner may no longer do, no key may. */
export function createNarrowing({ verifier, grants, clock }: NarrowingParts) {
  function recall(userId: string | number): Grant | undefined {
    return grants.recall(userId, clock.monotonic(), clock.wall())
  }

  function narrow(verdict: Verdict, sent: SentKey, bearer: Bearer): Verdict | Promise<Verdict> {
    if (!verdict.valid) return verdict

    const grant = recall(verdict.apiKey.userId)
    if (grant) return under(grant, verdict)
    return within({ limitMs: answerLimitMs, isAwaited: true }, ask(verdict, sent, bearer))
  }

  /** Asks the app, and again where the user was changed while it answered. */
  async function ask(verdict: Accepted, sent: SentKey, bearer: Bearer): Promise<Verdict> {
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const { userId } = verdict.apiKey
      // What others have asked for since may be there.
      const grant = recall(userId) ?? (await grants.ask(userId))
      // The key may have been changed meanwhile as well.
      if (!verifier.confirms(acceptedOf(verdict))) {
        const again = await verifier.verify(sent, bearer)
        if (!again.valid) return again
        verdict = again
      }
      const { monotonic, wall } = momentOf(clock)
      const isRecent = grants.isTracked(grant) || attempt > 1
      const isOfOwner = grant.userId === verdict.apiKey.userId
      if (isRecent && isOfOwner && grants.mayUse(grant, monotonic, wall))
        return under(grant, verdict)
    }
    throw new ApiKeysError('database_unavailable')
  }

  return {
    /** Says whether a key is good, as the verifier does, and at once where its owner is remembered, too. */
    verify(sent: SentKey, bearer: Bearer): Verdict | Promise<Verdict> {
      const verdict = verifier.verify(sent, bearer)
      return verdict instanceof Promise
        ? verdict.then((verdict) => narrow(verdict, sent, bearer))
        : narrow(verdict, sent, bearer)
    },
  }
}

function under(grant: Grant, verdict: Accepted): Accepted {
  const { permissions } = verdict.apiKey
  const held = grant.permissions.narrow(permissions)
  if (held === permissions) return verdict

  return { valid: true, apiKey: AcceptedKey.holding(held, acceptedOf(verdict)) }
}

function acceptedOf({ apiKey }: Accepted): AcceptedKey {
  // The verifier makes no others.
  return apiKey as AcceptedKey
}
