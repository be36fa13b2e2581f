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

/** Says on a response where a key stands, if the response is still to be sent. */
export function setLimitFields(
  res: ServerResponse | undefined,
  limits: readonly NamedLimit[],
  states: readonly LimitState[],
) {
  if (!isOpen(res)) return
  addMembers(res, 'RateLimit-Policy', policyOf(limits))
  addMembers(res, 'RateLimit', stateOf(states))
}

/** Sets the fields of a refusal, if the response is still to be sent. */
export function setFields(
  res: ServerResponse | undefined,
  fields: Readonly<Record<string, string>>,
) {
  if (!isOpen(res)) return
  for (const [name, value] of Object.entries(fields)) {
    if (name.startsWith('RateLimit')) addMembers(res, name, value)
    else res.setHeader(name, value)
  }
}

/** A guard without a server may be given anything for a response. */
function isOpen(res: ServerResponse | undefined): res is ServerResponse {
  return res !== undefined && !res.headersSent && typeof res.setHeader === 'function'
}

/** Other limiters of the app may have written in a field, which stays. */
function addMembers(res: ServerResponse, field: string, value: string) {
  const present = res.getHeader(field)
  res.setHeader(field, present === undefined ? value : merge(String(present), value))
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
