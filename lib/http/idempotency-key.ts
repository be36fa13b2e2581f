import type { Request } from 'express'
import { parseItem } from 'structured-headers'

import { ApiKeysError } from '../errors'

const longest = 255

/** Clients of well-known services send keys without the quotes. */
const bareKey = /^[\w-]+$/

/**
 * Returns the idempotency key of a request (draft-ietf-httpapi-idempotency-key-header-07, section 2.1), for the options of a call.
 * It is a string of structured fields (RFC 9651, section 3.3.3), or the same text without quotes.
 */
export function idempotencyKeyOf({ req }: { req: Request }): { idempotencyKey?: string } {
  const field = req.get('Idempotency-Key')
  if (field === undefined) return {}

  const idempotencyKey = bareKey.test(field) ? field : readString(field)
  if (idempotencyKey === '' || idempotencyKey.length > longest) throw malformed()
  return { idempotencyKey }
}

function readString(field: string): string {
  try {
    const [value] = parseItem(field)
    if (typeof value === 'string') return value
  } catch {
    // The sentence of the refusal says what is expected.
  }
  throw malformed()
}

function malformed() {
  return new ApiKeysError('malformed_idempotency_key')
}
