import { execFile } from 'node:child_process'
import { join } from 'node:path'

import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { createKey, newKey } from '../support/keys'
import { startProxy } from '../support/proxy'
import { secret, useTrail } from '../support/trail'
import { until } from '../support/until'
import { roundCount } from './rounds'
import { createCleanup } from './waiting'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'killed.ts')

const { apiKeys, database, sequelize, rows, holdLock, sealAll, meddle } = useTrail()

const cleanup = createCleanup()
afterEach(() => cleanup.run())

/** More than two pages of entries. */
const fewEntries = 4_500
/** 200,000 in a long run. */
const manyEntries = Math.min(20_000 * roundCount, 200_000)

/** How many entries are made, and sealed, at once. */
const atOnce = 5_000

/** More statements than such an erasing has. */
const mostStatements = 150

const zoe = { type: 'user', id: 'zoe@example.com' } as const
const erasing = { reason: 'Request 4711', revoke: true }

/** Makes sealed entries of keys of Zoe that are gone, and keys that she has, or has made for Bob. */
async function prepare(count: number) {
  for (let left = count; left > 0; left -= atOnce) {
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, personal_before)
      SELECT gen_random_uuid(), 'user', '${zoe.id}', 'deleted', 'database', 'x', '{"name": "Laptop of Zoe"}'
        FROM generate_series(1, ${Math.min(left, atOnce)})`)
    await sealAll()
  }
  for (let each = 0; each < 3; each++) await createKey(apiKeys, { userId: zoe.id, name: 'Zoe' })
  await apiKeys.create(newKey({ userId: 'bob' }), { actor: zoe, address: '198.51.100.23' })
  await sealAll()
}

/** Returns how many entries, keys and counts still name Zoe. */
async function countTraces(): Promise<number> {
  const [found] = await rows<{ count: number }>(
    `SELECT (SELECT count(*) FROM api_key_events WHERE '${zoe.id}' IN (owner_id, actor_id) OR personal_before::text LIKE '%Zoe%')::int
          + (SELECT count(*) FROM api_keys WHERE '${zoe.id}' IN (user_id, created_by))::int
          + (SELECT count(*) FROM api_key_usage WHERE owner_id = '${zoe.id}')::int AS count`,
  )
  return Number(found?.count)
}

/** Erases in a process that is killed after a number of statements. Returns the way in which the process ended. */
function eraseKilled(statements: number): Promise<string> {
  const change = ['eraseOwner', zoe.id, `${statements}`, secret.toString('hex')]
  const args = ['--require', register, program, database.url, ...change]
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, (_, stdout, stderr) => {
      resolve(child.signalCode ?? (stdout || stderr))
    })
  })
}

describe('eraseOwner', () => {
  it('leaves a trail without a fault, whenever its process is killed, and goes on from there', async () => {
    await prepare(fewEntries)
    const head = await apiKeys.auditHead()

    const left = [await countTraces()]
    let ending: string | undefined
    for (let statements = 1; ending !== 'done'; statements += 4) {
      expect(statements).toBeLessThan(mostStatements)
      ending = await eraseKilled(statements)
      expect(['SIGKILL', 'done']).toContain(ending)
      expect(await apiKeys.verifyAuditTrail({ head })).toMatchObject({ isIntact: true, faults: [] })
      left.push(await countTraces())
    }

    expect(new Set(left).size).toBeGreaterThan(3)
    expect(left.at(-1)).toBe(0)
    const { erased } = await apiKeys.verifyAuditTrail({ head })
    // Each of her three keys was created, revoked and deleted, and she has made a key for Bob.
    expect(erased).toBe(fewEntries + 3 * 3 + 1)
  })

  it('is refused if the database goes away, has erased whole pages by then, and goes on from there', async () => {
    await prepare(fewEntries)
    const proxy = await startProxy(Number(new URL(database.url).port))
    cleanup.defer(() => proxy.close())
    const remote = new Sequelize(proxy.through(database.url), { logging: false })
    const far = createTestApiKeys({ connect: () => remote }, { secrets: [secret] })
    cleanup.defer(async () => {
      await far.close()
      await remote.close()
    })
    const last = `SELECT FROM api_key_events WHERE id = (SELECT max(id) FROM api_key_events WHERE action = 'created') FOR UPDATE`
    const lock = await holdLock(last)

    const call = far.eraseOwner(zoe, erasing).then(
      () => 'erased',
      (error: unknown) => error,
    )
    await until(
      async () =>
        (await rows('SELECT FROM api_key_events WHERE erased IS NOT NULL LIMIT 4001')).length >
        4_000,
    )
    proxy.refuse()
    const refusal = await call
    await lock.release()
    const between = await apiKeys.verifyAuditTrail()
    await proxy.accept()
    const { events } = await far.eraseOwner(zoe, erasing)

    expect(refusal).toMatchObject({ code: 'database_unavailable', status: 503 })
    expect(between).toMatchObject({ isIntact: true, faults: [] })
    expect(events + between.erased).toBe(fewEntries + 3 * 3 + 1)
    expect(await countTraces()).toBe(0)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('makes no change of a key wait, and no use, in the midst of a page', async () => {
    await prepare(fewEntries)
    const { apiKey, plainTextKey } = await apiKeys.create(newKey({ userId: 'bob' }))
    await sealAll()
    await sequelize.query(`
      CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
      CREATE TRIGGER pause BEFORE INSERT ON api_key_events FOR EACH ROW WHEN (NEW.action = 'owner_erased') EXECUTE FUNCTION pause()`)
    cleanup.defer(() => meddle('DROP FUNCTION IF EXISTS pause CASCADE'))
    const lock = await holdLock('SELECT pg_advisory_xact_lock(4711)')
    const call = apiKeys.eraseOwner(zoe, erasing)
    await lock.waitedFor()

    const made = await apiKeys.create(newKey({ userId: 'bob' }))
    await apiKeys.update(apiKey.id, { name: 'Changed meanwhile' })
    await apiKeys.rotate(apiKey.id)
    const own = await apiKeys.create(newKey({ userId: zoe.id }))
    await apiKeys.revokeAll(zoe)
    const verdict = await apiKeys.verify(plainTextKey)
    await apiKeys.revoke(made.apiKey.id)
    await apiKeys.flush()
    await lock.release()
    await call

    expect(verdict).toMatchObject({ valid: true })
    expect(await apiKeys.get(own.apiKey.id)).toMatchObject({ status: 'REVOKED', userId: zoe.id })
    await apiKeys.eraseOwner(zoe, erasing)
    expect(await countTraces()).toBe(0)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it(`erases ${manyEntries} entries while other owners go on`, async () => {
    await prepare(manyEntries)
    const from = performance.now()
    const rssBefore = process.memoryUsage.rss()
    const ended = new AbortController()
    let [mostRss, longest, changes] = [0, 0, 0]

    const call = apiKeys.eraseOwner(zoe, erasing).finally(() => ended.abort())
    while (!ended.signal.aborted) {
      const at = performance.now()
      await createKey(apiKeys, { userId: `user-${changes++ % 1_000}` })
      longest = Math.max(longest, performance.now() - at)
      mostRss = Math.max(mostRss, process.memoryUsage.rss())
    }
    const { events } = await call
    const ms = performance.now() - from

    const rows = [`${events} entries in ${Math.round(ms)} ms, ${changes} changes meanwhile`]
    rows.push(
      `the longest took ${Math.round(longest)} ms`,
      `${Math.round((mostRss - rssBefore) / 2 ** 20)} MiB more memory`,
    )
    console.log(rows.join('; '))
    expect(events).toBe(manyEntries + 3 * 3 + 1)
    expect(await countTraces()).toBe(0)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  }, 600_000)
})
