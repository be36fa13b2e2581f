import { InvalidInputError } from '../errors'
import type { ChangeOptions } from '../lifecycle/types'
import type { MaybePromise } from '../options'
import { createAdminCheck } from './admin-check'
import { problemOf } from './answer'
import type { OpenApiOption } from './access'
import { documentRoute } from './document-route'
import type { Guard } from './guards'
import { idempotencyKeyOf } from './idempotency-key'
import { addressOf, createKeyRoutes, keyPath, listPermissions, type Role } from './key-routes'
import { created, createRouter, type Call, type RouterParts, type Routes } from './router'

/** Makes the router with which administrators manage the keys of all users. */
export function createAdminRouter(parts: RouterParts, openApi: OpenApiOption | undefined): Guard {
  const admin: Role = {
    parseRestriction: parts.parse.everywhere,
    optionsOf: asAdmin,
    shownTo: (_, event) => event,
  }

  return createRouter(parts, createAdminCheck('adminRouter', parts), {
    ...documentRoute(parts, 'adminRouter', openApi),
    ...createListRoutes(parts),
    ...createOwnerRoutes(parts),
    ...createBulkRoutes(parts),
    ...createKeyRoutes(parts, admin),
  })
}

function asAdmin(call: Call): ChangeOptions {
  return { actor: { type: 'admin', id: call.userId }, ...addressOf(call) }
}

/**
 * Reads with a query, which names an owner by `ownerType` and `ownerId`, or by `userId`. The functions take an owner as one member.
 * Faults of it are those of the parameters.
 */
async function readOf<Result>({ query }: Call, read: (query: object) => MaybePromise<Result>) {
  const { ownerType, ownerId, ...others } = query
  if (ownerType === undefined && ownerId === undefined) return read(query)
  try {
    return await read({ ...others, owner: { type: ownerType, id: ownerId } })
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error
    throw new InvalidInputError(
      error.errors.map(({ pointer, message }) => ({
        pointer: ownerParameters.get(pointer) ?? pointer,
        message,
      })),
    )
  }
}

const ownerParameters = new Map([
  ['#/owner', '#/ownerType'],
  ['#/owner/type', '#/ownerType'],
  ['#/owner/id', '#/ownerId'],
])

function createListRoutes(parts: RouterParts): Routes {
  const { lifecycle, parse } = parts

  return {
    '/': {
      get: (call) => readOf(call, lifecycle.list),
      async post(call) {
        const options = { ...asAdmin(call), ...idempotencyKeyOf(call) }
        return created(call, lifecycle.create(call.body, options))
      },
    },
    '/batch': { post: (call) => createBatch(parts, call) },
    '/events': { get: (call) => readOf(call, lifecycle.events) },
    '/permissions': {
      get: (call) => readOf(call, (query) => listPermissions(parts, parse.anyOwner(query).owner)),
    },
    '/usage': { get: (call) => readOf(call, lifecycle.totalUsage) },
    '/audit-head': { get: () => lifecycle.auditHead() },
    '/audit-verification': { post: ({ body }) => lifecycle.verifyAuditTrail(body) },
  }
}

/** Creates many keys. If not all are created, the answer has these, and the refusal of the others. */
async function createBatch({ lifecycle, parse }: RouterParts, call: Call) {
  const { apiKeys: given } = parse.batch(call.body)
  const options = { ...asAdmin(call), ...idempotencyKeyOf(call) }
  const { apiKeys, failure } = await lifecycle.createMany(given, options)
  call.res.status(201)
  return { apiKeys, failure: failure && problemOf(failure) }
}

function createOwnerRoutes({ lifecycle, parse }: RouterParts): Routes {
  return {
    '/suspend-owner': {
      async post(call) {
        const { owner, ...explanation } = parse.ownerChange(call.body)
        const options = { ...asAdmin(call), ...parse.everywhere(call.query), ...explanation }
        const { isChanged } = await lifecycle.suspendOwner(owner, options)
        return { suspended: isChanged }
      },
    },
    '/reactivate-owner': {
      async post(call) {
        parse.notEverywhere('is not for this')(call.query)
        const { owner, ...explanation } = parse.ownerChange(call.body)
        const options = { ...asAdmin(call), ...explanation }
        const { isChanged } = await lifecycle.reactivateOwner(owner, options)
        return { reactivated: isChanged }
      },
    },
    '/erase-owner': {
      async post(call) {
        parse.notEverywhere('is not for this')(call.query)
        const { owner, ...erasing } = parse.erasing(call.body)
        const erased = await lifecycle.eraseOwner(owner, { ...asAdmin(call), ...erasing })
        return { erased }
      },
    },
  }
}

function createBulkRoutes({ lifecycle, parse }: RouterParts): Routes {
  return {
    '/revoke-all': {
      async post(call) {
        const { owner, dryRun, ...explanation } = parse.revokeAll(call.body)
        const options = { ...asAdmin(call), ...parse.everywhere(call.query), ...explanation }
        const { keys } = dryRun
          ? await lifecycle.countRevocable(owner)
          : await lifecycle.revokeAll(owner, options)
        return { revoked: keys }
      },
    },
    [`${keyPath}/transfer`]: {
      async post(call) {
        const { owner, ...explanation } = parse.ownerChange(call.body)
        const options = { ...asAdmin(call), ...parse.everywhere(call.query), ...explanation }
        return lifecycle.transfer(call.keyId, owner, options)
      },
    },
    [`${keyPath}/unrevoke`]: {
      async post(call) {
        parse.notEverywhere('is not for this')(call.query)
        const explanation = parse.explanation(call.body)
        return lifecycle.unrevoke(call.keyId, { ...asAdmin(call), ...explanation })
      },
    },
    '/revoke-many': {
      async post(call) {
        const { reason, owner, ...others } = parse.revokeMany(call.body)
        const criteria = { ...others, ...(owner && { owner }) }
        const options = { ...asAdmin(call), ...parse.everywhere(call.query), reason }
        const { keys, notFound } = await lifecycle.revokeMany(criteria, options)
        return { revoked: keys, notFound }
      },
    },
    '/revoke-unused': {
      async post(call) {
        const { owner, reason, ...rest } = parse.revokeUnused(call.body)
        const criteria = { ...rest, ...(owner && { owner }) }
        const options = { ...asAdmin(call), ...parse.everywhere(call.query), reason }
        const { keys } = await lifecycle.revokeUnused(criteria, options)
        return { revoked: keys }
      },
    },
    '/prune': {
      async post(call) {
        const { revokedKeys, events, usage, dryRun, reason } = parse.housekeeping(call.body)
        const options = { ...asAdmin(call), reason }
        const pruned: { revokedKeys?: number; events?: number; usage?: number } = {}
        if (revokedKeys !== undefined) {
          const criteria = { olderThanDays: revokedKeys, dryRun }
          pruned.revokedKeys = (await lifecycle.pruneRevoked(criteria, options)).keys
        }
        if (events !== undefined) {
          const criteria = { olderThanDays: events, dryRun }
          pruned.events = (await lifecycle.pruneAuditTrail(criteria)).events
        }
        if (usage !== undefined) {
          pruned.usage = (await lifecycle.pruneUsage({ olderThanDays: usage, dryRun })).hours
        }
        return pruned
      },
    },
  }
}
