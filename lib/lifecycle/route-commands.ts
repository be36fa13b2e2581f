import { onDatabase } from '../database/failures'
import type { Owner } from '../keys/owner'
import type { ApiKeyRecord } from '../keys/record'
import type { Digest } from '../keys/secret'
import { readUsagePeriod } from '../keys/usage-period'
import * as actions from './actions'
import type { Parts } from './calls'
import { edit } from './edit'
import { expose, type ExposureReport, type Found } from './exposure'
import { revokeSecret } from './revoke-secret'
import { createRuns } from './runs'
import { list } from './search'
import { get } from './store'
import type { ChangeOptions, IssueOptions, ReadOptions } from './types'

/** Creates the functions for input that may not name an owner, or a key, because the route does. */
export function createRouteCommands(parts: Parts) {
  const { parse, audit, usage } = parts
  const { run, issue } = createRuns(parts)

  return {
    async createOwn(owner: Owner, apiKey: unknown, options: IssueOptions) {
      return issue(options, (call) =>
        actions.create(parts, { ...parse.newKey(apiKey), owner }, call),
      )
    },

    async listOwn(owner: Owner, filter: unknown) {
      return run(undefined, (call) => list(parts, { ...parse.ownList(filter), owner }, call))
    },

    /** Refuses keys that a report names from now on. */
    async expose(found: readonly Found[], report: ExposureReport) {
      return onDatabase(() => expose(parts, found, report))
    },

    /** Revokes the key of a secret that was shown. */
    async revokeSecret(id: string, digests: readonly Digest[], options: ChangeOptions) {
      return run(options, (call) => revokeSecret(parts, id, digests, call))
    },

    /** Changes fields of a key and its permissions, both or neither. `shown` has the permissions that the form was made with. */
    async edit(
      id: string,
      input: { permissions: unknown },
      options: ChangeOptions,
      shown?: readonly string[],
    ) {
      const { permissions: given, ...fields } = input
      return run(options, (call) => {
        const { permissions } = parse.permissionSet({ permissions: given })
        const changes = parse.changes(fields)
        return edit(parts, id, { permissions, shown, changes }, call)
      })
    },

    /** Returns the usage of keys of a list, in its order. An owner sees the usage of its own time alone. */
    async usageOf(apiKeys: readonly ApiKeyRecord[], query: object, options: ReadOptions) {
      return run(options, (call) => {
        const ids = apiKeys.map(({ id }) => id)
        return usage.ofKeys(ids, readUsagePeriod(parse.usageQuery(query)), call)
      })
    },

    async eventsOf(id: string, page: unknown, options: ReadOptions) {
      return run(options, async (call) => {
        const apiKey = await get(parts, id, call)
        // An owner sees the entries of its own time alone.
        const { owner } = call
        return audit.list({ ...parse.eventPage(page), apiKeyId: apiKey.id, owner }, call)
      })
    },
  }
}
