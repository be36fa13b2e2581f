import { ownerColumns } from '../../models/owner'
import type { UserIdType } from '../../models/storage-options'

/** An id of the app's, in any of the forms that ids come in. */
export type AnyId = string | number | bigint

/** A user of the app, as the owner of keys. */
export interface UserOwner<Id = string | number> {
  readonly type: 'user'
  readonly id: Id
}

/** An organisation of the app, as the owner of keys that outlive their makers. */
export interface OrganizationOwner<Id = string | number> {
  readonly type: 'organization'
  readonly id: Id
}

/** A service of the app, as the owner of keys. The app chooses its name, for example `nightly-import`. */
export interface ServiceOwner {
  readonly type: 'service'
  readonly id: string
}

/** The owner of a key. */
export type Owner = UserOwner | OrganizationOwner | ServiceOwner

/** An owner as input: by its type and id, or a user by their id alone. */
export type OwnerOf<O extends Owner> =
  { owner: O; userId?: never } | { userId: AnyId; owner?: never }

/** The same if the owner may be left out. */
export interface SomeOwner<O extends Owner = Owner> {
  /** The owner of the keys. */
  owner?: O
  /** The short form of `owner` for a user. */
  userId?: AnyId
}

/** The types of the ids of owners, by the kinds of owners that the app has. */
export interface IdTypes {
  user: UserIdType
  organization?: UserIdType | undefined
  /** A service has a name, not an id of the app's tables. */
  service?: 'text' | undefined
}

/** True if all keys of an app are users'. */
export function isUsersOnly({ organization, service }: IdTypes): boolean {
  return organization === undefined && service === undefined
}

/** Returns the column of an owner, with its id as text. */
export function ownerRow({ type, id }: Owner): Partial<Record<string, string>> {
  return { [ownerColumns[type]]: String(id) }
}

/** Returns a text for each owner, by which owners are compared. */
export function nameOfOwner({ type, id }: Owner): string {
  return `${type} ${id}`
}

/** True if two owners are the same. */
export function isSameOwner(one: Owner, other: Owner): boolean {
  return one.type === other.type && one.id === other.id
}

/** The type of the ids of users among some owners. */
export type UserIdOf<O extends Owner> = Extract<O, { type: 'user' }>['id']

/** The `userId` of a key if all keys are users'. Else keys have `owner` alone, so that no query is given a missing id. */
export type UserIdIn<O extends Owner> = [Exclude<O, { type: 'user' }>] extends [never]
  ? { readonly userId: UserIdOf<O> }
  : unknown
