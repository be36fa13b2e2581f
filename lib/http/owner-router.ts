import type { Router } from 'express'

import { addressOf, createKeyRoutes, type Reader } from './key-routes'
import { queryOf } from './query'
import { created, createRouter, type RouterParts } from './router'

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Router {
  const { lifecycle, parse, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      async get({ req, userId }) {
        const filter = queryOf(req)
        // For what an owner may ask for. The lifecycle reads the filter itself, and so it goes on as it came.
        parse.ownList(filter)
        return lifecycle.list({ ...filter, userId })
      },
      async post({ req, res, userId, body }) {
        const apiKey = { ...parse.newKey(body), userId }
        const actor = { type: 'user', id: userId } as const
        return created(req, res, await lifecycle.create(apiKey, { actor, ...addressOf(req) }))
      },
    },
    '/permissions': {
      async get({ req, userId }) {
        parse.nothing(queryOf(req))
        return parts.listPermissions(userId)
      },
    },
    ...createKeyRoutes(parts, parse.notEverywhere('is for administrators'), owner),
  })
}

/** From where an administrator comes, and by what role the database is reached, is no business of an owner's. */
const owner: Reader = {
  optionsOf: ({ req, userId }) => ({ userId, ...addressOf(req) }),
  shownTo(event, userId) {
    const { actorType, actorId, address } = event
    const isOwn = actorType === 'user' && actorId === String(userId)
    return {
      ...event,
      actorId: actorType === 'database' ? null : actorId,
      address: isOwn ? address : null,
    }
  },
}
