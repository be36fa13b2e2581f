import { createKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'
import { until } from '../support/until'

const { sequelize, rows, holdLock, createOf, createProcess } = useTrail()

/** Runs SQL as the owner of the tables can who leaves no trace, while entries wait for their seals. */
async function meddleBeforeSeals(sql: string) {
  await sequelize.query(`
    BEGIN;
    ALTER TABLE api_keys DISABLE TRIGGER ALL; ALTER TABLE api_key_events DISABLE TRIGGER ALL;
    ${sql};
    ALTER TABLE api_keys ENABLE TRIGGER ALL; ALTER TABLE api_key_events ENABLE TRIGGER ALL;
    COMMIT`)
  // As migrate() makes them.
  const triggers = await rows<{ sql: string }>(
    `SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname) AS sql FROM pg_trigger
      WHERE NOT tgisinternal AND tgenabled = 'O' AND tgrelid::regclass::text IN ('api_keys', 'api_key_events')
        AND tgname NOT LIKE '%unique%' AND tgname NOT LIKE '%delete_retired%'`,
  )
  for (const { sql } of triggers) await sequelize.query(sql)
}

describe('the entries that a process has written', () => {
  it('wait until it has found them sealed', async () => {
    const instance = createOf({ secrets: [secret] })
    const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
    await createKey(instance)
    const before = (await instance.health()).audit
    await lock.release()

    await until(async () => (await instance.health()).audit.waiting === 0)

    expect(before).toEqual({ waiting: 1, oldestAgeMs: expect.any(Number), lost: 0 })
    expect((await instance.health()).audit).toEqual({ waiting: 0, oldestAgeMs: null, lost: 0 })
  })

  it('are not looked up if it has sealed them itself', async () => {
    const { apiKeys, statements } = createProcess({ secrets: [secret] })
    await createKey(apiKeys)

    await until(async () => (await rows('SELECT FROM api_key_event_seals')).length === 1)
    await until(async () => (await apiKeys.health()).audit.waiting === 0)

    const lookUps = statements.all.filter((sql) => sql.includes('own (api_key_id, ref, mac)'))
    expect(lookUps).toEqual([])
  })

  it('do not wait if their transaction was rolled back', async () => {
    const instance = createOf({ secrets: [secret] })
    const transaction = await sequelize.transaction()
    const { apiKey } = await instance.create(
      { userId: 'alice', name: 'Backup', permissions: ['READ_GRAPH'] },
      { transaction },
    )
    await transaction.rollback()

    expect((await instance.health()).audit.waiting).toBe(0)
    await expect(instance.get(apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it.each([
    ['removed with its key', 'DELETE FROM api_key_events; DELETE FROM api_keys'],
    ['removed from the queue', 'SELECT'],
    ['edited', `UPDATE api_key_events SET entry_mac = ':1:' || repeat('0', 64)`],
  ])('are lost, and reported, if one was %s before it had a seal', async (_, sql) => {
    const instance = createOf({ secrets: [secret] })
    const errors: unknown[] = []
    instance.on('error', (error) => errors.push(error))
    const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
    const { id } = await createKey(instance)
    await meddleBeforeSeals(`${sql}; DELETE FROM api_key_unsealed_events`)
    await lock.release()

    await until(() => errors.length > 0)

    expect(errors).toEqual([
      {
        error: expect.objectContaining({ message: expect.stringContaining(id) }),
        notice: 'audit_entry_lost',
      },
    ])
    expect((await instance.health()).audit).toEqual({ waiting: 0, oldestAgeMs: null, lost: 1 })
  })
})

describe('the entries about an owner that a process has written', () => {
  const alice = { type: 'user', id: 'alice' } as const

  it('wait until it has found them sealed', async () => {
    const instance = createOf({ secrets: [secret] })
    const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
    await instance.suspendOwner(alice)
    await instance.suspendOwner(alice)
    await instance.reactivateOwner(alice)
    await createKey(instance)
    const before = (await instance.health()).audit
    await lock.release()

    await until(async () => (await instance.health()).audit.waiting === 0)

    expect(before).toMatchObject({ waiting: 3, lost: 0 })
    expect((await instance.health()).audit).toMatchObject({ waiting: 0, lost: 0 })
    expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it.each(['suspendOwner', 'reactivateOwner'] as const)(
    'are lost, and reported, if that of %s was removed before it had a seal',
    async (name) => {
      const instance = createOf({ secrets: [secret] })
      if (name === 'reactivateOwner') await instance.suspendOwner(alice)
      await until(async () => (await instance.health()).audit.waiting === 0)
      const errors: unknown[] = []
      instance.on('error', (error) => errors.push(error))
      const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
      await instance[name](alice)
      await meddleBeforeSeals(
        `DELETE FROM api_key_events WHERE id = (SELECT max(id) FROM api_key_events); DELETE FROM api_key_unsealed_events`,
      )
      await lock.release()

      await until(() => errors.length > 0)

      expect(errors).toEqual([
        {
          error: expect.objectContaining({
            message: expect.stringContaining('user alice is gone'),
          }),
          notice: 'audit_entry_lost',
        },
      ])
      expect((await instance.health()).audit).toEqual({ waiting: 0, oldestAgeMs: null, lost: 1 })
    },
  )
})
