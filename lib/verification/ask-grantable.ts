import { ApiKeysError } from '../errors'
import { causeOf } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { Grantable, GrantableContext } from '../keys/grantable'
import { within } from '../database/time-limit'

/** How long the app is given for an answer. */
export const answerLimitMs = 5_000

interface AskGrantableParts {
  grantable: Grantable
  /** Reports that the app fails to answer, or does not answer in time. */
  emitter: Pick<Emitter, 'emit'>
  /** True if the process is kept alive for the answer. */
  isAwaited?: boolean
}

/** Makes the one way to ask `grantable`: an app that fails or hangs becomes the refusal `grantable_unavailable`. */
export function createAskGrantable({ grantable, emitter, isAwaited = false }: AskGrantableParts) {
  return async function askGrantable(
    userId: string | number,
    context: GrantableContext = {},
  ): Promise<readonly string[]> {
    try {
      // In a later turn, so that the question is noted before the app is called. A function that throws counts as one that rejects.
      const answer = Promise.resolve(userId).then((id) => grantable(id, context))
      return await within({ limitMs: answerLimitMs, isAwaited }, answer)
    } catch (failure) {
      const cause = causeOf(failure)
      emitter.emit('grantable_unavailable', { userId, error: cause })
      throw new ApiKeysError('grantable_unavailable', { cause })
    }
  }
}
