import { randomBytes } from 'node:crypto'

import { createKey, faultsOf } from '../support/keys'
import { always, otherSecret, secret, useTrail, type Tampering } from '../support/trail'

const { apiKeys, sequelize, rows, meddle, makeOld, ageSeals, expectFaults, createOf } = useTrail()

describe('pruneAuditTrail', () => {
  it('removes older entries, up to the first that is younger', async () => {
    const keys = [await makeOld(400), await makeOld(365), await makeOld(30), await makeOld(365)]
    const young = await createKey(apiKeys)
    const head = await apiKeys.auditHead()

    const wouldBe = await apiKeys.pruneAuditTrail({ olderThanDays: 365, dryRun: true })
    const before = await apiKeys.verifyAuditTrail()
    const pruned = await apiKeys.pruneAuditTrail({ olderThanDays: 365 })
    const again = await apiKeys.pruneAuditTrail({ olderThanDays: 365 })

    expect([wouldBe, pruned, again]).toEqual([{ events: 2 }, { events: 2 }, { events: 0 }])
    expect(before).toMatchObject({ isIntact: true, entries: 5, pruned: 0 })
    const { events } = await apiKeys.events()
    expect(events.map(({ apiKeyId }) => apiKeyId)).toEqual([young.id, keys[3]?.id, keys[2]?.id])
    expect(await apiKeys.verifyAuditTrail({ head })).toMatchObject({
      isIntact: true,
      entries: 3,
      pruned: 2,
      faults: [],
      cannotFind: [...always],
    })
    for (const { id } of keys) await apiKeys.revoke(id)
    await expectFaults()
  })

  it('removes an entry that another role has given a time to come', async () => {
    const { id } = await makeOld(10)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after, created_at)
       VALUES ('${id}', 'user', 'alice', 'updated', 'database', 'postgres', '{}', '{}', 'infinity')`,
    )
    await apiKeys.auditHead()
    await meddle(
      `UPDATE api_key_event_seals SET sealed_at = sealed_at - interval '10 days' WHERE event_id = #2`,
    )
    await ageSeals()
    await createKey(apiKeys)
    await apiKeys.auditHead()
    const options = { olderThanDays: 1 }

    expect(await apiKeys.pruneAuditTrail({ ...options, dryRun: true })).toEqual({ events: 2 })
    expect(await apiKeys.pruneAuditTrail(options)).toEqual({ events: 2 })

    await expectFaults()
  })

  it('leaves an entry that another role has given an earlier time than its seal', async () => {
    const { id } = await makeOld(400)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after, created_at)
       VALUES ('${id}', 'user', 'alice', 'updated', 'database', 'postgres', '{}', '{}', '2000-01-01')`,
    )
    await apiKeys.auditHead()
    await ageSeals(`sealed_at - CASE position WHEN 2 THEN interval '10 days' ELSE '0' END`)
    await createKey(apiKeys)
    await apiKeys.auditHead()
    const options = { olderThanDays: 365 }

    expect(await apiKeys.pruneAuditTrail({ ...options, dryRun: true })).toEqual({ events: 1 })
    expect(await apiKeys.pruneAuditTrail(options)).toEqual({ events: 1 })

    await expectFaults()
  })

  it('leaves the entries that were sealed in the two days before the newest seal, and the trail goes on', async () => {
    const { id } = await makeOld(3)
    const old = await apiKeys.auditHead()
    await makeOld(2)
    const early = await apiKeys.pruneAuditTrail({ olderThanDays: 1 })
    await createKey(apiKeys)

    expect(early).toEqual({ events: 0 })
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 2 })

    await expectFaults()
    expect(await apiKeys.verifyAuditTrail({ head: old })).toMatchObject({
      isIntact: true,
      cannotFind: [...always, expect.stringContaining('was pruned')],
    })
    await apiKeys.revoke(id)
    await expectFaults()
    expect((await apiKeys.auditHead()).position).toBe(4)
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 0 })
  })

  it.each<Tampering>([
    [
      'forged',
      `UPDATE api_key_audit_head SET pruned_before = '2000-01-01'`,
      [
        ['checkpoint_changed', 2],
        ['head_changed', 3],
      ],
    ],
    [
      'removed with what it claims',
      `UPDATE api_key_audit_head
          SET checkpoint_position = 0, checkpoint_hash = '', last_pruned_id = 0, pruned_before = NULL`,
      [
        ['removed', 1],
        ['head_changed', 3],
      ],
    ],
    [
      'removed',
      `UPDATE api_key_audit_head SET checkpoint_hash = ''`,
      [
        ['checkpoint_changed', 2],
        ['removed', 1],
        ['head_changed', 3],
      ],
    ],
    [
      'replaced by one for more',
      `DELETE FROM api_key_events WHERE id = #3;
       UPDATE api_key_audit_head SET (checkpoint_position, checkpoint_hash) =
         (SELECT position, hash FROM api_key_event_seals WHERE position = 3);
       DELETE FROM api_key_event_seals`,
      [
        ['checkpoint_changed', 3],
        ['head_changed', 3],
        ['contradicted', null],
      ],
    ],
    ...['infinity', '20000-01-01'].map((time): Tampering => [
      `of ${time}`,
      `UPDATE api_key_audit_head SET pruned_before = '${time}'`,
      [
        ['checkpoint_changed', 2],
        ['head_changed', 3],
      ],
    ]),
    [
      'signed otherwise',
      `UPDATE api_key_audit_head SET mac = hash`,
      [
        ['checkpoint_changed', 2],
        ['head_changed', 3],
      ],
    ],
  ])('finds its checkpoint %s', async (_, sql, faults) => {
    await makeOld(3)
    await makeOld(2)
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail({ olderThanDays: 1 })

    await meddle(sql)

    await expectFaults(...faults)
    await createKey(apiKeys)
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })

  it('refuses to remove entries if the head was changed', async () => {
    await makeOld(3)
    await meddle(`UPDATE api_key_audit_head SET mac = repeat('0', 64)`)

    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 1 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })
    await expect(apiKeys.auditHead()).rejects.toMatchObject({ code: 'audit_trail_not_intact' })
    expect((await apiKeys.events()).events).toHaveLength(1)
  })

  it.each([
    ['edited', `UPDATE api_key_events SET reason = 'Found.' WHERE id = #2`],
    ['removed', 'DELETE FROM api_key_events WHERE id = #2'],
    [
      'removed with its seal',
      'DELETE FROM api_key_events WHERE id = #2; DELETE FROM api_key_event_seals WHERE event_id = #2',
    ],
    ['back-dated', `UPDATE api_key_events SET created_at = '2020-01-01' WHERE id = #2`],
    ['sealed by a forger', `UPDATE api_key_event_seals SET mac = hash WHERE position = 3`],
    ['doubted', `UPDATE api_key_event_seals SET doubts = '{}' WHERE position = 2`],
  ])('refuses to remove an entry that was %s', async (_, sql) => {
    for (const days of [5, 4, 3]) await makeOld(days)
    await createKey(apiKeys)
    await meddle(sql)
    const { faults } = await apiKeys.verifyAuditTrail()

    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 1 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })

    expect((await apiKeys.verifyAuditTrail()).faults).toEqual(faults)
  })

  it('removes entries of a secret that is gone, if a known secret vouches for them', async () => {
    await makeOld(3)
    const thirdSecret = randomBytes(32)
    for (const secrets of [
      [thirdSecret, secret],
      [otherSecret, thirdSecret, secret],
    ]) {
      const instance = createOf({ secrets })
      await createKey(instance)
      await instance.flush()
    }
    const later = createOf({ secrets: [otherSecret] })
    const pruning = { olderThanDays: 1 }
    const seal = 'UPDATE api_key_event_seals SET mac = '
    const [last] = await rows<{ mac: string }>(
      'SELECT mac FROM api_key_event_seals WHERE position = 3',
    )
    await meddle(`${seal} repeat('0', 64) WHERE position = 3`)
    const broken = await later.pruneAuditTrail(pruning).catch((error: unknown) => error)
    await meddle(`${seal} '${last?.mac}' WHERE position = 3`)

    expect(broken).toMatchObject({ code: 'audit_trail_not_intact' })
    expect(await later.pruneAuditTrail(pruning)).toEqual({ events: 1 })
  })

  it('refuses options that make no sense', async () => {
    const rule = 'must be a whole number of days from 1 to 36500'
    for (const [options, pointer, message] of [
      [{}, '#/olderThanDays', 'is required'],
      [{ olderThanDays: 0 }, '#/olderThanDays', rule],
      [{ olderThanDays: 0.5 }, '#/olderThanDays', rule],
      [{ olderThanDays: 36_501 }, '#/olderThanDays', rule],
      [{ olderThanDays: 1, dryRun: 'no' }, '#/dryRun', 'must be true or false'],
      [{ olderThanDays: 1, all: true }, '#/all', 'is not known here'],
    ]) {
      expect(await faultsOf(apiKeys.pruneAuditTrail(options as never))).toEqual([
        { pointer, message },
      ])
    }
  })
})
