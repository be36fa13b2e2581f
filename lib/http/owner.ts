import { warn } from '../../models/warnings'
import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Parsers } from '../keys/input'
import type { Settings } from '../read-options'
import type { UsageRecorder } from '../usage/recorder'
import type { VerifiedApiKey } from '../verification/verified-key'
import { withoutStack } from './answer'
import type { Accepted, Authentication, Caller } from './caller'
import type { GuardedRequest } from './request'

/** The parts of the library that the owner check uses. */
export interface OwnerParts {
  parse: Pick<Parsers, 'readUserId'>
  /** Counts a use of a good key as denied. */
  noteDenied: UsageRecorder['noteDenied']
  settings: Pick<Settings, 'currentUser' | 'loadUser' | 'storage'>
}

/** Compares the owner of a key with the user who is signed in, and finds the user that the request acts for. */
export function createOwnerCheck({ parse, noteDenied, settings }: OwnerParts) {
  const { currentUser, loadUser, storage } = settings

  async function compareSignedIn(
    req: GuardedRequest,
    { userId }: VerifiedApiKey,
  ): Promise<'owner' | 'other' | 'nobody'> {
    const user: object | null | undefined = currentUser ? await currentUser(req) : req.user
    if (!user) return 'nobody'

    const signedInId = parse.readUserId((user as { id?: unknown }).id)
    if (signedInId === undefined && currentUser) {
      warn(
        'API_KEYS_USER_ID',
        `currentUser returned a user whose id is not of the type ${storage.userIdType}, so that the user owns no key. Return the id that the tables have, or set users.type.`,
      )
    }
    return signedInId === userId ? 'owner' : 'other'
  }

  function refuse(apiKey: VerifiedApiKey, caller: Caller, make: () => ApiKeysError) {
    noteDenied(apiKey, caller)
    caller.refused = apiKey
    return { kind: 'refused', error: withoutStack(make) } as const
  }

  return {
    /** Accepts a key for its owner, unless the owner is gone or another user is signed in. */
    async accept(
      req: GuardedRequest,
      apiKey: VerifiedApiKey,
      caller: Caller,
    ): Promise<Authentication> {
      const { user: present } = req
      const { userId } = apiKey
      const signedIn = present ? await compareSignedIn(req, apiKey) : 'nobody'
      if (signedIn === 'other') return refuse(apiKey, caller, twoCredentials)
      if (present && signedIn === 'owner') return caller.accept(apiKey, present, present)

      // The owner takes the place of a guest, who is not signed in.
      const user = loadUser ? await loadUser(userId, req) : { id: userId }
      if (!user) return refuse(apiKey, caller, () => new InvalidApiKeyError('unknown'))
      return caller.accept(apiKey, user, present)
    },

    /** Accepts a key again, because the app has put another user on the request since. */
    async acceptAgain(req: GuardedRequest, accepted: Accepted): Promise<Authentication> {
      const { apiKey, caller, user } = accepted
      const signedIn = await compareSignedIn(req, apiKey)
      if (signedIn === 'other') return refuse(apiKey, caller, twoCredentials)
      return signedIn === 'owner' ? accepted : caller.accept(apiKey, user, req.user)
    },
  }
}

function twoCredentials() {
  return new ApiKeysError('multiple_credentials')
}
