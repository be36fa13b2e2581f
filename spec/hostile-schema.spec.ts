import { createTestApiKeys, type TestApiKeys } from './support/app'
import { createDatabase, type Database } from './support/database'
import { until } from './support/until'
import { newKey } from './support/keys'

let database: Database

beforeAll(async () => {
  database = await createDatabase()
  await addOverloads()
})

afterAll(() => database.drop())

/** The types of the columns and the values in statements of the library, and types that they could be converted to. */
const types = [
  ...'text varchar name "char" text[] bytea json jsonb uuid boolean smallint integer bigint'.split(
    ' ',
  ),
  ...'numeric float8 timestamptz interval oid xid xid8 tid'.split(' '),
]

const operators = '= <> < > <= >= + - * / || -> ->> ~ ~~'.split(' ')

/** Functions whose parameters may have other types than their arguments, by the number of arguments. */
const functions = {
  1: [
    ...'to_json to_jsonb json_agg jsonb_agg concat unnest array_agg json_build_array'.split(' '),
    ...'jsonb_build_array max min sum count length lower sha256 isfinite ceil to_timestamp'.split(
      ' ',
    ),
    ...'pg_advisory_xact_lock pg_advisory_xact_lock_shared current_setting'.split(' '),
  ],
  2: [
    ...'concat concat_ws json_build_object jsonb_build_object jsonb_object_agg left encode'.split(
      ' ',
    ),
    ...'string_agg decode convert_to convert_from to_char to_tsquery to_tsvector date_part'.split(
      ' ',
    ),
    ...'hashtextextended date_trunc array_position json_build_array'.split(' '),
  ],
}

function list(values: readonly string[]): string {
  return `ARRAY[${values.map((value) => `'${value}'`).join()}]`
}

/**
 * Adds functions and operators that have the names of those of Postgres, for all types, to the schema `public`, which comes after
 * `pg_catalog` in the search path. The server prefers exact types to a conversion. Each call of an overload fails, with its name.
 */
async function addOverloads() {
  await database.connect().query(`
    DO $do$
      DECLARE
        one text;
        other text;
        name text;
        body text := $$RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''overload of %s''; END'$$;
      BEGIN
        FOREACH one IN ARRAY ${list(types)} LOOP
          FOREACH name IN ARRAY ${list(functions[1])} LOOP
            EXECUTE format('CREATE FUNCTION public.%s(%s) ' || body, name, one, name);
          END LOOP;
          FOREACH other IN ARRAY ${list(types)} LOOP
            FOREACH name IN ARRAY ${list(functions[2])} LOOP
              EXECUTE format('CREATE FUNCTION public.%s(%s, %s) ' || body, name, one, other, name);
            END LOOP;
            FOREACH name IN ARRAY ${list(operators)} LOOP
              EXECUTE format('CREATE FUNCTION public.%I(%s, %s) ' || body, 'is ' || name, one, other, name);
              EXECUTE format(
                'CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%I)', name, one, other, 'is ' || name
              );
            END LOOP;
          END LOOP;
        END LOOP;
      END $do$`)
}

const alice = { type: 'user', id: 'alice' } as const

