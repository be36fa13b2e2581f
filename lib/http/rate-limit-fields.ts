import { serializeList } from 'structured-headers'

import type { LimitState } from '../errors'
import type { NamedLimit } from '../keys/limits'

/**
 * The fields in which a client reads where it stands with its limits (draft-ietf-httpapi-ratelimit-headers, of version 8 and
 * later).
 */
export function fieldsOf(limits: readonly NamedLimit[], states: readonly LimitState[]) {
  return { 'RateLimit-Policy': policyOf(limits), RateLimit: stateOf(states) }
}

/** Keys share their lists of limits, and the field is on all of their responses. */
const policies = new WeakMap<readonly NamedLimit[], string>()

function policyOf(limits: readonly NamedLimit[]): string {
  const known = policies.get(limits)
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
  policies.set(limits, policy)
  return policy
}

/** Spelt out, for it is another one on each response: a name is of letters, digits, "_" and "-". */
function stateOf(states: readonly LimitState[]): string {
  let field = ''
  for (const { name, remaining, resetMs } of states) {
    field += `${field && ', '}"${name}";r=${remaining};t=${secondsOf(resetMs)}`
  }
  return field
}

function secondsOf(ms: number): number {
  return Math.max(Math.ceil(ms / 1_000), 1)
}
