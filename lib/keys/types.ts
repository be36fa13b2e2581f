import type { EventAction } from '../../models/api-key-event'

/** Who does something: a signed-in user, an administrator, or the app itself. */
export type Actor = { type: 'user' | 'admin'; id: string | number | bigint } | { type: 'system' }

/** An action on a key that the library carries out. */
export type ChangeAction = Exclude<EventAction, 'retired_secret_used' | 'truncated'>
