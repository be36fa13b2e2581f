import type { IncomingMessage, ServerResponse } from 'node:http'

import type { AnyApp, App } from '../keys/app'
import { lastEndOf } from '../verification/decide'
import { acceptanceOf, type VerifiedApiKey } from '../verification/verified-key'
import type { Authenticator } from './authentication'
import type { Guard } from './guards'
import type { GuardedRequest } from './request'

/** A caller, in the form in which `@modelcontextprotocol/sdk` hands callers to tools: its `AuthInfo`. */
export interface McpAuthInfo<A extends App = AnyApp> {
  /** The id of the key, in place of its plain text, so that no tool and no log gets the key. */
  token: string
  /** The id of the key. */
  clientId: string
  scopes: A['permission'][]
  /**
   * When the key expires, in seconds since 1970. The SDK refuses callers without this, so a key that does not expire has a time an hour from
   * now.
   */
  expiresAt: number
  extra: { apiKey: VerifiedApiKey<A> }
}

/** The time that is given for keys that do not expire. */
const longestMs = 3_600_000

/** Returns the caller that came with an accepted key. */
export function authInfoOf(apiKey: VerifiedApiKey): McpAuthInfo {
  const { id, permissions } = apiKey
  const row = acceptanceOf(apiKey)?.row
  const endsAtMs = row ? lastEndOf(row) : Infinity
  return {
    token: id,
    clientId: id,
    scopes: [...permissions],
    expiresAt: Math.floor((endsAtMs === Infinity ? Date.now() + longestMs : endsAtMs) / 1_000),
    extra: { apiKey },
  }
}

/** Makes a guard that also puts the caller on the request as `req.auth`, from which the transports of the SDK take it. */
export function withAuthInfo(guard: Guard, { recall }: Pick<Authenticator, 'recall'>): Guard {
  return function guardForMcp(req: GuardedRequest, res: ServerResponse, next) {
    guard(req, res, (error?: unknown) => {
      const accepted = recall(req)?.accepted
      if (accepted) setAuth(req, authInfoOf(accepted.key.apiKey))
      next(error)
    })
  }
}

function setAuth(req: IncomingMessage & { auth?: unknown }, auth: McpAuthInfo) {
  req.auth = auth
}
