import type { ServerResponse } from 'node:http'

import { challengeOf, type ApiKeysError } from '../errors'
import { problemOf, sendRefusal } from '../http/answer'

/** Answers a refusal as OAuth clients read it (RFC 6749, section 5.2), with the members of a problem document besides. */
export function sendOAuthError(res: ServerResponse, refusal: ApiKeysError) {
  const own = { error: errorOf(refusal), error_description: refusal.message }
  const body = { ...problemOf(refusal), ...own }
  sendRefusal(res, refusal, 'application/json', body)
}

function errorOf({ code, status, headers }: ApiKeysError): string {
  if (status === 429 || status === 503) return 'temporarily_unavailable'
  // A client that authenticates by its secret has sent no token.
  if (headers['WWW-Authenticate']?.startsWith('Basic')) return 'invalid_client'
  return challengeOf(code) ?? (status === 401 ? 'invalid_client' : 'invalid_request')
}