/** Calls by name. Each gets a key of its own. */
const calls: [
  string,
  (apiKeys: TestApiKeys, key: { id: string; plainTextKey: string }) => Promise<unknown>,
][] = [
  ['verify', (apiKeys, { plainTextKey }) => apiKeys.verify(plainTextKey)],
  [
    'changes at once',
    (apiKeys, { id }) =>
      Promise.all([apiKeys.create(newKey()), apiKeys.create(newKey()), apiKeys.suspend(id)]),
  ],
  ['get', (apiKeys, { id }) => apiKeys.get(id)],
  [
    'list',
    (apiKeys) => apiKeys.list({ text: 'Deployment', status: 'ACTIVE', userId: 'alice', limit: 1 }),
  ],
  [
    'update',
    (apiKeys, { id }) => apiKeys.update(id, { name: 'New', expiresAt: new Date('9999-01-01') }),
  ],
  ['suspend', (apiKeys, { id }) => apiKeys.suspend(id)],
  ['revoke', (apiKeys, { id }) => apiKeys.revoke(id)],
  [
    'rotate',
    async (apiKeys, { id, plainTextKey }) => {
      const rotated = await apiKeys.rotate(id, { gracePeriodSeconds: 60 })
      await apiKeys.verify(plainTextKey)
      await apiKeys.verify(rotated.plainTextKey)
      await apiKeys.endRotation(id)
    },
  ],
  [
    'rotate on first use',
    async (apiKeys, { id }) => {
      const rotated = await apiKeys.rotate(id, { activate: 'on-first-use' })
      await apiKeys.verify(rotated.plainTextKey)
      await until(async () => (await apiKeys.get(id)).pendingRotation === null)
      await apiKeys.rotate(id, { activate: 'on-first-use' })
      await apiKeys.endRotation(id)
    },
  ],
  [
    'unrevoke',
    async (apiKeys, { id }) => {
      await apiKeys.revoke(id)
      await apiKeys.unrevoke(id)
    },
  ],
  ['list of expired keys', (apiKeys) => apiKeys.list({ isExpired: true })],
  ['createMany', (apiKeys) => apiKeys.createMany([newKey(), newKey()], { idempotencyKey: 'once' })],
  ['revokeMany', (apiKeys, { id }) => apiKeys.revokeMany({ ids: [id] })],
  ['revokeAll', (apiKeys) => apiKeys.revokeAll(alice)],
  [
    'suspendOwner',
    async (apiKeys) => {
      await apiKeys.suspendOwner(alice)
      await apiKeys.reactivateOwner(alice)
    },
  ],
  [
    'flush',
    async (apiKeys, { plainTextKey }) => {
      await apiKeys.verify(plainTextKey)
      await apiKeys.flush()
    },
  ],
  ['usage', async (apiKeys, { id }) => [await apiKeys.usage(id), await apiKeys.totalUsage()]],
  ['events', (apiKeys, { id }) => apiKeys.events({ apiKeyId: id })],
  ['auditHead', (apiKeys) => apiKeys.auditHead()],
  ['verifyAuditTrail', (apiKeys) => apiKeys.verifyAuditTrail()],
  ['pruneAuditTrail', (apiKeys) => apiKeys.pruneAuditTrail({ olderThanDays: 30 })],
  ['pruneRevoked', (apiKeys) => apiKeys.pruneRevoked({ olderThanDays: 30 })],
  ['pruneUsage', (apiKeys) => apiKeys.pruneUsage({ olderThanDays: 30 })],
  ['revokeUnused', (apiKeys) => apiKeys.revokeUnused({ unusedForDays: 30 })],
  [
    'eraseOwner',
    async (apiKeys) => {
      const { apiKey } = await apiKeys.create(newKey({ userId: 'bob' }))
      await apiKeys.revoke(apiKey.id)
      await apiKeys.eraseOwner({ type: 'user', id: 'bob' }, { reason: 'Asked' })
    },
  ],
  ['health', (apiKeys) => apiKeys.health({ livingKeys: true })],
]

describe('functions and operators that another role has added to a schema in the search path', () => {
  it.each([
    ['statements are prepared', true],
    ['statements are not prepared', false],
  ])('replace none of Postgres if %s', async (_, preparedStatements) => {
    const failures: unknown[] = []
    const apiKeys = createTestApiKeys(database, {
      listen: false,
      lastUsedResolutionMs: 0,
      undoMinutes: 10,
      maxIdleDays: 30,
      preparedStatements,
    })
    apiKeys.on('error', ({ error }) => failures.push(['error', error]))

    for (const [name, call] of calls) {
      try {
        const { apiKey, plainTextKey } = await apiKeys.create(
          newKey({ expiresAt: new Date('2999-01-01') }),
        )
        await call(apiKeys, { id: apiKey.id, plainTextKey })
      } catch (error) {
        failures.push([name, error])
      }
    }
    await apiKeys.close().catch((error: unknown) => failures.push(['close', error]))

    expect(failures).toEqual([])
  })
})
