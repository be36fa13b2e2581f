import { optionsOf } from '../../models/option-checks'
import { onDatabase } from '../database/failures'
import { filterNames } from '../keys/criteria'
import { readUsagePeriod } from '../keys/usage-period'
import type { Usage } from '../usage/report'
import * as actions from './actions'
import * as bulk from './bulk'
import {
  refuseTransaction,
  refuseUndefined,
  refuseOwner,
  type GivenParts,
  type Parts,
} from './calls'
import { createImportCommands } from './import-commands'
import { createMany } from './many-keys'
import { createOwnerCommands } from './owner-commands'
import { createOverviews } from './overviews'
import { createParts } from './parts'
import * as permissionNames from './permission-names'
import { createRouteCommands } from './route-commands'
import { createRuns } from './runs'
import { activateOnFirstUse, endRotation, rotate } from './rotation'
import { list } from './search'
import { get } from './store'
import { transfer } from './transfer'
import { unrevoke } from './unrevoke'
import type {
  ChangeOptions,
  IssueOptions,
  PermissionOptions,
  ReadOptions,
  RestrictOptions,
  RotateOptions,
} from './types'

/** The functions of `Lifecycle`, whose input can be anything. */
export type UncheckedLifecycle = ReturnType<typeof createLifecycle>['lifecycle']

/** The functions of routes that say themselves whose key, or which key, a request is about. */
export type RouteCommands = ReturnType<typeof createLifecycle>['routeCommands']

/** Creates the functions with which keys are managed, by the app and by the routes. They parse their input first. */
export function createLifecycle(given: GivenParts) {
  const parts = createParts(given)
  activateOnFirstUse(parts)

  return {
    lifecycle: {
      ...createKeyCommands(parts),
      ...createBulkCommands(parts),
      ...createImportCommands(parts),
      ...createOwnerCommands(parts),
      ...createLogCommands(parts),
    },
    routeCommands: { ...createRouteCommands(parts), ...createOverviews(parts) },
  }
}

function createKeyCommands(parts: Parts) {
  const { parse } = parts
  const { run, issue, restrict } = createRuns(parts)

  return {
    async create(apiKey: unknown, options?: IssueOptions) {
      refuseOwner(options)
      return issue(options, (call) => actions.create(parts, parse.newKeyOf(apiKey), call))
    },

    async list(filter: object = {}, options?: ReadOptions) {
      refuseUndefined(filter, 'userId', 'owner', 'createdBy')
      refuseOwner(options)
      return run(options, (call) => list(parts, parse.list(filter), call))
    },

    async get(id: string, options?: ReadOptions) {
      return run(options, (call) => get(parts, id, call))
    },

    async update(id: string, changes: unknown, options?: ChangeOptions) {
      return run(options, (call) => actions.update(parts, id, parse.changes(changes), call))
    },

    async setPermissions(id: string, given: unknown, options?: RestrictOptions) {
      return restrict(options, (call) => {
        const { permissions } = parse.permissionSet({ permissions: given })
        return actions.setPermissions(parts, id, permissions, call)
      })
    },

    async suspend(id: string, options?: RestrictOptions) {
      return restrict(options, (call) => actions.setStatus(parts, 'suspend', id, call))
    },

    async reactivate(id: string, options?: ChangeOptions) {
      return run(options, (call) => actions.setStatus(parts, 'reactivate', id, call))
    },

    async revoke(id: string, options?: RestrictOptions) {
      return restrict(options, (call) => actions.setStatus(parts, 'revoke', id, call))
    },

    async unrevoke(id: string, options?: ChangeOptions) {
      return run(options, (call) => unrevoke(parts, id, call))
    },

    /** It takes no `everywhere`, because nothing may come between the new secret and the answer. `endRotation` takes it. */
    async rotate(id: string, wish?: RotateOptions) {
      const { gracePeriodSeconds, activate, ...options } = optionsOf(wish)
      return issue(options, (call) => {
        return rotate(parts, id, parse.rotation({ gracePeriodSeconds, activate }), call)
      })
    },

    async transfer(id: string, to: unknown, options?: RestrictOptions) {
      return restrict(options, async (call) => {
        const { owner } = parse.owner({ owner: to })
        return transfer(parts, id, owner, call)
      })
    },

    async endRotation(id: string, options?: RestrictOptions) {
      return restrict(options, (call) => endRotation(parts, id, call))
    },
  }
}

