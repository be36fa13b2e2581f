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
  owner?: O
  /** The short form of `owner` for a user. */
  userId?: AnyId
}

/** The type of the ids of users among some owners. */
export type UserIdOf<O extends Owner> = Extract<O, { type: 'user' }>['id']

/** The `userId` of a key if all keys are users'. Else keys have `owner` alone, so that no query is given a missing id. */
export type UserIdIn<O extends Owner> = [Exclude<O, { type: 'user' }>] extends [never]
  ? { readonly userId: UserIdOf<O> }
  : unknown
