/** The names of the criteria that say which keys a change of many is about. */
export const filterNames = [
  'owner',
  'createdBy',
  'environment',
  'status',
  'isExpired',
  'permission',
  'text',
] as const

/** True if ids or a filter say which keys a call is about. Without either, it would be about all keys. */
export function namesKeys(
  criteria: Partial<Record<(typeof filterNames)[number] | 'ids', unknown>>,
) {
  const isFiltered = filterNames.some((name) => criteria[name] !== undefined)
  return isFiltered !== (criteria.ids !== undefined)
}

/** Returns the message for a change of many keys that names none, in an app with these environments. */
export function notNamedIn(environments: readonly string[]): string {
  const environment = environments.length > 0 ? ' environment,' : ''
  return `must have either ids, or some of owner, createdBy,${environment} status, isExpired, permission and text`
}
