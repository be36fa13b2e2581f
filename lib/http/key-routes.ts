import type { Request } from 'express'

import type { ApiKeyEvent } from '../audit/trail'
import type { ChangeOptions } from '../lifecycle/types'
import { queryOf } from './query'
import { clientAddressOf } from './request'
import type { Call, Caller, RouterParts, Routes, UserId } from './router'

export function addressOf(req: Request): Pick<ChangeOptions, 'address'> {
  const address = clientAddressOf(req)
  return address === null ? {} : { address }
}

/** Who manages keys: what comes with what they ask for, and what they see of an entry of the audit trail. */
export interface Reader {
  optionsOf(caller: Caller): ChangeOptions
  shownTo(event: ApiKeyEvent, userId: UserId): ApiKeyEvent
}

/** The name of the id in paths. The app may have an `id` in the path that it mounts the router at. */
const keyId = 'apiKeysKeyId'
const keyPath = `/:${keyId}`

/** The routes of one key, the same for owners and administrators but for whose keys there are. */
export function createKeyRoutes(
  { lifecycle, parse }: RouterParts,
  parseRestrictQuery: (query: unknown) => { everywhere?: boolean },
  { optionsOf, shownTo }: Reader,
): Routes {
  const parseChangeQuery = parse.notEverywhere('is not for this')
  const parseRotationQuery = parse.notEverywhere('is not for this: use it to end the rotation')

  function restriction(name: 'suspend' | 'revoke' | 'endRotation') {
    return async function restrict({ req, userId, body }: Call) {
      const query = parseRestrictQuery(queryOf(req))
      const explanation = parse.explanation(body)
      return lifecycle[name](idOf(req), {
        ...optionsOf({ req, userId }),
        ...query,
        ...explanation,
      })
    }
  }

  return {
    [keyPath]: {
      async get({ req, userId }) {
        return lifecycle.get(idOf(req), optionsOf({ req, userId }))
      },
      async patch({ req, userId, body }) {
        parseChangeQuery(queryOf(req))
        return lifecycle.update(idOf(req), body, optionsOf({ req, userId }))
      },
      delete: restriction('revoke'),
    },
    [`${keyPath}/permissions`]: {
      async put({ req, userId, body }) {
        const query = parseRestrictQuery(queryOf(req))
        const { permissions } = parse.permissionSet(body)
        const options = { ...optionsOf({ req, userId }), ...query }
        return lifecycle.setPermissions(idOf(req), permissions, options)
      },
    },
    [`${keyPath}/suspend`]: { post: restriction('suspend') },
    [`${keyPath}/reactivate`]: {
      async post({ req, userId, body }) {
        parseChangeQuery(queryOf(req))
        const explanation = parse.explanation(body)
        return lifecycle.reactivate(idOf(req), { ...optionsOf({ req, userId }), ...explanation })
      },
    },
    [`${keyPath}/rotate`]: {
      async post({ req, userId, body }) {
        parseRotationQuery(queryOf(req))
        const input = parse.rotationWish(body)
        return lifecycle.rotate(idOf(req), { ...optionsOf({ req, userId }), ...input })
      },
    },
    [`${keyPath}/rotation`]: { delete: restriction('endRotation') },
    [`${keyPath}/events`]: {
      async get({ req, userId }) {
        const { id } = await lifecycle.get(idOf(req), optionsOf({ req, userId }))
        const page = queryOf(req)
        parse.eventPage(page)
        const { events, nextCursor } = await lifecycle.events({ ...page, apiKeyId: id })
        return { events: events.map((event) => shownTo(event, userId)), nextCursor }
      },
    },
    [`${keyPath}/usage`]: {
      async get({ req, userId }) {
        return lifecycle.usage(idOf(req), queryOf(req), optionsOf({ req, userId }))
      },
    },
  }
}

function idOf(req: Request): string {
  return String(req.params[keyId])
}
