import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { Sequelize } from 'sequelize'

import { startPostgres } from '../../example-app/embedded-postgres'

const launcher = join(__dirname, '..', '..', 'example-app', 'dist', 'embedded-postgres.js')

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'express-api-keys-launcher-'))
})

afterEach(() => rm(folder, { recursive: true, force: true }))

async function query(url: string, sql: string): Promise<unknown> {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 1 } })
  const [rows] = await sequelize.query(sql)
  await sequelize.close()
  return rows
}

/** Starts the server in another process, which goes on until it is killed. */
async function startElsewhere() {
  const program = `
    require(${JSON.stringify(launcher)}).startPostgres({ folder: ${JSON.stringify(folder)} })
      .then(({ url }) => { console.log(url); setInterval(() => {}, 1e6) })`
  const child = spawn(process.execPath, ['--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })

  for await (const url of createInterface(child.stdout)) return { child, url }
  throw new Error('The other process ended before its server was ready')
}

describe('startPostgres', () => {
  it('keeps its data from one start to the next', async () => {
    const first = await startPostgres({ folder })
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer')
    await first.stop()

    const second = await startPostgres({ folder })
    const rows = await query(second.url, 'SELECT answer FROM kept')
    await second.stop()

    expect(rows).toEqual([{ answer: 42 }])
  })

  it('starts again after kill -9 of Node, with nothing lost', async () => {
    const { child, url } = await startElsewhere()
    await query(url, 'CREATE TABLE kept AS SELECT 42 AS answer')
    child.kill('SIGKILL')
    await once(child, 'exit')

    const again = await startPostgres({ folder })
    const rows = await query(again.url, 'SELECT answer FROM kept')
    await again.stop()

    expect(rows).toEqual([{ answer: 42 }])
  })

  it('refuses a folder that is in use, and does not disturb the server that uses it', async () => {
    const { child, url } = await startElsewhere()

    await expect(startPostgres({ folder })).rejects.toThrow('another run is using the data')

    expect(await query(url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }])
    child.kill('SIGKILL')
    await once(child, 'exit')
    // The server ends by itself: wait for it by starting, and stopping, one of our own.
    await (await startPostgres({ folder })).stop()
  })

  it('reports the message of a server that cannot start', async () => {
    await expect(startPostgres({ folder, settings: { shared_buffers: 'plenty' } })).rejects.toThrow(
      /invalid value for parameter "shared_buffers"/,
    )
  })
})
