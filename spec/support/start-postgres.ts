import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { Sequelize } from 'sequelize'

import { startPostgres, type EmbeddedPostgres } from '../../example-app/embedded-postgres'
import { createApiKeys } from '../../lib'
import { hasRedis } from './has-redis'
import stopPostgresForSpecs from './stop-postgres'

declare global {
  // Jest runs setup and teardown in one process, and neither in the workers of the specs.
  var embeddedPostgres: EmbeddedPostgres | undefined
  var specFolder: string | undefined
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
  const folder = (await makeFolderInMemory()) ?? (await makeFolder(tmpdir()))
  globalThis.specFolder = folder
  // All temporary files of the specs are made here, and of the programs that they run. npm alone makes some 100,000.
  process.env.TMPDIR = folder

  try {
    const programs = process.env.SPEC_POSTGRES_PROGRAMS
    const postgres = await startPostgres({
      folder: join(folder, 'postgres'),
      settings: { ...fast, max_connections: 300 },
      ...(programs && { programs }),
    })
    globalThis.embeddedPostgres = postgres
    await prepareTemplate(postgres.url)
    process.env.SPEC_POSTGRES_URL = postgres.url
  } catch (error) {
    // Jest does not call the teardown if the setup failed.
    await stopPostgresForSpecs()
    throw error
  }
}

/** Makes a folder like /tmp, because some servers run as another user. */
async function makeFolder(parent: string): Promise<string> {
  const folder = await mkdtemp(join(parent, 'express-api-keys-'))
  await chmod(folder, 0o1777)
  return folder
}

/** Makes one in memory if there is room for all specs that run at once, and programs may run there; else `undefined`. */
async function makeFolderInMemory(): Promise<string | undefined> {
  const memory = '/dev/shm'
  const { bavail, bsize } = await statfs(memory).catch(() => ({ bavail: 0, bsize: 0 }))
  if (bavail * bsize < 6 * 1024 ** 3) return undefined

  const folder = await makeFolder(memory).catch(() => undefined)
  if (folder === undefined) return undefined
  try {
    const program = join(folder, 'program')
    await writeFile(program, '#!/bin/sh\n', { mode: 0o755 })
    await promisify(execFile)(program)
    return folder
  } catch {
    await rm(folder, { recursive: true, force: true })
    return undefined
  }
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
