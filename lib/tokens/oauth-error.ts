import type { ServerResponse } from 'node:http'

import { oauthErrorOf, type ApiKeysError } from '../errors'
import { problemOf, sendRefusal } from '../http/answer'

/** Answers a refusal as OAuth clients read it (RFC 6749, section 5.2), with the members of a problem document besides. */
export function sendOAuthError(res: ServerResponse, refusal: ApiKeysError) {
  const scheme = refusal.headers['WWW-Authenticate']?.startsWith('Basic') ? 'Basic' : 'Bearer'
  const own = { error: oauthErrorOf(refusal.code, scheme), error_description: refusal.message }
  const body = { ...problemOf(refusal), ...own }
  sendRefusal(res, refusal, 'application/json', body)
}