function createBulkCommands(parts: Parts) {
  const { parse } = parts
  const { run, issue, restrict } = createRuns(parts)

  async function replacePermission(
    from: unknown,
    to: unknown,
    given: PermissionOptions | undefined,
  ) {
    const { dryRun, ...options } = optionsOf(given)
    refuseTransaction(options)
    refuseOwner(options)
    return restrict(options, async (call) => {
      const change = parse.permissionChange({ from, to, dryRun })
      return { keys: await permissionNames.replacePermission(parts, change, call) }
    })
  }

  return {
    async createMany(apiKeys: unknown, options?: IssueOptions) {
      refuseOwner(options)
      return issue(options, (call) => createMany(parts, apiKeys, call))
    },

    async revokeMany(criteria: object, options?: RestrictOptions) {
      // Without its value, a criterion would let all keys pass.
      refuseUndefined(criteria, 'ids', 'userId', ...filterNames)
      refuseTransaction(options)
      refuseOwner(options)
      return restrict(options, (call) => bulk.revokeMany(parts, parse.manyKeys(criteria), call))
    },

    async renamePermission(from: unknown, to: unknown, options?: PermissionOptions) {
      if (to === undefined) throw new TypeError('renamePermission: needs the new name')
      return replacePermission(from, to, options)
    },

    async dropPermission(name: unknown, options?: PermissionOptions) {
      return replacePermission(name, undefined, options)
    },

    async revokeUnused(criteria: object, options?: RestrictOptions) {
      refuseUndefined(criteria, 'userId', 'owner', 'environment')
      refuseTransaction(options)
      refuseOwner(options)
      return restrict(options, async (call) => ({
        keys: await bulk.revokeUnused(parts, parse.unusedKeys(criteria), call),
      }))
    },

    async pruneRevoked(criteria: unknown, options?: ChangeOptions) {
      refuseTransaction(options)
      refuseOwner(options)
      return run(options, async (call) => ({
        keys: await bulk.pruneRevoked(parts, parse.pruning(criteria), call),
      }))
    },
  }
}

function createLogCommands(parts: Parts) {
  const { parse, audit, usage } = parts
  const { run } = createRuns(parts)

  return {
    async events(filter: object = {}, options?: ReadOptions) {
      refuseUndefined(filter, 'userId', 'owner', 'apiKeyId')
      refuseOwner(options)
      return run(options, (call) => audit.list(parse.eventList(filter), call))
    },

    async usage(id: string, query: object = {}, options?: ReadOptions) {
      return run(options, async (call) => {
        const period = readUsagePeriod(parse.usageQuery(query))
        const apiKey = await get(parts, id, call)
        const [report] = await usage.ofKeys([apiKey.id], period, call)
        // There is one for each id.
        return report as Usage
      })
    },

    async totalUsage(filter: object = {}, options?: ReadOptions) {
      refuseUndefined(filter, 'userId', 'owner', 'apiKeyId')
      refuseOwner(options)
      return run(options, (call) => {
        const { apiKeyId, owner, ...query } = parse.usageFilter(filter)
        return usage.ofAll({ apiKeyId, owner, ...readUsagePeriod(query) }, call)
      })
    },

    async pruneUsage(options: unknown) {
      return onDatabase(async () => {
        const { olderThanDays, dryRun } = parse.pruning(options)
        const hours = await (dryRun ? usage.countOld(olderThanDays) : usage.prune(olderThanDays))
        return { hours }
      })
    },

    async verifyAuditTrail(options: unknown = {}) {
      return onDatabase(async () => {
        return audit.verify(parse.auditVerification(options))
      })
    },

    async auditHead() {
      return onDatabase(() => audit.exportHead())
    },

    async pruneAuditTrail(options: unknown) {
      return onDatabase(async () => ({ events: await audit.prune(parse.pruning(options)) }))
    },
  }
}
