import { valueOf } from '../form'
import type { Call } from '../router'

/** An owner as an administrator has typed it. */
export interface OwnerInput {
  ownerType: string
  ownerId: string
}

/** Returns an owner as functions of the library take it; `undefined` for none. They check it. */
export function ownerOf({ ownerType, ownerId }: OwnerInput) {
  return ownerId === '' ? undefined : { type: ownerType || 'user', id: ownerId }
}

/** Returns the owner in a query. */
export function ownerInQuery(query: URLSearchParams): OwnerInput {
  return {
    ownerType: query.get('ownerType')?.trim() ?? '',
    ownerId: query.get('ownerId')?.trim() ?? '',
  }
}

/** Returns the owner that a request names: in its form, or in its query if it sends none. */
export function ownerIn({ query, form }: Pick<Call, 'query' | 'form'>): OwnerInput {
  if (form.size === 0) return ownerInQuery(query)
  return { ownerType: valueOf(form, 'ownerType').trim(), ownerId: valueOf(form, 'ownerId').trim() }
}
