import { warn } from '../../models/warnings'
import type { Parsers } from '../keys/input'
import type { Settings } from '../read-options'
import type { VerifiedApiKey } from '../verification/verified-key'
import type { GuardedRequest } from './request'

export interface OwnersParts {
  parse: Pick<Parsers, 'readUserId'>
  settings: Pick<Settings, 'currentUser' | 'loadUser' | 'storage'>
}

/** Knows the owners of keys as the app does. */
export function createOwners({ parse, settings }: OwnersParts) {
  const { currentUser, storage } = settings

  return {
    /** Finds out who is signed in besides a key, compared with its owner. */
    async compareSignedIn(
      req: GuardedRequest,
      { userId }: VerifiedApiKey,
    ): Promise<'owner' | 'other' | 'nobody'> {
      const user: object | null | undefined = currentUser ? await currentUser(req) : req.user
      if (!user) return 'nobody'

      const userIdOfUser = parse.readUserId((user as { id?: unknown }).id)
      if (userIdOfUser === undefined && currentUser) {
        warn(
          'API_KEYS_USER_ID',
          `currentUser returned a user whose id is not of the type ${storage.userIdType}, so that the user owns no key. Return the id that the tables have, or set users.type.`,
        )
      }
      return userIdOfUser === userId ? 'owner' : 'other'
    },

    /** Returns what becomes `req.user`; nothing if the owner is gone. */
    async loadUser(
      req: GuardedRequest,
      { userId }: VerifiedApiKey,
    ): Promise<object | null | undefined> {
      return settings.loadUser ? settings.loadUser(userId, req) : { id: userId }
    },
  }
}
