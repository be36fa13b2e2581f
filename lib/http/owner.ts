import { warn } from '../../models/warnings'
import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Parsers } from '../keys/input'
import type { Owner } from '../keys/owner'
import type { Settings } from '../read-options'
import type { Acceptance } from '../verification/verified-key'
import { withoutStack } from './answer'
import type { Accepted, Authentication, Caller } from './caller'
import type { GuardedRequest } from './request'

/** The parts of the library that the owner check uses. */
export interface OwnerParts {
  parse: Pick<Parsers, 'readUserId'>
  settings: Pick<Settings, 'currentUser' | 'loadOwner' | 'storage'>
}

/** Compares the owner of a key with the user who is signed in, and finds the user that the request acts for. */
export function createOwnerCheck({ parse, settings }: OwnerParts) {
  const { currentUser, loadOwner, storage } = settings

  async function compareSignedIn(
    req: GuardedRequest,
    { row: { owner } }: Acceptance,
  ): Promise<'owner' | 'other' | 'nobody'> {
    const user: object | null | undefined = currentUser ? await currentUser(req) : req.user
    if (!user) return 'nobody'

    const signedInId = parse.readUserId((user as { id?: unknown }).id)
    if (signedInId === undefined && currentUser) {
      warn(
        'API_KEYS_USER_ID',
        `currentUser returned a user whose id is not of the type ${storage.users.idType}, so that the user owns no key. Return the id that the tables have, or set users.type.`,
      )
    }
    return owner.type === 'user' && signedInId === owner.id ? 'owner' : 'other'
  }

  return {
    /** Accepts a key for its owner, unless the owner is gone or another user is signed in. */
    async accept(req: GuardedRequest, key: Acceptance, caller: Caller): Promise<Authentication> {
      const { user: present } = req
      const { owner } = key.row
      const signedIn = present ? await compareSignedIn(req, key) : 'nobody'
      if (signedIn === 'other') return refuse(key, caller, twoCredentials)
      if (present && signedIn === 'owner') return caller.accept(key, present, present)

      // The owner takes the place of a guest, who is not signed in.
      const user = loadOwner ? await loadOwner(owner.shown, req) : userOf(owner)
      if (!user && owner.type === 'user')
        return refuse(key, caller, () => new InvalidApiKeyError('unknown'))
      return caller.accept(key, user ?? undefined, present)
    },

    /** Accepts a key again, because the app has put another user on the request since. */
    async acceptAgain(req: GuardedRequest, accepted: Accepted): Promise<Authentication> {
      const { key, caller, user } = accepted
      const signedIn = await compareSignedIn(req, key)
      if (signedIn === 'other') return refuse(key, caller, twoCredentials)
      return signedIn === 'owner' ? accepted : caller.accept(key, user, req.user)
    },
  }
}

/** Returns the user of a key. If its owner is no user, there is none. */
export function userOf({ type, id }: Owner): { id: string | number } | undefined {
  return type === 'user' ? { id } : undefined
}

function twoCredentials() {
  return new ApiKeysError('multiple_credentials')
}

function refuse({ row }: Acceptance, caller: Caller, make: () => ApiKeysError) {
  caller.refused = { id: row.id, owner: row.owner.shown }
  return { kind: 'refused', error: withoutStack(make) } as const
}
