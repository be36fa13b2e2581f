import { createOwnerCache, type CachedOwner } from '../../lib/verification/owners'

/** Returns a user as the owner of cached keys. */
export function cachedUser(id: string): CachedOwner {
  return createOwnerCache(1).of({ type: 'user', id })
}
