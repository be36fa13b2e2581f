import type { Request } from 'express'

import { ApiKeysError } from '../errors'
import type { ChangeOptions } from '../lifecycle/types'
import type { OpenApiOption, RouterOptions } from './access'
import { documentRoute } from './document-route'
import type { Guard } from './guards'
import { addressOf } from './key-routes'
import { createMemberCheck, explainOwner, type Member } from './member'
import { createOwnedRoutes } from './owner-routes'
import { createRouter, type RouterParts } from './router'

/** Makes the router with which members manage the keys of their organization, whoever made them. */
export function createOrganizationRouter(
  parts: RouterParts,
  organization: NonNullable<RouterOptions['organization']>,
  openApi: OpenApiOption | undefined,
): Guard {
  const { currentUser } = parts.settings
  if (!currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }
  const enter = createMemberCheck('router', organization, parts)
  const members = new WeakMap<Request, Member>()

  function memberOf(req: Request): Member {
    const member = members.get(req)
    if (!member) throw new ApiKeysError('organization_not_found')
    return member
  }

  const routes = createOwnedRoutes(parts, {
    ownerOf: ({ req }) => memberOf(req).owner,
    mayGiveOf: ({ req }) => memberOf(req).mayGive,
    optionsOf(call): ChangeOptions {
      const { owner, mayGive } = memberOf(call.req)
      const actor = { type: 'user', id: call.userId } as const
      return { owner, actor, ...(mayGive && { mayGive }), ...addressOf(call) }
    },
  })
  const ofDocument = documentRoute(parts, 'organizationRouter', openApi)
  return createRouter(
    parts,
    currentUser,
    { ...ofDocument, ...routes },
    {
      async enter(req, user, isChange) {
        members.set(req, await enter(req, user, isChange))
      },
      explain: explainOwner,
    },
  )
}
