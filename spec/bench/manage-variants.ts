/** The variants of the part `manage`, and the databases of their keys. */
export const manageVariants = {
  ours: { title: '**ours**', tables: 'ours', isKeyed: false },
  oursKeyed: { title: '**ours, `secrets`**', tables: 'ours', isKeyed: true },
  before: { title: 'the other build', tables: 'ours', isKeyed: false },
  beforeKeyed: { title: 'the other build, `secrets`', tables: 'ours', isKeyed: true },
  betterAuth: { title: 'better-auth', tables: 'betterAuth', isKeyed: false },
  sequelize: { title: 'Sequelize by hand', tables: 'byHand', isKeyed: false },
  sequelizeAudit: { title: 'the same, with an audit row', tables: 'byHand', isKeyed: false },
  pg: { title: 'plain SQL by pg', tables: 'byHand', isKeyed: false },
  copy: { title: 'COPY into our table', tables: 'ours', isKeyed: false },
  copyBare: { title: 'COPY into our table without triggers', tables: 'ours', isKeyed: false },
} as const satisfies Record<string, { title: string; tables: string; isKeyed: boolean }>

export type ManageVariant = keyof typeof manageVariants

/** How many keys a call of `createMany` makes. */
export const keysPerCall = 1_000

export interface Key {
  id: string
  userId: string
}

/** The functions with which a variant manages keys. An operation that a variant lacks is not measured. */
export interface Manager {
  /** Returns the id of the new key. */
  create?(userId: string): Promise<string>
  setPermissions?(key: Key, isMany: boolean): Promise<unknown>
  setSuspended?(key: Key, isSuspended: boolean): Promise<unknown>
  revoke?(key: Key): Promise<unknown>
  rotate?(key: Key): Promise<unknown>
  /** Returns how many keys the page has. */
  list?(userId: string): Promise<number>
  createMany?: ((userIds: readonly string[]) => Promise<unknown>) | undefined
  /** Resolves when the work that follows operations is done. */
  settle?(): Promise<unknown>
  /** Returns the keys that are there, in an order that has nothing to do with their places in the table. */
  existing(): Promise<Key[]>
}
