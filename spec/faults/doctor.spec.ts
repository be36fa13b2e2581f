import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { createDatabase } from '../support/database'
import { findBin, instanceModule, jsonLines } from '../support/cli'
import { createConsumer, type Consumer } from '../support/package'
import { createTestApiKeys } from '../support/app'
import { pgbouncerVersion, startPgbouncer } from './pgbouncer'
import { startServer, waitForReplay } from './server'
import { createCleanup } from './waiting'

const cleanup = createCleanup()
let consumer: Consumer
let bin: string

beforeAll(async () => {
  consumer = await createConsumer({ files: {} })
  cleanup.defer(() => consumer.remove())
  bin = await findBin()
})

afterAll(() => cleanup.run())

/** Returns what doctor says of a check, for an app with these options on a database. */
async function examine(check: string, url: string, options = '') {
  const file = join(consumer.folder, 'api-keys.cjs')
  await writeFile(file, instanceModule(options))
  const child = consumer.startNode([bin, 'doctor', '--json', '--config', file], url)
  let printed = ''
  for await (const chunk of child.stdout) printed += String(chunk)
  return jsonLines(printed).find((finding) => finding.check === check)
}

it('doctor finds a standby', async () => {
  const primary = await startServer()
  cleanup.defer(() => primary.remove())
  const standby = await primary.copyAsStandby((port) => port)
  cleanup.defer(() => standby.remove())
  const apiKeys = createTestApiKeys({ connect: () => primary.connect() })
  cleanup.defer(() => apiKeys.close())
  await apiKeys.migrate()
  await waitForReplay(primary.connect(), standby.connect())

  expect(await examine('primary', standby.url)).toMatchObject({
    state: 'fault',
    finding: 'the server is a standby',
    remedy: expect.stringContaining('connect to the primary'),
  })
})

const behindPgbouncer = pgbouncerVersion === undefined ? describe.skip : describe

behindPgbouncer('behind PgBouncer in transaction mode', () => {
  it('doctor finds a pooler in transaction mode, and takes options that fit it', async () => {
    const database = await createDatabase()
    cleanup.defer(() => database.drop())
    const pooler = await startPgbouncer(database.url)
    cleanup.defer(() => pooler.stop())

    const found = await examine('pooler', pooler.url)
    const fitting = await examine('pooler', pooler.url, 'listen: false, preparedStatements: false,')

    expect(found).toMatchObject({ state: 'advice' })
    expect(found?.remedy).toContain('Set the option listen to')
    expect(found?.remedy).toContain('Set preparedStatements: false')
    expect(fitting).toMatchObject({
      state: 'ok',
      finding: expect.stringContaining('as the options say'),
    })
  })
})
