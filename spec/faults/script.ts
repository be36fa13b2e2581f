/*
 * A program that uses the library for a moment: `node --require .../register.js script.ts <ending> <url> <key>`.
 * Its first argument names its ending.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from 'pg'
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'

async function main([ending = '', url = '', key = '']: readonly string[]) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 5, idle: 1000, evict: 500 } })
  // With this, every use is written.
  const apiKeys = createTestApiKeys({ connect: () => sequelize }, { lastUsedResolutionMs: 0 })

  if (ending !== 'unused') {
    const { valid } = await apiKeys.verify(key)
    if (!valid) throw new Error('the key is good')
  }
  if (ending === 'twice') await Promise.all([apiKeys.close(), apiKeys.close()])
  if (ending === 'while it writes') await holdUpWrite(url)
  if (ending === 'close' || ending === 'while it writes') await apiKeys.close()
  if (ending !== 'no close at all') await sequelize.close()
  process.stdout.write('done\n')
}

/** Resolves once a write of usage waits for a lock, which is soon released. None of this keeps the process alive. */
async function holdUpWrite(url: string) {
  const client = new Client(url)
  await client.connect()
  await client.query('BEGIN')
  await client.query('LOCK TABLE api_keys IN SHARE MODE')
  while (!(await isAwaited(client))) await sleep(1)
  // The types lack it.
  ;(client as Client & { unref(): void }).unref()
  setTimeout(() => void client.end(), 50).unref()
}

async function isAwaited(client: Client): Promise<boolean> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_locks WHERE NOT granted AND relation = 'api_keys'::regclass`,
  )
  return rowCount !== 0
}

void main(process.argv.slice(2))
