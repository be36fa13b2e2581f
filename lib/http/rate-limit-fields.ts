import { serializeList } from 'structured-headers'

import type { LimitState } from '../errors'

/** The fields in which a client reads where it stands (draft-ietf-httpapi-ratelimit-headers, of version 8 and later). */
export function fieldsOf(limits: readonly LimitState[]): Record<string, string> {
  return { 'RateLimit-Policy': formatPolicy(limits), RateLimit: formatState(limits) }
}

/** Policies are few, and on all responses. */
const policies = new Map<string, string>()
const maxPolicies = 1_000

/** The field `RateLimit-Policy`. */
export function formatPolicy(limits: readonly LimitState[]): string {
  let key = ''
  for (const { name, limit, windowSeconds } of limits) key += `${name} ${limit} ${windowSeconds},`
  const known = policies.get(key)
  if (known !== undefined) return known

  const policy = serializeList(
    limits.map(({ name, limit, windowSeconds }) => [
      name,
      new Map([
        ['q', limit],
        ['w', windowSeconds],
      ]),
    ]),
  )
  if (policies.size >= maxPolicies) policies.clear()
  policies.set(key, policy)
  return policy
}

/** The field `RateLimit`. Spelt out, for it is another one on each response: a name is of letters, digits, "_" and "-". */
export function formatState(limits: readonly LimitState[]): string {
  let state = ''
  for (const { name, remaining, resetMs } of limits) {
    state += `${state && ', '}"${name}";r=${remaining};t=${secondsOf(resetMs)}`
  }
  return state
}

function secondsOf(ms: number): number {
  return Math.max(Math.ceil(ms / 1_000), 1)
}
