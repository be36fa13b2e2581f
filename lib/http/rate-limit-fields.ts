import type { ServerResponse } from 'node:http'

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

/** The fields in which other limiters of the app may write, too. */
const sharedFields: ReadonlySet<string> = new Set(['RateLimit-Policy', 'RateLimit'])

/** Sets fields of a response, if it is still to be sent. What other limiters have said in a field stays there. */
export function setFields(
  res: ServerResponse | undefined,
  fields: Readonly<Record<string, string>>,
) {
  // A guard without a server may be given anything for a response.
  if (!res || res.headersSent || typeof res.setHeader !== 'function') return
  for (const [name, value] of Object.entries(fields)) {
    const present = sharedFields.has(name) ? res.getHeader(name) : undefined
    res.setHeader(name, present === undefined ? value : merge(String(present), value))
  }
}

/** The members of a list (RFC 9651, section 3.1): texts may hold commas. */
const members = /(?:"(?:[^"\\]|\\.)*"|[^",])+/g
const memberName = /^\s*("(?:[^"\\]|\\.)*")/

/** Appends members to a list. They replace those of the same names. */
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
