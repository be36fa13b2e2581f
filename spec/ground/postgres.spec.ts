import { chmod } from 'node:fs/promises'
import { join } from 'node:path'

import { startPostgres } from '../../example-app/embedded-postgres'
import { installAdopter, type Adopter } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('postgres')
  // Postgres does not run as root.
  await chmod(adopter.folder, 0o755)
})

afterAll(() => adopter.remove())

describe.each(['14', '16', '17', '18'])('PostgreSQL %s', (version) => {
  it('bears the whole life of a key, and is left as it was found', async () => {
    const server = await startPostgres({
      folder: join(adopter.folder, `data-${version}`),
      programs: join(adopter.folder, 'node_modules', `postgres-${version}`, 'native', 'bin'),
      settings: { fsync: 'off' },
    })

    try {
      const printed = await adopter.run('env', `DATABASE_URL=${server.url}`, 'node', 'live.cjs')
      expect(printed).toBe(`complete on PostgreSQL ${version}\n`)
    } finally {
      await server.stop()
    }
  })
})
