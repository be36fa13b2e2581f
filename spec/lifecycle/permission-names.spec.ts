import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import type { ApiKeyNotices } from '../../lib'
import { databaseAway } from '../support/database'
import { faultsOf, newKey } from '../support/keys'
import { createRelease } from '../support/releases'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const program = join(__dirname, 'dying-rename.ts')
const register = join(__dirname, '../support/register.js')

const world = useWorldForEach({ options: { maxKeysPerOwner: 10_000 } })

const before = { permissions: ['READ_GRAPH', 'RUN_GRAPH', 'OLD', 'EXECUTE_GRAPH'] }

/** Creates a key in an earlier release of the app. */
async function createOldKey(permissions: string[]) {
  const { apiKey, plainTextKey } = await createRelease(world.database, before).create({
    userId: 'alice',
    name: 'CI',
    permissions,
  })
  return { id: apiKey.id, plainTextKey }
}

/** Creates keys with one name of a permission, without the library, because there are many. */
async function insertOldKeys(count: number, name = 'RUN_GRAPH') {
  await world.rows(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
     SELECT 'alice', 'CI ' || number, 'agpt_abc123', 'abcd1234', md5('a' || number) || md5('b' || number), ARRAY[$2]
       FROM generate_series(1, $1::integer) AS number`,
    [count, name],
  )
}

async function storedFor(id: string) {
  const [row] = await world.rows<{ permissions: string[] }>(
    'SELECT permissions FROM api_keys WHERE id = $1',
    [id],
  )
  return row?.permissions
}

/** How many keys have each set of names. */
async function counted() {
  const rows = await world.rows<{ names: string; keys: number }>(
    `SELECT array_to_string(permissions, ' ') AS names, count(*)::integer AS keys
       FROM api_keys GROUP BY names ORDER BY names`,
  )
  return Object.fromEntries(rows.map(({ names, keys }) => [names, keys]))
}

describe('renamePermission', () => {
  it('gives all keys of one name the other, once each, and leaves the rest as it is', async () => {
    const { apiKeys } = world
    const one = await createOldKey(['READ_GRAPH', 'RUN_GRAPH', 'OLD'])
    const both = await createOldKey(['RUN_GRAPH', 'EXECUTE_GRAPH'])
    const other = await createOldKey(['OLD'])
    const suspended = await createOldKey(['RUN_GRAPH'])
    await apiKeys.suspend(suspended.id)
    const revoked = await createOldKey(['RUN_GRAPH'])
    await apiKeys.revoke(revoked.id)

    expect(await apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH')).toEqual({ keys: 3 })

    expect(await storedFor(one.id)).toEqual(['READ_GRAPH', 'EXECUTE_GRAPH', 'OLD'])
    expect(await storedFor(both.id)).toEqual(['EXECUTE_GRAPH'])
    expect(await storedFor(other.id)).toEqual(['OLD'])
    expect(await storedFor(suspended.id)).toEqual(['EXECUTE_GRAPH'])
    expect(await storedFor(revoked.id)).toEqual(['RUN_GRAPH'])
    expect(await apiKeys.verify(both.plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { permissions: ['EXECUTE_GRAPH'] },
    })
    expect(await apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH')).toEqual({ keys: 0 })
  })

  it('is honoured by this process at once, and by others within the bound', async () => {
    const other = world.createProcess({ listen: false }).apiKeys
    const { plainTextKey } = await createOldKey(['RUN_GRAPH'])
    for (const { verify } of [world.apiKeys, other]) {
      expect(await verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { permissions: [] } })
    }

    await world.apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH', { everywhere: true })

    for (const { verify } of [world.apiKeys, other]) {
      expect(await verify(plainTextKey)).toMatchObject({
        valid: true,
        apiKey: { permissions: ['EXECUTE_GRAPH'] },
      })
    }
  })

  it('leaves an entry for each key with the names before and after, and reports each change', async () => {
    const notices: ApiKeyNotices['permissions_changed'][] = []
    world.apiKeys.on('permissions_changed', (notice) => notices.push(notice))
    const { id } = await createOldKey(['OLD', 'RUN_GRAPH'])

    await world.apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH', {
      actor: { type: 'admin', id: 'root' },
      reason: 'release 2',
    })

    const { events } = await world.apiKeys.events({ apiKeyId: id })
    expect(events).toMatchObject([
      {
        action: 'permissions_changed',
        actorType: 'admin',
        actorId: 'root',
        reason: 'release 2',
        before: { permissions: ['OLD', 'RUN_GRAPH'] },
        after: { permissions: ['OLD', 'EXECUTE_GRAPH'] },
      },
      { action: 'created' },
    ])
    expect(notices).toMatchObject([
      {
        apiKey: { id, permissions: ['EXECUTE_GRAPH'] },
        before: { id, permissions: [] },
        actor: { type: 'admin', id: 'root' },
        reason: 'release 2',
      },
    ])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('counts the keys with dryRun, and changes nothing', async () => {
    const { id } = await createOldKey(['RUN_GRAPH'])

    const dry = await world.apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH', { dryRun: true })

    expect(dry).toEqual({ keys: 1 })
    expect(await storedFor(id)).toEqual(['RUN_GRAPH'])
  })

  it('swaps two permissions by a third name', async () => {
    const { apiKeys } = world
    const first = await createOldKey(['READ_GRAPH'])
    const second = await createOldKey(['EXECUTE_GRAPH'])

    await apiKeys.renamePermission('READ_GRAPH', 'READ_BLOCK')
    await apiKeys.renamePermission('EXECUTE_GRAPH', 'READ_GRAPH')
    await apiKeys.renamePermission('READ_BLOCK', 'EXECUTE_GRAPH')

    expect(await storedFor(first.id)).toEqual(['EXECUTE_GRAPH'])
    expect(await storedFor(second.id)).toEqual(['READ_GRAPH'])
  })

  it.each<[string, unknown[], string[]]>([
    ['a name of nothing', ['', 'READ_GRAPH'], ['#/from']],
    ['a name with a space', ['RUN GRAPH', 'READ_GRAPH'], ['#/from']],
    ['undefined', [undefined, 'READ_GRAPH'], ['#/from']],
    ['a target that is no permission', ['RUN_GRAPH', 'EXECUTE_GRAPHS'], ['#/to']],
    ['no target', ['RUN_GRAPH', null], ['#/to']],
    ['itself', ['READ_GRAPH', 'READ_GRAPH'], ['#/to']],
    ['a wrong dryRun', ['RUN_GRAPH', 'READ_GRAPH', { dryRun: 'yes' }], ['#/dryRun']],
  ])('refuses %s', async (_, given, pointers) => {
    const rename = world.apiKeys.renamePermission as (...given: unknown[]) => Promise<unknown>

    expect((await faultsOf(rename(...given))).map(({ pointer }) => pointer)).toEqual(pointers)
  })

  it('refuses a missing target, an owner and a transaction as mistakes', async () => {
    const rename = world.apiKeys.renamePermission as (...given: unknown[]) => Promise<unknown>

    await expect(rename('RUN_GRAPH')).rejects.toThrow(TypeError)
    await expect(rename('RUN_GRAPH', 'READ_GRAPH', { userId: 'alice' })).rejects.toThrow(TypeError)
    await world.sequelize.transaction(async (transaction) => {
      await expect(rename('RUN_GRAPH', 'READ_GRAPH', { transaction })).rejects.toThrow(TypeError)
    })
  })

  it('leaves keys of other prefixes alone', async () => {
    const other = world.createProcess({ keyPrefix: 'other' }).apiKeys
    const { apiKey } = await other.create(newKey())

    expect(await world.apiKeys.renamePermission('READ_GRAPH', 'READ_BLOCK')).toEqual({ keys: 0 })
    expect(await storedFor(apiKey.id)).toEqual(['READ_GRAPH'])
  })

  it('and dropPermission are refused while the database is away', async () => {
    const { apiKeys } = world.createProcess({ sequelize: databaseAway.connect() })

    for (const call of [
      apiKeys.renamePermission('RUN_GRAPH', 'READ_GRAPH'),
      apiKeys.dropPermission('RUN_GRAPH', { dryRun: true }),
    ]) {
      await expect(call).rejects.toMatchObject({ code: 'database_unavailable' })
    }
  })

  it('goes on if it was killed half-way', async () => {
    await insertOldKeys(1_500)
    const [last] = await world.rows<{ id: string }>('SELECT max(id::text) AS id FROM api_keys')
    const lock = await world.holdLock(`SELECT FROM api_keys WHERE id = '${last?.id}' FOR UPDATE`)
    const dying = fork(program, [world.database.url], { execArgv: ['--require', register] })

    await until(async () => (await counted()).EXECUTE_GRAPH === 1_000)
    dying.kill('SIGKILL')
    expect(await once(dying, 'exit')).toEqual([null, 'SIGKILL'])
    await lock.release()
    expect(await counted()).toEqual({ EXECUTE_GRAPH: 1_000, RUN_GRAPH: 500 })

    expect(await world.apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH')).toEqual({
      keys: 500,
    })
    expect(await counted()).toEqual({ EXECUTE_GRAPH: 1_500 })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('changes each key once, if two processes do it at once', async () => {
    await insertOldKeys(1_200)
    const other = world.createProcess().apiKeys

    const changed = await Promise.all(
      [world.apiKeys, other].map((each) => each.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH')),
    )

    expect(changed.reduce((sum, { keys }) => sum + keys, 0)).toBe(1_200)
    expect(await counted()).toEqual({ EXECUTE_GRAPH: 1_200 })
    const [events] = await world.rows<{ count: number }>(
      `SELECT count(*)::integer FROM api_key_events WHERE action = 'permissions_changed'`,
    )
    expect(events?.count).toBe(1_200)
  })

  it('and setPermissions at once leave what was set, or what was set with the new name', async () => {
    const keys = await Promise.all(
      Array.from({ length: 30 }, () => createOldKey(['RUN_GRAPH', 'READ_GRAPH'])),
    )
    const other = world.createProcess().apiKeys

    await Promise.all([
      world.apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH'),
      ...keys.map(({ id }) => other.setPermissions(id, ['READ_BLOCK'])),
    ])

    expect(await counted()).toEqual({ READ_BLOCK: 30 })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})

describe('dropPermission', () => {
  it('takes a permission from all keys, and may leave them with none', async () => {
    const { apiKeys } = world
    const one = await createOldKey(['OLD', 'READ_GRAPH'])
    const only = await createOldKey(['OLD'])
    const reason = 'no longer there'

    expect(await apiKeys.dropPermission('OLD', { dryRun: true })).toEqual({ keys: 2 })
    expect(await apiKeys.dropPermission('OLD', { reason })).toEqual({ keys: 2 })
    expect(await apiKeys.dropPermission('OLD')).toEqual({ keys: 0 })

    expect(await storedFor(one.id)).toEqual(['READ_GRAPH'])
    expect(await storedFor(only.id)).toEqual([])
    expect(await apiKeys.get(only.id)).toMatchObject({ permissions: [], status: 'ACTIVE' })
    const { events } = await apiKeys.events({ apiKeyId: only.id })
    expect(events[0]).toMatchObject({
      action: 'permissions_changed',
      reason,
      before: { permissions: ['OLD'] },
      after: { permissions: [] },
    })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('leaves a key that can be used without a permission, changed, given permissions, rotated and revoked', async () => {
    const { apiKeys } = world
    const { id, plainTextKey } = await createOldKey(['OLD'])
    await apiKeys.dropPermission('OLD')

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { permissions: [] },
    })
    expect(await apiKeys.update(id, { name: 'Another' })).toMatchObject({ permissions: [] })
    await apiKeys.rotate(id)
    expect(await apiKeys.setPermissions(id, ['READ_GRAPH'])).toMatchObject({
      permissions: ['READ_GRAPH'],
    })
    await apiKeys.dropPermission('READ_GRAPH')
    expect(await apiKeys.revoke(id)).toMatchObject({ status: 'REVOKED', permissions: [] })
  })

  it('keeps a key from a permission that has the name later', async () => {
    const { plainTextKey } = await createOldKey(['OLD', 'READ_GRAPH'])
    const later = createRelease(world.database, { permissions: ['OLD', 'READ_GRAPH'] })
    expect(await later.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { permissions: ['OLD', 'READ_GRAPH'] },
    })

    await world.apiKeys.dropPermission('OLD', { everywhere: true })

    expect(await later.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { permissions: ['READ_GRAPH'] },
    })
  })

  it('aborts the signal of a request whose guard demanded it', async () => {
    const { plainTextKey } = await createOldKey(['READ_GRAPH'])
    const signals: AbortSignal[] = []
    const { http } = world.createProcess({}, (app, { requirePermission, getApiKey }) => {
      app.get('/long', requirePermission('READ_GRAPH'), (req, res) => {
        const { signal } = getApiKey(req)
        signals.push(signal)
        signal.addEventListener('abort', () => res.end())
      })
    })
    const answer = Promise.resolve(http.with(plainTextKey).get('/long'))
    await until(() => signals.length > 0)

    await world.apiKeys.dropPermission('READ_GRAPH')

    await answer
    expect(signals[0]?.reason).toMatchObject({ code: 'missing_permission' })
  })
})
