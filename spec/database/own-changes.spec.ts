import { tablesOf } from '../../models/tables'
import type { Permission, TestApiKeys } from '../support/app'
import { expectSoon, revokeSql, useLog } from '../support/log'
import { until } from '../support/until'

const { world, createInstance, createKnownKey, readNumbers, run } = useLog()

/** Gives later entries lower numbers than the entries that were read: the sequence and the clock are behind. */
async function setBack(...readers: TestApiKeys[]) {
  await run(
    `INSERT INTO api_key_revisions (revision) OVERRIDING SYSTEM VALUE
       SELECT max(revision) + 3600000000 FROM api_key_revisions`,
  )
  const [highest] = await world.rows<{ revision: string }>(
    'SELECT max(revision)::text AS revision FROM api_key_revisions',
  )
  for (const reader of readers) {
    await until(async () => (await reader.health()).revision === Number(highest?.revision))
  }
  await run(`SELECT setval('api_key_revision_register', 1)`)
}

describe('a process that does not find its own change in the log', () => {
  const transactions = [
    ['of its own', false],
    ['of the caller', true],
  ] as const

  it.each(transactions)(
    'makes every process start over if its entry is below the entries that they have read, by a transaction %s',
    async (_, isOfCaller) => {
      const [maker, other] = [createInstance(), createInstance()]
      const { id, plainTextKey } = await createKnownKey(maker, other)
      await setBack(maker, other)

      const transaction = isOfCaller ? await world.sequelize.transaction() : undefined
      await maker.revoke(id, transaction && { transaction })
      await transaction?.commit()

      expect(await maker.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
      await expectSoon(other, plainTextKey, 'revoked')
      expect((await maker.health()).feed).toBe('following')
    },
  )

  it('gives the next entries the highest numbers', async () => {
    const [maker, other] = [createInstance(), createInstance()]
    const { id } = await createKnownKey(maker, other)
    const { id: next, plainTextKey } = await createKnownKey(maker, other)
    await setBack(maker, other)

    await maker.revoke(id)
    await run(revokeSql(next))

    for (const reader of [maker, other]) await expectSoon(reader, plainTextKey, 'revoked')
    const numbers = await readNumbers()
    expect(numbers.at(-1)).toBe(numbers.reduce((a, b) => (a > b ? a : b)))
  })

  it('makes every process start over for users whose permissions have changed', async () => {
    const held = new Map<string, readonly Permission[]>([['alice', ['READ_GRAPH']]])
    const grantable = ({ id: userId }: { id: string }) => held.get(userId) ?? []
    const [maker, other] = [createInstance({ grantable }), createInstance({ grantable })]
    const { plainTextKey } = await createKnownKey(maker, other)
    await setBack(maker, other)

    held.delete('alice')
    await maker.ownerChanged({ type: 'user', id: 'alice' })

    await until(async () => {
      const verdict = await other.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.permissions.length === 0
    })
    expect((await maker.health()).feed).toBe('following')
  })

  it('starts over alone if the entry was removed at once, and goes on', async () => {
    const maker = createInstance()
    const { id, plainTextKey } = await createKnownKey(maker)
    // Like pruning after the server's clock has jumped ahead.
    await run(`
      CREATE FUNCTION remove_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
          DELETE FROM public.api_key_revisions WHERE revision = NEW.revision;
          RETURN NULL;
        END $$;
      CREATE TRIGGER remove_at_once AFTER INSERT ON api_key_revisions
        FOR EACH ROW EXECUTE FUNCTION remove_at_once()`)

    await maker.revoke(id)

    expect(await maker.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    expect((await maker.health()).feed).toBe('following')
  })

  it('evicts nothing from its cache as long as the order holds', async () => {
    const maker = createInstance()
    const { plainTextKey } = await createKnownKey(maker)
    const { id } = await createKnownKey(maker)
    const { misses } = (await maker.health()).cache

    await maker.update(id, { name: 'Another', description: 'of the key' })
    await maker.update(id, { description: 'alone, which is not in the log' })
    await Promise.all([
      maker.suspend(id),
      maker.revokeAll({ type: 'user', id: 'bob' }),
      createKnownKey(),
    ])
    await world.sequelize.transaction(async (transaction) => {
      await maker.reactivate(id, { transaction })
    })

    expect(await maker.verify(plainTextKey)).toMatchObject({ valid: true })
    expect((await maker.health()).cache.misses).toBe(misses)
  })
})
