import type { Transaction } from 'sequelize'

import type { Options, TestApiKeys } from './app'
import { newKey } from './keys'
import { until } from './until'
import { useWorldForEach } from './world'

/** Gives each `it` a database, and functions that watch how processes read its log. */
export function useLog() {
  const world = useWorldForEach()

  /** Makes one more process of the library. */
  function createInstance(options: Options = {}): TestApiKeys {
    return world.createProcess(options).apiKeys
  }

  /** Creates a key that these processes have cached. */
  async function createKnownKey(...verifiers: TestApiKeys[]) {
    const { apiKey, plainTextKey } = await createInstance().create(newKey())
    for (const verifier of verifiers) {
      await until(async () => {
        await verifier.verify(plainTextKey)
        return (await verifier.health()).feed === 'following'
      })
      expect(await verifier.verify(plainTextKey)).toMatchObject({ valid: true })
    }
    return { id: apiKey.id, plainTextKey }
  }

  /** Returns the numbers of the log, in the order in which they were given. */
  async function readNumbers(): Promise<bigint[]> {
    const rows = await world.rows<{ revision: string }>(
      'SELECT revision::text FROM api_key_revisions ORDER BY xid',
    )
    return rows.map(({ revision }) => BigInt(revision))
  }

  /** Runs a statement on a connection beside those of the processes. */
  async function run(sql: string, transaction?: Transaction) {
    await world.sequelize.query(sql, { transaction: transaction ?? null })
  }

  return { world, createInstance, createKnownKey, readNumbers, run }
}

/** Resolves once a process refuses a key with this code. */
export async function expectSoon(apiKeys: TestApiKeys, plainTextKey: string, code: string) {
  await until(async () => {
    const verdict = await apiKeys.verify(plainTextKey)
    return !verdict.valid && verdict.code === code
  })
}

/** Returns a statement that revokes a key by hand. */
export function revokeSql(id: string): string {
  return `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE id = '${id}'`
}
