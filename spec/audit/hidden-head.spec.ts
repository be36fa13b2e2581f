import { randomUUID } from 'node:crypto'

import { createApiKeys } from '../../lib'
import { useWorldForEach } from '../support/world'

const permissions = ['READ_GRAPH'] as const

const world = useWorldForEach({ template: 'empty' })

afterEach(() => jest.restoreAllMocks())

describe('row level security that hides the end of the audit trail', () => {
  // A sentence is given once as a warning. So each case has a schema of its own, which the sentence names.
  it.each([
    ['without a policy', 'one', ''],
    [
      'with a policy to insert',
      'two',
      'CREATE POLICY p ON two.api_key_audit_head FOR INSERT WITH CHECK (true)',
    ],
  ])('leaves changes possible and unsealed, with a warning, %s', async (_, schema, policy) => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
    const owner = world.database.connect()
    const options = { keyPrefix: 'agpt', permissions, schema }
    const whole = createApiKeys({ sequelize: owner, ...options })
    await whole.migrate()
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await owner.query(`
      CREATE ROLE ${role}; GRANT USAGE ON SCHEMA ${schema} TO ${role};
      GRANT ALL ON ALL TABLES IN SCHEMA ${schema} TO ${role};
      ALTER TABLE ${schema}.api_key_audit_head ENABLE ROW LEVEL SECURITY; ${policy}`)
    const sequelize = world.database.connect({ dialectOptions: { options: `-c role=${role}` } })
    const apiKeys = createApiKeys({ sequelize, ...options })
    world.database.closeFirst(apiKeys)

    const { apiKey } = await apiKeys.create({ userId: 'alice', name: 'A', permissions })
    await apiKeys.revoke(apiKey.id)
    await apiKeys.flush()

    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
    expect(warnings.mock.calls).toContainEqual([
      expect.stringContaining('is hidden from the role'),
      expect.objectContaining({ code: 'API_KEYS_HEAD_HIDDEN' }),
    ])
    await expect(apiKeys.auditHead()).rejects.toMatchObject({ code: 'audit_trail_not_intact' })
    expect(await whole.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 2 })
  })
})
