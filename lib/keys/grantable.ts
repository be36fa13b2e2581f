import type { Transaction } from 'sequelize'

/** The app's option: says which permissions a user may give to keys, and so which ones the user's keys may have. */
export type Grantable = (
  userId: string | number,
  context: GrantableContext,
) => readonly string[] | Promise<readonly string[]>

/** What the app's `grantable` is told besides the user. */
export interface GrantableContext {
  /** The transaction that the caller passed to a management call. Queries of `grantable` must be part of it. */
  readonly transaction?: Transaction | undefined
}

/** Returns what `grantable` has come to; throws a `TypeError` where that is not a list of names. */
export function readGranted(granted: unknown): readonly string[] {
  // `includes()` on a text such as 'READ_ALL' would find permissions that nobody has granted.
  if (!Array.isArray(granted) || !granted.every((name) => typeof name === 'string')) {
    throw new TypeError('createApiKeys: the option grantable must return a list of permissions')
  }
  return granted
}
