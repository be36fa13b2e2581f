import { Sequelize, type Transaction } from 'sequelize'

import { startProxy, type Proxy } from '../support/proxy'
import { until } from '../support/until'
import { useWorld, type Process } from '../support/world'

const world = useWorld()

let proxy: Proxy
let behindProxy: Sequelize
let changer: Process
let reported: string[]
/** The number of times that the library has asked for the outcome of a transaction. */
let looks: number

beforeAll(async () => {
  proxy = await startProxy(Number(new URL(world.database.url).port))
  // The trigger runs at COMMIT. A row may hold COMMIT up, or refuse it.
  await world.rows(`CREATE TABLE commits (refusal text)`)
  await world.rows(`
    CREATE FUNCTION check_commit() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM pg_advisory_xact_lock(7);
        IF NEW.refusal IS NOT NULL THEN RAISE check_violation USING MESSAGE = NEW.refusal; END IF;
        RETURN NULL;
      END
    $$`)
  await world.rows(`
    CREATE CONSTRAINT TRIGGER check_commit AFTER INSERT ON commits
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_commit()`)
})

beforeEach(() => {
  looks = 0
  behindProxy = new Sequelize(proxy.through(world.database.url), {
    logging: (sql) => {
      if (sql.includes('pg_xact_status')) looks++
    },
  })
  changer = world.createProcess({ sequelize: behindProxy })
  reported = []
  for (const name of ['revoked', 'updated', 'error'] as const) {
    changer.apiKeys.on(name, () => reported.push(name))
  }
})

afterEach(async () => {
  await changer.apiKeys.close()
  await behindProxy.close()
})

afterAll(() => proxy.close())

/** Changes and revokes a key in one transaction that is not committed yet. */
async function begin(refusal: string | null = null) {
  const { id } = await world.createKey()
  const transaction = await behindProxy.transaction()
  await changer.apiKeys.update(id, { name: 'Other' }, { transaction })
  await changer.apiKeys.revoke(id, { transaction })
  await behindProxy.query('INSERT INTO commits VALUES ($1)', { bind: [refusal], transaction })
  return { id, transaction }
}

async function statusOf(id: string) {
  return (await world.apiKeys.get(id)).status
}

async function failureOf(transaction: Transaction): Promise<string> {
  return transaction.commit().then(
    () => 'none',
    (error: Error) => error.message,
  )
}

describe('on, after a change in a transaction of the caller', () => {
  it('reports each change, in order, before the commit resolves', async () => {
    const { id, transaction } = await begin()

    await transaction.commit()

    expect(reported).toEqual(['updated', 'revoked'])
    expect(await statusOf(id)).toBe('REVOKED')
  })

  it('reports nothing if a constraint refuses COMMIT', async () => {
    const { id, transaction } = await begin('not today')

    expect(await failureOf(transaction)).toBe('not today')

    expect(reported).toEqual([])
    expect(await statusOf(id)).toBe('ACTIVE')
  })

  it('reports nothing if COMMIT does not reach the server', async () => {
    const { id, transaction } = await begin()
    proxy.freeze()
    const failure = failureOf(transaction)
    proxy.cut()
    proxy.thaw('abandoned')

    expect(await failure).toMatch(/terminated|ECONNRESET/)

    const stops = changer.apiKeys.on('suspended', () => reported.push('suspended'))
    const { id: other } = await world.createKey()
    await changer.apiKeys.suspend(other)
    stops()
    expect(reported).toEqual(['suspended'])
    expect(await statusOf(id)).toBe('ACTIVE')
  })

  it.each([
    ['committed', null, ['updated', 'revoked'], 'REVOKED'],
    ['rolled back', 'not today', [], 'ACTIVE'],
  ])(
    'waits for the server if the answer to COMMIT is lost, and it is %s',
    async (_outcome, refusal, expected, status) => {
      const lock = await world.holdLock('SELECT pg_advisory_xact_lock(7)')
      const { id, transaction } = await begin(refusal)
      const failure = failureOf(transaction)
      await lock.waitedFor()
      proxy.cut()
      expect(await failure).toMatch(/terminated|ECONNRESET/)
      expect(reported).toEqual([])

      const before = looks
      await lock.release()

      // The next change of the key waits for the row, and so for the end of the transaction.
      await world.apiKeys.setPermissions(id, ['READ_BLOCK']).catch(() => {})
      await until(() => looks > before && reported.length >= expected.length)
      expect(reported).toEqual(expected)
      expect(await statusOf(id)).toBe(status)
    },
  )
})
