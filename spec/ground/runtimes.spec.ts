import { installAdopter, type Adopter } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('runtimes')
})

afterAll(() => adopter.remove())

describe('the whole life of a key', () => {
  it.each(['1.2', '1.3', '1.4'])('passes on Bun %s', async (version) => {
    const printed = await adopter.run(`node_modules/bun-${version}/bin/bun.exe`, 'live.cjs')

    expect(printed).toMatch(/^complete on PostgreSQL \d+\n$/)
  })

  it.each(['2.4', '2.6', '2.9'])('passes on Deno %s', async (version) => {
    const deno = ['node', `node_modules/deno-${version}/bin.cjs`, 'run', '--allow-all'] as const

    expect(await adopter.run(...deno, 'live.cjs')).toMatch(/^complete on PostgreSQL \d+\n$/)
  })
})
