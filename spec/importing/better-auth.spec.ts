import { createHash } from 'node:crypto'

import { apiKey } from '@better-auth/api-key'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { Pool } from 'pg'

import { sources } from '../../lib'
import { withOther } from '../support/imported-keys'
import { useWorld } from '../support/world'

/** Keys that the real plugin makes, in the database from which they are imported. */
describe('keys that better-auth has made', () => {
  const world = useWorld({ options: { imports: [sources.betterAuth({ prefix: 'acme_' })] } })
  async function makeKeys() {
    const pool = new Pool({ connectionString: world.database.url, max: 2 })
    const options = {
      database: pool,
      baseURL: 'http://127.0.0.1',
      secret: createHash('sha256').update(world.database.url).digest('hex'),
      emailAndPassword: { enabled: true },
      plugins: [apiKey({ defaultPrefix: 'acme_', enableMetadata: true })],
      logger: { disabled: true },
      telemetry: { enabled: false },
    }
    const { runMigrations } = await getMigrations(options)
    await runMigrations()
    const auth = betterAuth(options)
    const { user } = await auth.api.signUpEmail({
      body: { email: 'alice@example.com', password: 'correct horse', name: 'Alice' },
    })
    const create = (body: object) => auth.api.createApiKey({ body: { userId: user.id, ...body } })
    const [plain, limited] = [
      await create({ name: 'Deployment', permissions: { READ: ['GRAPH'] }, metadata: { a: 1 } }),
      await create({ permissions: { READ: ['GRAPH'] }, expiresIn: 86_400 * 30 }),
    ]
    await auth.api.updateApiKey({
      body: { keyId: limited.id, userId: user.id, enabled: false },
    })
    // Before the database goes.
    await pool.end()
    return { userId: user.id, plain, limited }
  }

  it('are accepted with the names, times and states that they have there', async () => {
    const { userId, plain, limited } = await makeKeys()
    const rows = await world.rows('SELECT * FROM apikey ORDER BY "createdAt"')

    const report = await world.apiKeys.importKeys('better-auth', rows, {
      permissions: (row) => row.permissions?.map((name) => name.replace(':', '_')),
    })

    expect(report).toMatchObject({ imported: 2, refused: [] })
    expect(report.unmapped).toMatchObject([{ field: 'rateLimitMax', rows: 2 }])
    expect(await world.apiKeys.verify(plain.key)).toMatchObject({
      valid: true,
      apiKey: { userId, name: 'Deployment', permissions: ['READ_GRAPH'] },
    })
    expect(await world.apiKeys.verify(limited.key)).toMatchObject({ code: 'suspended' })
    expect(await world.apiKeys.verify(withOther(plain.key, 20))).toMatchObject({ valid: false })
    const { apiKeys } = await world.apiKeys.list({ userId })
    const record = apiKeys.find(({ name }) => name === 'Deployment')
    expect(record).toMatchObject({ prefix: plain.key.slice(0, 6), source: 'better-auth' })
    expect(record?.createdAt).toEqual(new Date(plain.createdAt))
  })
})
