import type { ServerResponse } from 'node:http'

import { serializeList } from 'structured-headers'

import type { LimitState } from '../errors'
import type { NamedLimit } from '../keys/limits'

/**
 * Returns the fields that report the state of a key's limits (draft-ietf-httpapi-ratelimit-headers, version 8 and
 * later).
 */
export function fieldsOf(limits: readonly NamedLimit[], states: readonly LimitState[]) {
  return { 'RateLimit-Policy': policyOf(limits), RateLimit: stateOf(states) }
}

/** Sets fields of a response if it is still to be sent. Entries of the app's other limiters stay. */
export function setFields(
  res: ServerResponse | undefined,
  fields: Readonly<Record<string, string>>,
) {
  // A guard without a server may get any object as the response.
  if (res === undefined || res.headersSent || typeof res.setHeader !== 'function') return
  for (const name in fields) {
    const value = fields[name] ?? ''
    const present = name.startsWith('RateLimit') ? res.getHeader(name) : undefined
    res.setHeader(name, present === undefined ? value : merge(String(present), value))
  }
}

/** The members of a list (RFC 9651, section 3.1): texts may hold commas. */
const members = /(?:"(?:[^"\\]|\\.)*"|[^",])+/g
const memberName = /^\s*("(?:[^"\\]|\\.)*")/

/** Appends members to a list. They replace members of the same names. */
function merge(list: string, news: string): string {
  const names = new Set(membersOf(news).map(nameOf))
  const others = membersOf(list).filter((member) => !names.has(nameOf(member)))
  return [...others, news].join(', ')
}

function membersOf(list: string): string[] {
  return (list.match(members) ?? []).map((member) => member.trim())
}

function nameOf(member: string): string {
  return memberName.exec(member)?.[1] ?? member
}

/** Keys share their lists of limits, and the field is on all of their responses. */
const policies = new WeakMap<readonly NamedLimit[], string>()

function policyOf(limits: readonly NamedLimit[]): string {
  let policy = policies.get(limits)
  if (policy === undefined) {
    policy = serializeList(limits.map(toMember))
    policies.set(limits, policy)
  }
  return policy
}

function toMember({ name, limit, windowSeconds }: NamedLimit): [string, Map<string, number>] {
  return [name, new Map(Object.entries({ q: limit, w: windowSeconds }))]
}

/** Written by hand, because each response has another text: a name is of letters, digits, "_" and "-". */
function stateOf(states: readonly LimitState[]): string {
  let field = ''
  for (const { name, remaining, resetMs } of states) {
    const seconds = Math.max(Math.ceil(resetMs / 1_000), 1)
    field += `${field && ', '}"${name}";r=${remaining};t=${seconds}`
  }
  return field
}
