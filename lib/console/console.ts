import type { Guard } from '../http/guards'
import { createKeyFormViews } from './key-form-views'
import { createKeyViews } from './key-views'
import { createListView } from './list-view'
import { readConsoleOptions, type ConsoleOptions } from './options'
import { createPages, keyId, type ConsoleParts } from './router'
import { createSecretViews } from './secret-views'

/** Makes the pages on which signed-in users manage their own keys. */
export function createConsole(parts: ConsoleParts, options: ConsoleOptions = {}): Guard {
  const look = readConsoleOptions(options, parts.settings.permissions)
  const keyForm = createKeyFormViews(parts)
  const key = createKeyViews(parts)
  const secret = createSecretViews(parts)

  return createPages(parts, look, {
    '/': createListView(parts),
    '/new': keyForm.create,
    [`/:${keyId}`]: key.show,
    [`/:${keyId}/edit`]: keyForm.edit,
    [`/:${keyId}/suspend`]: key.suspend,
    [`/:${keyId}/reactivate`]: key.reactivate,
    [`/:${keyId}/rotate`]: secret.rotate,
    [`/:${keyId}/end-rotation`]: secret.endRotation,
    [`/:${keyId}/revoke`]: secret.revoke,
  })
}
