import { runIn } from '../database/query'
import { sourceOfPrefix } from '../keys/imported-prefix'
import type { ApiKeyRecord } from '../keys/record'
import type { OwnCircumstances, Parts } from './calls'
import type { MadeOfRow } from './import-dry-run'
import type { ImportedRow, ImportedState } from './import-keys'
import { isLogged, plan, readKeys, writeChanges, type Decision, type ReadKey } from './key-changes'

/**
 * Suspends, revokes and shortens keys that were suspended, revoked or shortened in the other system since their import, and returns these
 * changes. A key that was rotated here belongs to that system no longer, and stays.
 */
export async function takeOver(
  parts: Parts,
  rows: readonly ImportedRow[],
  known: ReadonlyMap<number, string>,
  own: OwnCircumstances,
): Promise<MadeOfRow[]> {
  const byId = new Map<string, ImportedRow>()
  for (const row of rows) {
    const id = known.get(row.place)
    if (id !== undefined) byId.set(id, worseOf(byId.get(id) ?? row, row))
  }
  if (byId.size === 0) return []

  const runHere = runIn(parts.sequelize, own.transaction)
  const isWorse = (key: ReadKey) => decideWorse(key, byId.get(key.record.id)) !== null
  const ids = [...byId.keys()].map((id) => ({ id }))
  const worse = (await readKeys(parts, runHere, ids, '')).filter(isWorse)
  if (worse.length === 0) return []

  const locked = await readKeys(
    parts,
    runHere,
    worse.map(({ record }) => ({ id: record.id })),
    'FOR NO KEY UPDATE OF key',
  )
  const planned = locked.flatMap((key) => {
    const decision = decideWorse(key, byId.get(key.record.id))
    return (decision && plan(key, decision, own)) ?? []
  })
  if (planned.length === 0) return []
  const { made, xid } = await writeChanges(parts, runHere, planned)
  parts.noteMade(own.transaction, made, { xid, isLogged: made.some(isLogged) })
  return made.flatMap(({ change }) => {
    const row = byId.get(change.after.record.id)
    return row ? { row, change } : []
  })
}

const badness = { ACTIVE: 0, SUSPENDED: 1, REVOKED: 2 }

/** Returns of two rows with one key the row that lets the key do less: by its status, then by its expiry. */
export function worseOf(one: ImportedRow, other: ImportedRow): ImportedRow {
  const difference = badness[one.state.status] - badness[other.state.status]
  return difference > 0 || (difference === 0 && endOf(one) <= endOf(other)) ? one : other
}

function endOf({ state: { expiresAt } }: ImportedRow): number {
  return expiresAt?.getTime() ?? Infinity
}

function decideWorse({ record, prefix }: ReadKey, row: ImportedRow | undefined): Decision | null {
  if (!row || sourceOfPrefix(prefix) === null) return null

  const changes = worseState(record, row.state)
  if (!changes) return null
  const actions = { ACTIVE: 'updated', SUSPENDED: 'suspended', REVOKED: 'revoked' } as const
  return { action: actions[changes.status ?? 'ACTIVE'], changes }
}

/** Returns what a row changes of a key; `null` if the row does not let the key do less. */
export function worseState(
  key: Pick<ApiKeyRecord, 'status' | 'expiresAt'>,
  { status, expiresAt }: ImportedState,
): Partial<Pick<ApiKeyRecord, 'status' | 'expiresAt'>> | null {
  if (key.status === 'REVOKED') return null
  if (status === 'REVOKED') return { status }

  const isShorter = expiresAt !== null && (key.expiresAt === null || expiresAt < key.expiresAt)
  const isSuspended = status === 'SUSPENDED' && key.status === 'ACTIVE'
  if (!isShorter && !isSuspended) return null
  return { ...(isShorter && { expiresAt }), ...(isSuspended && { status }) }
}
