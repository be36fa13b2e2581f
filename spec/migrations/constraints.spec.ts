import { randomUUID } from 'node:crypto'

import { insert } from '../support/tables'
import { useWorld } from '../support/world'

/** SQL for an object of so many bytes. */
const objectOf = (bytes: number) => `('{"x":"' || repeat('x', ${bytes - 8}) || '"}')::json`

describe('constraints', () => {
  const world = useWorld()

  const key = {
    user_id: "'alice'",
    name: "'Deployment'",
    description: 'NULL',
    prefix: "'agpt_abc123'",
    postfix: "'abcd1234'",
    hash: 'md5(random()::text) || md5(random()::text)',
    secret_id: 'NULL',
    permissions: "'{READ_GRAPH}'",
    status: "'ACTIVE'",
    revoked_at: 'NULL',
  }
  const event = {
    api_key_id: 'gen_random_uuid()',
    owner_type: "'user'",
    owner_id: "'alice'",
    action: "'created'",
    actor_type: "'user'",
    actor_id: "'alice'",
    reason: 'NULL',
  }
  const usage = {
    api_key_id: 'gen_random_uuid()',
    owner_type: "'user'",
    owner_id: "'alice'",
    hour: "'2026-11-01T12:00:00Z'",
    verified: '1',
    denied: '0',
    rate_limited: '0',
  }
  const suspension = { user_id: "'alice'", suspended_at: 'now()' }
  const ofService = { user_id: 'NULL', service: "'importer'" }
  const bound = { bound_ms: '1000', registered_at: 'now()' }
  const change = { mark: 'gen_random_uuid()', place: '1', is_new: 'false' }

  it.each([
    ['a key', 'api_keys', key, {}],
    ['a revoked key', 'api_keys', key, { status: "'REVOKED'", revoked_at: 'now()' }],
    ['a suspended key', 'api_keys', key, { status: "'SUSPENDED'" }],
    ['100 characters of name', 'api_keys', key, { name: "repeat('ä', 100)" }],
    ['a key of an organization', 'api_keys', key, { user_id: 'NULL', organization_id: "'acme'" }],
    ['a key of a service', 'api_keys', key, ofService],
    ['an empty set of permissions', 'api_keys', key, { permissions: "'{}'" }],
    ['an environment', 'api_keys', key, { environment: "'live_2'" }],
    ['resources', 'api_keys', key, { resources: `'{"graph": ["7"]}'` }],
    [
      'an event about an owner',
      'api_key_events',
      event,
      { api_key_id: 'NULL', action: "'owner_suspended'" },
    ],
    [
      'an event of a transfer',
      'api_key_events',
      event,
      { former_owner_type: "'service'", former_owner_id: "'importer'" },
    ],
    ['a suspended owner', 'api_key_suspended_owners', suspension, {}],
    ['a suspended service', 'api_key_suspended_owners', suspension, ofService],
    ['a key that was exposed', 'api_keys', key, { status: "'SUSPENDED'", exposed: "'{}'" }],
    ['a limited key', 'api_keys', key, { limits: "'{}'", allowed_ips: "'{::1}'" }],
    ['a keyed hash', 'api_keys', key, { secret_id: "'0123456789abcdef'" }],
    ['a prefix of several words', 'api_keys', key, { prefix: "'acme_live_2_Abc123'" }],
    ['an address', 'api_keys', key, { last_used_from: "'2001:db8::203.0.113.7'" }],
    ['an event', 'api_key_events', event, {}],
    [
      'an event without an actor',
      'api_key_events',
      event,
      { actor_type: "'system'", actor_id: 'NULL' },
    ],
    ['an hour of usage', 'api_key_usage', usage, {}],
    ['an hour elsewhere', 'api_key_usage', usage, { hour: "'2026-11-01T12:00:00-07:00'" }],
  ])('let %s in', async (_, table, good, change) => {
    await expect(insert(world, table, { ...good, ...change })).resolves.toBeDefined()
  })

  const hash = `'${'0'.repeat(64)}'`

  const exposed = { status: "'SUSPENDED'", exposed: "'{}'" }

  const badKeys: [string, Record<string, string>, string][] = [
    ['no owner', { user_id: 'NULL' }, 'api_keys_owner_check'],
    ['two owners', { service: "'importer'" }, 'api_keys_owner_check'],
    ['three owners', { service: "'importer'", organization_id: "'acme'" }, 'api_keys_owner_check'],
    ['an empty service', { ...ofService, service: "''" }, 'api_keys_service_check'],
    ['101 of service', { ...ofService, service: "repeat('x', 101)" }, 'api_keys_service_check'],
    ['an environment in upper case', { environment: "'Live'" }, 'api_keys_environment_check'],
    ['33 of environment', { environment: "repeat('x', 33)" }, 'api_keys_environment_check'],
    ['a list of resources', { resources: "'[]'" }, 'api_keys_resources_check'],
    ['16385 bytes of resources', { resources: objectOf(16_385) }, 'api_keys_resources_check'],
    ['no name', { name: 'NULL' }, 'null value in column "name"'],
    ['an empty name', { name: "''" }, 'api_keys_name_check'],
    ['101 characters of name', { name: "repeat('x', 101)" }, 'api_keys_name_check'],
    ['501 of description', { description: "repeat('x', 501)" }, 'api_keys_description_check'],
    ['a prefix without a name', { prefix: "'_abc123'" }, 'api_keys_prefix_check'],
    ['a prefix that shows more', { prefix: "'agpt_abc1234'" }, 'api_keys_prefix_check'],
    ['a postfix that shows more', { postfix: "'abcd12345'" }, 'api_keys_postfix_check'],
    ['the postfix of another system', { postfix: "'a-1'" }, 'api_keys_source_of_prefix_check'],
    [
      'the prefix of another system',
      { prefix: "'@knox_abc...'" },
      'api_keys_source_of_prefix_check',
    ],
    [
      'the prefix of another source',
      { prefix: "'@knox_abc...'", source: "'sanctum'" },
      'api_keys_source_of_prefix_check',
    ],
    ['a source without a name', { source: "''" }, 'api_keys_source_check'],
    ['no hash', { hash: 'NULL' }, 'null value in column "hash"'],
    ['plain text for a hash', { hash: "'agpt_7Qm3'" }, 'api_keys_hash_check'],
    ['a hash in upper case', { hash: `'${'A'.repeat(64)}'` }, 'api_keys_hash_check'],
    ['a secret for its id', { secret_id: "'correct horse'" }, 'api_keys_secret_id_check'],
    ['no permissions', { permissions: 'NULL' }, 'null value in column "permissions"'],
    ['NULL for a permission', { permissions: "'{READ,NULL}'" }, 'api_keys_permissions_check'],
    ['a table of permissions', { permissions: "'{{A},{B}}'" }, 'api_keys_permissions_check'],
    ['no status', { status: 'NULL' }, 'null value in column "status"'],
    ['another status', { status: "'EXPIRED'" }, 'api_keys_status_check'],
    ['REVOKED without a time', { status: "'REVOKED'" }, 'api_keys_revoked_at_check'],
    ['a time without REVOKED', { revoked_at: 'now()' }, 'api_keys_revoked_at_check'],
    ['a host for an address', { last_used_from: "'localhost'" }, 'last_used_from_check'],
    ['no metadata', { metadata: 'NULL' }, 'null value in column "metadata"'],
    ['a list of metadata', { metadata: "'[]'" }, 'api_keys_metadata_check'],
    ['4097 bytes of metadata', { metadata: objectOf(4_097) }, 'api_keys_metadata_check'],
    ['a list of limits', { limits: "'[]'" }, 'api_keys_limits_check'],
    ['4097 bytes of limits', { limits: objectOf(4_097) }, 'api_keys_limits_check'],
    ['an empty list of addresses', { allowed_ips: "'{}'" }, 'api_keys_allowed_ips_check'],
    ['NULL for an address', { allowed_ips: "'{::1,NULL}'" }, 'api_keys_allowed_ips_check'],
    ['a table of addresses', { allowed_ips: "'{{a},{b}}'" }, 'api_keys_allowed_ips_check'],
    [
      '101 addresses',
      { allowed_ips: "array_fill('::1'::text, '{101}')" },
      'api_keys_allowed_ips_check',
    ],
    ['ACTIVE after an exposure', { ...exposed, status: "'ACTIVE'" }, 'api_keys_exposed_check'],
    ['a list of exposures', { ...exposed, exposed: "'[]'" }, 'api_keys_exposed_check'],
    ['8193 bytes of exposure', { ...exposed, exposed: objectOf(8_193) }, 'api_keys_exposed_check'],
    [
      'a secret for its previous id',
      { previous_secret_id: "'correct horse'" },
      'api_keys_previous_secret_id_check',
    ],
    ['half a previous secret', { previous_prefix: "'agpt_abc123'" }, 'api_keys_previous_check'],
    ['a use of no previous secret', { previous_last_used_at: 'now()' }, 'api_keys_previous_check'],
    [
      'the id of no previous secret',
      { previous_secret_id: "'0123456789abcdef'" },
      'api_keys_previous_check',
    ],
    [
      'a secret for its pending id',
      { pending_secret_id: "'correct horse'" },
      'api_keys_pending_secret_id_check',
    ],
    ['half a pending secret', { pending_prefix: "'agpt_abc123'" }, 'api_keys_pending_check'],
    [
      'the id of no pending secret',
      { pending_secret_id: "'0123456789abcdef'" },
      'api_keys_pending_check',
    ],
    [
      'a grace of more than a year',
      { pending_grace_seconds: '31536001' },
      'api_keys_pending_grace_seconds_check',
    ],
    [
      'a grace of less than nothing',
      { pending_grace_seconds: '-1' },
      'api_keys_pending_grace_seconds_check',
    ],
  ]

  it.each(badKeys)('keep a key with %s out', async (_, change, refusal) => {
    await expect(insert(world, 'api_keys', { ...key, ...change })).rejects.toThrow(refusal)
  })

  it.each(badKeys)('let no UPDATE give a key %s', async (_, change, refusal) => {
    const name = randomUUID()
    await insert(world, 'api_keys', { ...key, name: `'${name}'` })

    const columns = Object.entries(change).map(([column, value]) => `${column} = ${value}`)
    const update = `UPDATE api_keys SET ${columns.join(', ')} WHERE name = '${name}'`
    await expect(world.sequelize.query(update)).rejects.toThrow(refusal)
  })

  it('keep a key out that a trigger of the app makes bad', async () => {
    await world.sequelize.query(`
      CREATE FUNCTION z_shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.hash := upper(NEW.hash); RETURN NEW; END $$;
      CREATE TRIGGER z_shout BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION z_shout()`)

    const insertion = insert(world, 'api_keys', { ...key, hash: `'${'a'.repeat(64)}'` })
    await expect(insertion).rejects.toMatchObject({
      parent: { code: '23514', constraint: 'api_keys_hash_check', detail: undefined },
    })
    await world.sequelize.query('DROP TRIGGER z_shout ON api_keys')
  })

  it('keep a bad key out of a session that replicates', async () => {
    const insertion = world.sequelize.transaction(async (transaction) => {
      await world.sequelize.query('SET LOCAL session_replication_role = replica', { transaction })
      const values = { ...key, name: "''" }
      const sql = `INSERT INTO api_keys (${Object.keys(values).join(', ')}) VALUES (${Object.values(values).join(', ')})`
      await world.sequelize.query(sql, { transaction })
    })
    await expect(insertion).rejects.toThrow('api_keys_name_check')
  })

  it.each([
    ['no owner', { user_id: 'NULL' }, 'api_key_suspended_owners_check'],
    ['two owners', { service: "'importer'" }, 'api_key_suspended_owners_check'],
    ['no time', { suspended_at: 'NULL' }, 'null value in column "suspended_at"'],
    ['501 of reason', { reason: "repeat('x', 501)" }, 'api_key_suspended_owners_reason_check'],
  ])('keep a suspended owner with %s out', async (_, change, refusal) => {
    await expect(
      insert(world, 'api_key_suspended_owners', { ...suspension, ...change }),
    ).rejects.toThrow(refusal)
  })

  it('keep a second suspension of an owner out', async () => {
    const bob = { ...suspension, user_id: "'bob'" }
    await insert(world, 'api_key_suspended_owners', bob)

    await expect(insert(world, 'api_key_suspended_owners', bob)).rejects.toMatchObject({
      parent: { constraint: 'api_key_suspended_owners_user_id_key' },
    })
  })

  it('keep a second key with the same hash out', async () => {
    await insert(world, 'api_keys', { ...key, hash })

    await expect(insert(world, 'api_keys', { ...key, hash })).rejects.toMatchObject({
      parent: { constraint: 'api_keys_hash_key' },
    })
  })

  it.each([
    ['no key', { api_key_id: 'NULL' }, 'api_key_events_api_key_id_check'],
    ['half an owner', { owner_id: 'NULL' }, 'api_key_events_owner_check'],
    ['half a former owner', { former_owner_type: "'user'" }, 'api_key_events_former_owner_check'],
    [
      'another kind of former owner',
      { former_owner_type: "'team'", former_owner_id: "'red'" },
      'api_key_events_former_owner_type_check',
    ],
    [
      'a warning of a user',
      { action: "'retired_secret_used'" },
      'api_key_events_retired_secret_used_check',
    ],
    ['a short salt', { salt: "'x'" }, 'api_key_events_salt_check'],
    ['no salt', { salt: 'NULL' }, 'null value in column "salt"'],
    ['a signature of no form', { entry_mac: "'x'" }, 'api_key_events_entry_mac_check'],
    ['fewer kept digests', { erased: "'{NULL}'" }, 'api_key_events_erased_check'],
    ['a state that is no jsonb', { before: `'"\\u0000"'` }, 'unsupported Unicode escape sequence'],
    ['another', { after: `'"\\u0000"'` }, 'unsupported Unicode escape sequence'],
    ['a third', { personal_before: `'"\\u0000"'` }, 'unsupported Unicode escape sequence'],
    ['a fourth', { personal_after: `'"\\u0000"'` }, 'unsupported Unicode escape sequence'],
    ['another kind of owner', { owner_type: "'team'" }, 'api_key_events_owner_type_check'],
    ['another action', { action: "'expired'" }, 'api_key_events_action_check'],
    ['another actor', { actor_type: "'robot'" }, 'api_key_events_actor_type_check'],
    ['a user without an id', { actor_id: 'NULL' }, 'api_key_events_actor_id_check'],
    ['501 characters of reason', { reason: "repeat('x', 501)" }, 'api_key_events_reason_check'],
  ])('keep an event with %s out', async (_, change, refusal) => {
    await expect(insert(world, 'api_key_events', { ...event, ...change })).rejects.toThrow(refusal)
  })

  it.each([
    ['no key', { api_key_id: 'NULL' }, 'null value in column "api_key_id"'],
    ['no owner', { owner_id: 'NULL' }, 'null value in column "owner_id"'],
    ['no kind of owner', { owner_type: 'NULL' }, 'null value in column "owner_type"'],
    ['a time within an hour', { hour: "'2026-11-01T12:30:00Z'" }, 'api_key_usage_hour_check'],
    ['no end of time', { hour: "'infinity'" }, 'api_key_usage_hour_check'],
    ['less than no use', { verified: '-1' }, 'api_key_usage_verified_check'],
    ['less than none denied', { denied: '-1' }, 'api_key_usage_denied_check'],
    ['less than none limited', { rate_limited: '-1' }, 'api_key_usage_rate_limited_check'],
  ])('keep usage with %s out', async (_, change, refusal) => {
    await expect(insert(world, 'api_key_usage', { ...usage, ...change })).rejects.toThrow(refusal)
  })

  it.each([
    [
      'a row beside the one to lock',
      'api_key_log_lock',
      { is_the_one: 'true' },
      'Validation error',
    ],
    ['a row that is not the one', 'api_key_log_lock', { is_the_one: 'false' }, '_check'],
    ['a row that is none', 'api_key_log_lock', { is_the_one: 'NULL' }, 'null value'],
    ['a bound of nothing', 'api_key_bounds', { ...bound, bound_ms: '0' }, '_bound_ms_check'],
    [
      'a bound longer than a timer',
      'api_key_bounds',
      { ...bound, bound_ms: '2147483648' },
      '_bound_ms_check',
    ],
    ['no bound', 'api_key_bounds', { ...bound, bound_ms: 'NULL' }, 'null value'],
    ['a bound of no time', 'api_key_bounds', { ...bound, registered_at: 'NULL' }, 'null value'],
    ['a number of their own', 'api_key_revisions', { revision: '1000' }, 'non-DEFAULT value'],
    ['an entry without a mark', 'api_key_revisions', { mark: 'NULL' }, 'null value'],
    ['an entry without a time', 'api_key_revisions', { created_at: 'NULL' }, 'null value'],
    ['a change of no entry', 'api_key_changes', { ...change, mark: 'NULL' }, 'null value'],
    ['a change of any kind', 'api_key_changes', { ...change, is_new: 'NULL' }, 'null value'],
    ['a change in no order', 'api_key_changes', { ...change, place: 'NULL' }, 'null value'],
  ])('keep %s out of the log', async (_, table, values, refusal) => {
    await expect(insert(world, table, values)).rejects.toThrow(refusal)
  })

  it.each(['DELETE FROM', 'TRUNCATE'])('keep an entry in the log after %s', async (remove) => {
    const [before] = await world.rows<{ mark: string }>('SELECT mark FROM api_key_revisions')

    await world.sequelize.query(`${remove} api_key_revisions`)

    const after = await world.rows<{ mark: string }>('SELECT mark FROM api_key_revisions')
    expect(after).toHaveLength(1)
    expect(after[0]?.mark).not.toBe(before?.mark)
  })
})
