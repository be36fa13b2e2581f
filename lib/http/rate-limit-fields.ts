import { serializeList } from 'structured-headers'

import type { LimitState } from '../errors'

/** The fields in which a client reads where it stands (draft-ietf-httpapi-ratelimit-headers, of version 8 and later). */
export function fieldsOf(limits: readonly LimitState[]): Record<string, string> {
  return {
    'RateLimit-Policy': serializeList(
      limits.map(({ name, limit, windowSeconds }) => [
        name,
        new Map([
          ['q', limit],
          ['w', windowSeconds],
        ]),
      ]),
    ),
    RateLimit: serializeList(
      limits.map(({ name, remaining, resetMs }) => [
        name,
        new Map([
          ['r', remaining],
          ['t', secondsOf(resetMs)],
        ]),
      ]),
    ),
  }
}

function secondsOf(ms: number): number {
  return Math.max(Math.ceil(ms / 1_000), 1)
}
