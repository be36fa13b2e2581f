import { mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Sequelize } from 'sequelize'

import { startPostgres, type EmbeddedPostgres } from '../../example-app/embedded-postgres'
import { createApiKeys } from '../../lib'
import { hasRedis } from './has-redis'

declare global {
  // Jest runs setup and teardown in one process, and neither in the workers of the specs.
  var embeddedPostgres: (EmbeddedPostgres & { folder: string }) | undefined
}

/** None of these data have to survive a crash. */
const fast = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: 0,
  max_prepared_transactions: 10,
  max_wal_size: '512MB',
  shared_buffers: '256MB',
  autovacuum: 'off',
  jit: 'off',
}

/** Starts one Postgres for all specs, with a migrated database to copy from (see `createDatabase`). */
export default async function startPostgresForSpecs() {
  if (!hasRedis) {
    process.stderr.write('redis-server is not installed: the specs that need it are left out.\n')
  }
  const inMemory = await hasRoom('/dev/shm')
  const { postgres, folder } = await startBelow(inMemory ? '/dev/shm' : tmpdir()).catch(() =>
    startBelow(tmpdir()),
  )
  globalThis.embeddedPostgres = { ...postgres, folder }

  try {
    await prepareTemplate(postgres.url)
  } catch (error) {
    // Jest does not call the teardown if the setup failed.
    await postgres.stop()
    throw error
  }
  process.env.SPEC_POSTGRES_URL = postgres.url
}

async function startBelow(parent: string) {
  const folder = await mkdtemp(join(parent, 'express-api-keys-spec-'))
  try {
    const programs = process.env.SPEC_POSTGRES_PROGRAMS
    const settings = { ...fast, max_connections: 300 }
    const postgres = await startPostgres({ folder, settings, ...(programs && { programs }) })
    return { postgres, folder }
  } catch (error) {
    await rm(folder, { recursive: true })
    throw error
  }
}

/** True if a folder in memory has room for the databases of all specs that run at once. */
async function hasRoom(folder: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(folder).catch(() => ({ bavail: 0, bsize: 0 }))
  return bavail * bsize > 4 * 1024 ** 3
}

async function prepareTemplate(url: string) {
  const server = new Sequelize(url, { logging: false })
  await server.query('CREATE DATABASE migrated')
  await checkPasswordsFast(server, new URL(url))
  await server.close()

  const template = new URL(url)
  template.pathname = '/migrated'
  const sequelize = new Sequelize(template.href, { logging: false })
  await createApiKeys({ sequelize, keyPrefix: 'agpt', permissions: ['ANY'] }).migrate()
  await sequelize.close()
}

/**
 * Specs connect some thousand times. By default, the password would be hashed 4096 times for each connection. Before PostgreSQL 16, that
 * cannot be changed.
 */
async function checkPasswordsFast(server: Sequelize, { username, password }: URL) {
  await server.query(
    `SELECT set_config(name, '1', false) FROM pg_settings WHERE name = 'scram_iterations';
     ALTER ROLE ${username} PASSWORD '${password}'`,
  )
}
