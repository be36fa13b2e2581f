import type { Router } from 'express'

import { parseInput } from '../keys/rules'
import { addressOf, createKeyRoutes, type Reader } from './key-routes'
import { queryOf } from './query'
import { created, createRouter, type RouterParts } from './router'

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Router {
  const { lifecycle, rules, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      async get({ req, userId }) {
        const filter = queryOf(req)
        // For what an owner may ask for. The lifecycle reads the filter itself, and so it goes on as it came.
        parseInput(rules.ownList, filter)
        return lifecycle.list({ ...filter, userId })
      },
      async post({ req, res, userId, body }) {
        const apiKey = { ...parseInput(rules.newKey, body), userId }
        const actor = { type: 'user', id: userId } as const
        return created(req, res, await lifecycle.create(apiKey, { actor, ...addressOf(req) }))
      },
    },
    '/permissions': {
      async get({ req, userId }) {
        parseInput(rules.nothing, queryOf(req))
        return parts.listPermissions(userId)
      },
    },
    ...createKeyRoutes(parts, rules.ownQuery, owner),
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
