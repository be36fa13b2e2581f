import { optionsOf } from '../../models/option-checks'
import type { ImportReport } from '../importing/report'
import type { ImportRow } from '../importing/source'
import type { LimitOverrides } from '../keys/limits'
import { createDryRun } from './import-dry-run'
import type { ChangeOptions } from './types'
import type { Owner } from '../keys/owner'

/** Returns a value for a row, which is given as it was read and as it came; `undefined` for the value of the row. */
type ForRow<Value> = (row: ImportRow, given: Readonly<Record<string, unknown>>) => Value | undefined

const enforceable = ['maxLifetimeSeconds', 'maxKeysPerOwner'] as const

type Enforced = (typeof enforceable)[number]

/** The options of an import. */
export interface ImportOptions<
  Permission extends string = string,
  O extends Owner = Owner,
> extends Omit<ChangeOptions<O>, 'owner' | 'userId' | 'transaction' | 'mayGive'> {
  /** The permissions of all keys, or of each row. Without it, the permissions of the rows. */
  permissions?: readonly Permission[] | ForRow<readonly string[]> | undefined
  /** The owner of all keys, or of each row. Without it, the owner of the row. */
  owner?: O | ForRow<O> | undefined
  /** The limits of each row, for example those of the other system. Without it, the limits of the row, which rarely has any. */
  limits?: ForRow<LimitOverrides | null> | undefined
  /**
   * The options of the app that imported keys have to obey as well. A row beyond them is refused.
   *
   * @default []
   */
  enforce?: readonly Enforced[] | undefined
  /**
   * Does everything, and takes it back. The report says what would be done. It notes the hash and the owner of each new key until it ends.
   *
   * @default false
   */
  dryRun?: boolean | undefined
  /** Called after each thousand rows, with the report so far and the number of rows that were read. */
  onProgress?: ((progress: ImportReport & { rows: number }) => void) | undefined
}

/** The options of an import, read. */
export type ImportWish = ReturnType<typeof readImportOptions>['wish']

/** Reads the options of an import, and returns the options that all calls have. */
export function readImportOptions(given: ImportOptions | undefined) {
  const {
    permissions,
    owner,
    limits,
    enforce = [],
    dryRun = false,
    onProgress,
    ...options
  } = optionsOf(given)
  if (typeof dryRun !== 'boolean') throw new TypeError('dryRun must be true or false')
  if (!Array.isArray(enforce) || !enforce.every((name) => enforceable.includes(name))) {
    throw new TypeError(`enforce must be a list of ${enforceable.join(', ')}`)
  }
  for (const [name, value] of Object.entries({ limits, onProgress })) {
    if (value !== undefined && typeof value !== 'function')
      throw new TypeError(`${name} must be a function`)
  }
  return {
    options: options as ChangeOptions,
    wish: {
      permissions: forRow<readonly string[]>(permissions),
      owner: forRow(owner),
      limits: forRow(limits),
      enforce,
      dryRun: dryRun ? createDryRun() : null,
      onProgress,
    },
  }
}

function forRow<Value>(given: Value | ForRow<Value> | undefined): ForRow<Value> {
  // A list and an owner are no functions.
  return typeof given === 'function' ? (given as ForRow<Value>) : () => given
}
