import type { Request, Response } from 'express'

import { clientAddressOf } from '../http/request'
import type { RouteCommands } from '../lifecycle/commands'
import type { Verification } from '../verification/verification'
import { readForm, tokenOf } from './form'

export interface RevocationParts {
  routeCommands: Pick<RouteCommands, 'revokeSecret'>
  verification: Pick<Verification, 'locate'>
}

/**
 * Makes the handler that revokes the key of a request (RFC 7009). The key is the proof that the client may do so. The answer says nothing about
 * it (section 2.2).
 */
export function createRevoke({ routeCommands, verification }: RevocationParts) {
  return async function revoke(req: Request, res: Response) {
    const token = tokenOf(await readForm(req, res))
    const address = clientAddressOf(req)
    const { digests, key } = await verification.locate(token, { ip: address })
    if (key) {
      await routeCommands.revokeSecret(key.id, digests, {
        actor: { type: 'system' },
        reason: 'revoked with the key itself',
        ...(address !== null && { address }),
      })
    }
    res.status(200).end()
  }
}
