import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { Validator } from '@seriousme/openapi-schema-validator'

import { installAdopter, type Adopter } from '../support/adopter'
import type { AnyJson } from '../support/contract'
import { createDatabase } from '../support/database'
import { startExampleApp } from '../support/example-app'

const compilerOptions = {
  target: 'es2022',
  module: 'nodenext',
  strict: true,
  allowImportingTsExtensions: true,
  rewriteRelativeImportExtensions: true,
  types: ['node'],
}

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('openapi')
})

afterAll(() => adopter.remove())

/** Signs a user in to the example app, and returns the session's cookie. */
async function signIn(url: string, username: string): Promise<string> {
  const { headers } = await fetch(`${url}/sign-in`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password: username }),
  })
  return String(headers.get('set-cookie')?.split(';')[0])
}

describe('a client that openapi-typescript makes', () => {
  it('compiles, and talks to the example app', async () => {
    const database = await createDatabase('empty')
    const { app, url } = await startExampleApp(database)
    try {
      const cookie = await signIn(url, 'alice')
      const answer = await fetch(`${url}/api-keys/openapi.json`, { headers: { Cookie: cookie } })
      await writeFile(join(adopter.folder, 'openapi.json'), await answer.text())
      const tsconfig = JSON.stringify({ compilerOptions, files: ['client.mts'] })
      await writeFile(join(adopter.folder, 'tsconfig.json'), tsconfig)

      await adopter.run('npx', 'openapi-typescript', 'openapi.json', '--output', 'api-keys.d.ts')
      const errors = await adopter.run('npx', 'tsc')
      const printed = await adopter.run('node', 'client.mjs', `${url}/api-keys`, cookie)

      expect(errors).toBe('')
      expect(printed).toBe('the client has talked to the app\n')
    } finally {
      app.kill('SIGKILL')
      await database.drop()
    }
  })
})

describe('the document of a generator', () => {
  it('says what guards answer, and has no fault', async () => {
    const documents = JSON.parse(await adopter.run('node', 'generate.cjs')) as AnyJson

    for (const [name, document] of Object.entries<AnyJson>(documents)) {
      const { valid, errors } = await new Validator().validate(structuredClone(document))
      const { responses, security } = document.paths['/graphs'].get as AnyJson
      const scopes = name.endsWith('3.0') ? [] : ['READ_GRAPH']

      expect([name, valid, errors]).toEqual([name, true, undefined])
      expect(Object.keys(responses as object)).toEqual(['200', '400', '401', '403', '429', '503'])
      expect(security).toEqual([{ apiKey: scopes }, { apiKeyHeader: scopes }])
      expect(Object.keys(document.paths['/status'].get.responses as object)).toEqual(['200'])
    }
    expect(Object.keys(documents)).toHaveLength(3)
  })
})
