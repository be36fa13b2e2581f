import { keyPath } from '../../http/key-routes'
import type { ConsoleParts } from '../router'
import { createHealthView } from './health-view'
import { createKeyActionViews } from './key-action-views'
import { createOwnerChangeViews, createOwnerView } from './owner-views'
import { createTrailView } from './trail-view'
import { createUnusedView } from './unused-view'
import { createUsageView } from './usage-view'
import { createVerificationView } from './verification-view'

/**
 * Creates the views that only administrators have, by their paths: those that come before the paths of keys, because they have no id, and
 * those that take the place of views of owners.
 */
export function createAdminRoutes(parts: ConsoleParts) {
  const owner = createOwnerChangeViews(parts)
  const key = createKeyActionViews(parts)

  return {
    before: {
      '/owner': createOwnerView(parts),
      '/owner/suspend': owner.suspend,
      '/owner/reactivate': owner.reactivate,
      '/owner/revoke-all': owner.revokeAll,
      '/owner/erase': owner.erase,
      '/usage': createUsageView(parts),
      '/audit': createTrailView(parts),
      '/audit/verification': createVerificationView(parts),
      '/unused': createUnusedView(parts),
      '/health': createHealthView(parts),
    },
    instead: {
      [`${keyPath}/suspend`]: key.suspend,
      [`${keyPath}/transfer`]: key.transfer,
    },
  }
}
