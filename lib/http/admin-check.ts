import type { Request } from 'express'

import { ApiKeysError } from '../errors'
import type { RouterParts } from './router'

/** Makes the function that finds the user of a request, and refuses a user who is no administrator. */
export function createAdminCheck(caller: string, { settings }: Pick<RouterParts, 'settings'>) {
  const { currentUser, isAdmin } = settings
  if (!currentUser || !isAdmin) {
    throw new TypeError(`${caller}: needs the options currentUser and isAdmin of createApiKeys`)
  }

  return async function currentAdmin(req: Request) {
    const user = await currentUser(req)
    if (user && (await isAdmin(user)) !== true) throw new ApiKeysError('not_an_admin')
    return user
  }
}
