import type { Transaction } from 'sequelize'

import type { Owner } from './owner'

/** The app's option `grantable`: returns the permissions that an owner holds, and that the owner's keys may have. */
export type Grantable = (
  owner: Owner,
  context: GrantableContext,
) => readonly string[] | Promise<readonly string[]>

/** The second argument of the app's `grantable`. */
export interface GrantableContext {
  /** The transaction of the management call, if it has one. Queries of `grantable` must be part of it. */
  readonly transaction?: Transaction | undefined
}

/** True for a list of texts. `includes()` on a text such as '{READ_ALL}' would find permissions that it does not name. */
export function isListOfNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}

/** Returns the answer of `grantable`; throws a `TypeError` if it is not a list of names. */
export function readGranted(granted: unknown): readonly string[] {
  if (!isListOfNames(granted)) {
    throw new TypeError('createApiKeys: the option grantable must return a list of permissions')
  }
  return granted
}
