import type { Request } from 'express'

import { ApiKeysError } from '../errors'
import type { Parsers } from '../keys/input'
import type { MaybePromise, SignedInUser } from '../options'
import type { Settings } from '../read-options'
import type { Authenticator } from './authentication'
import { isCrossSite } from './same-origin'

interface AdmissionParts {
  authenticator: Authenticator
  parse: Pick<Parsers, 'readUserId'>
  settings: Pick<Settings, 'trustedOrigins' | 'storage'>
}

/**
 * Makes the check that admits requests of signed-in users. It returns the user and the user's id. A request with a key is not admitted,
 * so that a stolen key cannot make more keys. Nor is a change from a page of another site.
 */
export function createAdmission(
  { authenticator, parse, settings }: AdmissionParts,
  findUser: (req: Request) => MaybePromise<SignedInUser | null | undefined>,
) {
  return async function admit(
    req: Request,
  ): Promise<{ user: SignedInUser; userId: string | number }> {
    if (authenticator.carriesKey(req)) throw new ApiKeysError('api_key_not_allowed')
    if (!isSafe(req) && (await isCrossSite(req, settings.trustedOrigins))) {
      throw new ApiKeysError('cross_site_request')
    }
    const user = await findUser(req)
    if (!user) throw new ApiKeysError('not_signed_in')

    const userId = parse.readUserId(user.id)
    if (userId === undefined) {
      throw new TypeError(
        `createApiKeys: currentUser returned a user whose id is not of the type ${settings.storage.users.idType}. Return an object whose id is that of the tables, for example { id: user.uid }, or set users.type.`,
      )
    }
    return { user, userId }
  }
}

/** True if a request asks for no change. */
export function isSafe({ method }: Pick<Request, 'method'>): boolean {
  return method === 'GET' || method === 'HEAD'
}
