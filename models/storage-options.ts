/** The column types that `user_id` may have. */
export const userIdTypes = ['text', 'uuid', 'integer', 'bigint'] as const

export type UserIdType = (typeof userIdTypes)[number]

/** Where the tables live and how they refer to the app's users. The models and the migrations take the same ones. */
export interface StorageOptions<Type extends UserIdType = UserIdType> {
  /**
   * The schema of our tables. It is created by the migration where it does not exist.
   *
   * @default 'public'
   */
  schema?: string | undefined
  /** What the app's users look like to the database. */
  users?:
    | {
        /**
         * The type of a user's id. Ids of type `integer` are numbers in JavaScript and JSON, all others are strings.
         *
         * @default 'text'
         */
        type?: Type | undefined
        /** The app's table of users. With it, `user_id` is a foreign key and deleting a user deletes their keys. */
        table?: string | undefined
        /**
         * The schema of the app's table of users.
         *
         * @default 'public'
         */
        schema?: string | undefined
        /**
         * The column that a key's owner refers to.
         *
         * @default 'id'
         */
        column?: string | undefined
      }
    | undefined
}
