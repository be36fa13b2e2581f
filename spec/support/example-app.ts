import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

/** The folder of the example app. */
export const exampleFolder = join(__dirname, '..', '..', 'example-app')

/** Starts the example app, as it is built, on a database and a free port. */
export async function startExampleApp(database: { url: string }) {
  const app = spawn(process.execPath, [join(exampleFolder, 'dist', 'main.js')], {
    env: {
      ...process.env,
      PORT: '0',
      DATABASE_URL: database.url,
      SESSION_SECRET: 'for the specs only: 9b1f0a4c77e2d35866',
      API_KEYS_SECRET: 'for the specs only: 41c6e0d97a2f8b5533',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return { app, url: await readAddress(app) }
}

async function readAddress({ stdout }: ChildProcess): Promise<string> {
  if (!stdout) throw new Error('The output of the app is not piped')

  for await (const line of createInterface(stdout)) {
    const [, address] = /^Listening on (\S+)/.exec(line) ?? []
    if (address !== undefined) return address
  }
  throw new Error('The app ended before it listened')
}
