import type { TestApiKeys } from '../support/app'
import { createKey, newKey } from '../support/keys'
import { always, otherSecret, secret, shown, useTrail } from '../support/trail'

const { apiKeys, sequelize, meddle, makeTrail, createOf } = useTrail()

/** Creates a key by an instance, which seals the entry itself. */
async function createBy(instance: TestApiKeys) {
  await createKey(instance)
  await instance.flush()
}

async function verifyWith(options: Parameters<typeof createOf>[0]) {
  const { isIntact, unverifiable, faults, cannotFind } = await createOf(options).verifyAuditTrail()
  return {
    isIntact,
    unverifiable,
    faults: shown(faults),
    cannotFind: cannotFind.slice(always.length + 1),
  }
}

describe('secrets of the audit trail', () => {
  const fine = { isIntact: true, unverifiable: 0, faults: [], cannotFind: [] }
  const gone = [expect.stringContaining('not among `secrets`')]

  it('may be replaced, because the seals of the new secret vouch for those of the old one', async () => {
    await makeTrail()

    await createBy(createOf({ secrets: [otherSecret, secret] }))

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual(fine)
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`)
    expect(await verifyWith({ secrets: [otherSecret] })).toMatchObject({ faults: [['edited', 3]] })
  })

  it('may be replaced without a change in between', async () => {
    await makeTrail()

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual(fine)
  })

  it('count as missing, and not as tampering, if they are removed too early', async () => {
    await makeTrail()
    const early = createOf({ secrets: [otherSecret] })

    expect(await verifyWith({ secrets: [otherSecret] })).toEqual({
      isIntact: false,
      unverifiable: 5,
      faults: [],
      cannotFind: gone,
    })
    await expect(early.auditHead()).rejects.toMatchObject({ code: 'audit_trail_not_intact' })
    await createBy(early)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual({
      isIntact: false,
      unverifiable: 5,
      faults: [],
      cannotFind: gone,
    })
    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
  })

  it('may reach processes at different times', async () => {
    const [old, young] = [apiKeys, createOf({ secrets: [otherSecret, secret] })]
    for (const each of [old, young, old, young]) await createBy(each)
    const transaction = await sequelize.transaction()
    await young.create(newKey(), { transaction })
    await transaction.commit()
    await createBy(old)

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
  })

  it('do not accept a signature of an unknown secret', async () => {
    const { id } = await makeTrail()
    await meddle(`
      DELETE FROM api_key_events WHERE id = #5; DELETE FROM api_key_event_seals WHERE position = 5;
      UPDATE api_keys SET status = 'ACTIVE', revoked_at = NULL WHERE id = '${id}';
      UPDATE api_key_audit_head SET secret_id = repeat('f', 16), (position, hash) =
        (SELECT position, hash FROM api_key_event_seals WHERE position = 4)`)

    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ unverifiable: 1 })
    await createBy(apiKeys)
    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ unverifiable: 1 })
  })

  it('may be added later, together with acceptUnkeyed', async () => {
    await makeTrail(createOf({}))

    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ isIntact: false, faults: [] })
    await createBy(createOf({ secrets: [secret], acceptUnkeyed: true }))

    expect(await verifyWith({ secrets: [secret] })).toEqual(fine)
  })
})
