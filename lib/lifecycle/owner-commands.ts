import { optionsOf } from '../../models/option-checks'
import { onDatabase } from '../database/failures'
import * as bulk from './bulk'
import {
  checkEverywhere,
  checkTransaction,
  refuseOwner,
  refuseTransaction,
  type Parts,
} from './calls'
import { eraseOwner } from './erase-owner'
import * as owners from './owners'
import { createRuns } from './runs'
import type {
  ChangeOptions,
  EraseOptions,
  OwnerChangeOptions,
  ReadOptions,
  RestrictOptions,
} from './types'

/** Creates the functions for an owner and all keys of the owner. They parse their input first. */
export function createOwnerCommands(parts: Parts) {
  const { parse, verification } = parts
  const { run, restrict } = createRuns(parts)

  return {
    async revokeAll(given: unknown, options?: RestrictOptions) {
      refuseOwner(options)
      return restrict(options, async (call) => {
        const { owner } = parse.owner({ owner: given })
        return { keys: await bulk.revokeAll(parts, owner, call) }
      })
    },

    async suspendOwner(given: unknown, options?: RestrictOptions) {
      refuseOwner(options)
      return restrict(options, async (call) => {
        const { owner } = parse.owner({ owner: given })
        return { isChanged: await owners.suspendOwner(parts, owner, call) }
      })
    },

    async reactivateOwner(given: unknown, options?: ChangeOptions) {
      refuseOwner(options)
      return run(options, async (call) => {
        const { owner } = parse.owner({ owner: given })
        return { isChanged: await owners.reactivateOwner(parts, owner, call) }
      })
    },

    async eraseOwner(given: unknown, options?: EraseOptions) {
      refuseOwner(options)
      refuseTransaction(options)
      const { revoke, dryRun, reason, ...others } = optionsOf(options)
      const change: ChangeOptions = others
      return run(change, async (call) => {
        const erasing = parse.erasing({ owner: given, revoke, dryRun, reason })
        return eraseOwner(parts, erasing, { ...call, reason: erasing.reason })
      })
    },

    async countRevocable(given: unknown, options?: ReadOptions) {
      refuseOwner(options)
      return run(options, async (call) => {
        const { owner } = parse.owner({ owner: given })
        return { keys: await bulk.countRevocable(parts, owner, call) }
      })
    },

    async ownerChanged(given: unknown, options?: OwnerChangeOptions) {
      const { transaction, everywhere = false, ...others } = optionsOf(options)
      checkTransaction(transaction)
      checkEverywhere(everywhere, transaction)
      const [unknown] = Object.keys(others)
      if (unknown !== undefined) throw new TypeError(`ownerChanged: there is no option ${unknown}`)

      const { owner } = parse.owner({ owner: given })
      await onDatabase(() => verification.ownerChanged(owner, transaction))
      if (everywhere) await verification.waitForEveryone()
    },
  }
}
