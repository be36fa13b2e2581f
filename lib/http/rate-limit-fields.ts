import { serializeList } from 'structured-headers'

import type { LimitState } from '../errors'

/** The fields in which a client reads where it stands (draft-ietf-httpapi-ratelimit-headers, of version 8 and later). */
export function fieldsOf(limits: readonly LimitState[]): Record<string, string> {
  return { 'RateLimit-Policy': policyOf(limits), RateLimit: stateOf(limits) }
}

/** Policies are few, and on all responses. */
const policies = new Map<string, string>()
const maxPolicies = 1_000

function policyOf(limits: readonly LimitState[]): string {
  const key = limits.map(({ name, limit, windowSeconds }) => `${name} ${limit} ${windowSeconds}`)
  const known = policies.get(key.join())
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
  policies.set(key.join(), policy)
  return policy
}

/** Spelt out, for it is another one on each response: a name is of letters, digits, "_" and "-". */
function stateOf(limits: readonly LimitState[]): string {
  return limits
    .map(({ name, remaining, resetMs }) => `"${name}";r=${remaining};t=${secondsOf(resetMs)}`)
    .join(', ')
}

function secondsOf(ms: number): number {
  return Math.max(Math.ceil(ms / 1_000), 1)
}
