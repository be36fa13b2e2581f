import { cp } from 'node:fs/promises'
import { join } from 'node:path'

import { installAdopter, type Adopter, type RunningProgram } from '../support/adopter'

let adopter: Adopter
let app: RunningProgram | undefined

beforeAll(async () => {
  adopter = await installAdopter('express')
})

afterEach(async () => {
  await app?.stop()
  app = undefined
})

afterAll(() => adopter.remove())

/** Sends a key to a program of the adopter's, and returns the answer with its body. */
async function get(path: string, key: string | undefined) {
  const headers: Record<string, string> =
    key === undefined ? {} : { Authorization: `Bearer ${key}` }
  const answer = await fetch(`${app?.url}${path}`, { headers })
  const body: unknown = await answer.json()
  return { status: answer.status, headers: answer.headers, body }
}

describe('behind a guard', () => {
  it.each([
    ['apicache', '/cached'],
    ['express-rate-limit', '/limited'],
  ])('%s separates two keys by their Authorization', async (_, path) => {
    app = await adopter.start('limiters.cjs')

    const alices = await get(path, await adopter.createKey('alice'))
    const bobs = await get(path, await adopter.createKey('bob'))

    expect([alices.body, bobs.body]).toEqual([{ ranFor: 'alice' }, { ranFor: 'bob' }])
  })

  it.each(['/limited', '/limited-before'])(
    'the fields of express-rate-limit and those of a key stand side by side, at %s',
    async (path) => {
      app = await adopter.start('limiters.cjs')

      const { headers } = await get(path, await adopter.createKey())

      const policies = headers.get('RateLimit-Policy')?.split(', ').toSorted()
      expect(policies).toEqual([
        expect.stringMatching(/^"1-in-1min"; q=1; w=60;/),
        '"burst";q=100;w=3600',
      ])
      const states = headers.get('RateLimit')?.split(', ').toSorted()
      expect(states).toEqual([
        expect.stringMatching(/^"1-in-1min"; r=0; t=\d+/),
        expect.stringMatching(/^"burst";r=99;t=\d+$/),
      ])
    },
  )

  it('http-proxy-middleware passes on a masked key, and who it was', async () => {
    app = await adopter.start('proxy.cjs')
    const key = await adopter.createKey()

    const guarded = await get('/guarded', key)
    const open = await get('/open', key)

    expect(guarded.body).toMatchObject({ user: 'alice' })
    expect(JSON.stringify(guarded.body)).not.toContain(key)
    expect(open.body).toMatchObject({ authorization: `Bearer ${key}` })
  })
})

describe('loggers, set up as the README says', () => {
  it.each(['Authorization', 'X-Acme'])('print no key sent in %s', async (header) => {
    app = await adopter.start('loggers.cjs')
    const init = {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ name: 'Canary', permissions: ['READ_GRAPH'] }),
    }
    const keys: string[] = []
    for (const path of ['/api-keys', '/created']) {
      const created = await fetch(app.url + path, init)
      const { plainTextKey } = (await created.json()) as { plainTextKey: string }
      keys.push(plainTextKey)
    }

    const statuses = []
    for (const path of ['/guarded', '/open', '/failing']) {
      for (const key of [keys[0], keys[0]?.slice(0, -1)]) {
        const value = header === 'Authorization' ? `Bearer ${key}` : String(key)
        const { status } = await fetch(app.url + path, { headers: { [header]: value } })
        statuses.push(status)
      }
    }
    const printed = await app.stop()

    expect(statuses).toEqual([200, 401, 200, 200, 500, 401])
    expect(printed).toMatch(/"msg":"request completed"/)
    expect(printed).toMatch(/^arrived .*acme_/m)
    expect(printed).toMatch(/"message":"HTTP GET \/guarded"/)
    expect(printed).toMatch(/"message":"middlewareError"/)
    for (const key of keys) expect(printed).not.toContain(key.slice(0, -1))
  })
})

describe('without Express', () => {
  it.each(['connect', 'http'])('a guard judges, limits and refuses with %s', async (kind) => {
    app = await adopter.start('listeners.cjs', kind)

    const accepted = await get('/', await adopter.createKey())
    const refused = await get('/', undefined)

    expect(accepted).toMatchObject({ status: 200, body: { ranFor: 'alice' } })
    expect(accepted.headers.get('RateLimit')).toMatch(/^"burst";r=99;/)
    expect(refused).toMatchObject({ status: 401, body: { code: 'missing_credential' } })
    expect(refused.headers.get('WWW-Authenticate')).toBe('Bearer realm="api"')
  })
})

describe('as a function', () => {
  it('an app answers events of API Gateway and ALB as it answers requests', async () => {
    const printed = await adopter.run(
      'node',
      'functions.cjs',
      await adopter.createKey(),
      await adopter.createKey('alice', { allowedIps: ['203.0.113.7'] }),
    )

    const calls = printed
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { format: string })
    expect(calls).toHaveLength(6)
    for (const call of calls) {
      expect(call).toMatchObject({
        accepted: [200, 'alice'],
        masked: true,
        bound: 200,
        refused: [401, 'missing_credential', 'Bearer realm="api"'],
        created: [201, call.format],
      })
    }
  })
})

describe('the whole life of a key', () => {
  it('passes from one file made by esbuild', async () => {
    const bundle = join(adopter.folder, 'bundle', 'bundled.cjs')
    const options = ['--bundle', '--minify', '--platform=node', '--external:pg-hstore']
    const driver = ['--external:pg-native', `--outfile=${bundle}`]
    await adopter.run('node_modules/.bin/esbuild', 'bundled.cjs', ...options, ...driver)

    await expect(adopter.run('node', bundle)).resolves.toMatch(/^complete on PostgreSQL/)
  })

  it('passes with a copy of Sequelize of its own below the package', async () => {
    const modules = join(adopter.folder, 'node_modules')
    const copy = join(modules, 'express-api-keys', 'node_modules', 'sequelize')
    await cp(join(modules, 'sequelize'), copy, { recursive: true })

    await expect(adopter.run('node', 'live.cjs')).resolves.toMatch(/^complete on PostgreSQL/)
  })
})
