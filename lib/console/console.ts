import type { Guard } from '../http/guards'
import { keyPath } from '../http/key-routes'
import { createAdminRoutes } from './admin/routes'
import { createKeyFormViews } from './key-form-views'
import { createKeyViews } from './key-views'
import { createListView } from './list-view'
import { readConsoleOptions, type ConsoleOptions } from './options'
import { createPages, type ConsoleParts } from './router'
import { createSecretViews } from './secret-views'

/** Makes the pages on which signed-in users manage their own keys, members the keys of an organization, or administrators all keys. */
export function createConsole(parts: ConsoleParts, options: ConsoleOptions = {}): Guard {
  const look = readConsoleOptions(options, parts.settings)
  const keyForm = createKeyFormViews(parts)
  const key = createKeyViews(parts)
  const secret = createSecretViews(parts)
  const { before = {}, instead = {} } = look.admin ? createAdminRoutes(parts) : {}

  return createPages(parts, look, {
    '/': createListView(parts),
    '/new': keyForm.create,
    ...before,
    [keyPath]: key.show,
    [`${keyPath}/edit`]: keyForm.edit,
    [`${keyPath}/suspend`]: key.suspend,
    [`${keyPath}/reactivate`]: key.reactivate,
    [`${keyPath}/rotate`]: secret.rotate,
    [`${keyPath}/end-rotation`]: secret.endRotation,
    [`${keyPath}/revoke`]: secret.revoke,
    ...(look.admin && { [`${keyPath}/unrevoke`]: key.unrevoke }),
    ...instead,
  })
}
